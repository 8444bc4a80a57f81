package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

var alice = Caller{User: &user.DefaultInfo{Name: "alice", UID: "1", Groups: []string{"ops"}}, Method: MethodStaticToken}

func anybody(context.Context, user.Info, Assumed) (bool, string, error) { return true, "", nil }

func TestParseAssumed(t *testing.T) {
	for _, c := range []struct {
		name string
		h    http.Header
		want *Assumed
		says string // of the error
	}{
		{"nothing", http.Header{"Accept": {"x"}, "Impersonation": {"x"}, "X-Impersonate-User": {"x"}}, nil, ""},
		{"a user", http.Header{"Impersonate-User": {"bob"}}, &Assumed{User: "bob"}, ""},
		{"everything", http.Header{
			"Impersonate-User": {"bob"}, "Impersonate-Uid": {"7"}, "Impersonate-Group": {"b", "a,c"},
			"Impersonate-Extra-Example.com%2fScope": {"x", "y"}, "Impersonate-Extra-Plain": {"z"},
		}, &Assumed{User: "bob", UID: "7", Groups: []string{"b", "a,c"}, Extra: map[string][]string{"example.com/scope": {"x", "y"}, "plain": {"z"}}}, ""},
		{"a name in lower case, as HTTP/2 has it", http.Header{"impersonate-user": {"bob"}}, &Assumed{User: "bob"}, ""},
		{"a user twice", http.Header{"Impersonate-User": {"bob", "bob"}}, nil, "more than once"},
		{"a user in two letter cases", http.Header{"Impersonate-User": {"bob"}, "impersonate-user": {"bob"}}, nil, "more than once"},
		{"a UID twice", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Uid": {"1", "2"}}, nil, "more than once"},
		{"an empty user", http.Header{"Impersonate-User": {""}}, nil, "is empty"},
		{"a user without a value", http.Header{"Impersonate-User": {}}, nil, "no value"},
		{"an empty group", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"a", ""}}, nil, "is empty"},
		{"groups alone", http.Header{"Impersonate-Group": {"system:masters"}}, nil, "without a user"},
		{"a UID alone", http.Header{"Impersonate-Uid": {"1"}}, nil, "without a user"},
		{"extra alone", http.Header{"Impersonate-Extra-A": {"1"}}, nil, "without a user"},
		{"an underscore", http.Header{"Impersonate_user": {"bob"}}, nil, "no field that"},
		{"an underscore beside the right name", http.Header{"Impersonate-User": {"bob"}, "Impersonate_group": {"x"}}, nil, "no field that"},
		{"a mark before", http.Header{"_impersonate-User": {"bob"}}, nil, "no field that"},
		{"a mark after", http.Header{"Impersonate-User_": {"bob"}}, nil, "no field that"},
		{"a dot", http.Header{"Impersonate.user": {"bob"}}, nil, "no field that"},
		{"another field", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Everything": {"x"}}, nil, "no field that"},
		{"extra without a key", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Extra-": {"x"}}, nil, "no field that"},
		{"a key with a bad escape", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Extra-%zz": {"x"}}, nil, "not percent-encoded"},
		{"the hub's own key", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Extra-Culvert.dev%2fhub-User": {"x"}}, nil, "set by the hub"},
		{"the hub's own key, all escaped", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Extra-%43ulvert%2edev%2Fx": {"x"}}, nil, "set by the hub"},
		{"a control character", http.Header{"Impersonate-User": {"bob\r\nImpersonate-Group: x"}}, nil, "control character"},
		{"a space at an end", http.Header{"Impersonate-User": {"bob "}}, nil, "a space at an end"},
		{"a mention in Connection", http.Header{"Impersonate-User": {"bob"}, "Connection": {"close, impersonate-user"}}, nil, "the header Connection names"},
		{"a mention in a Connection of another case", http.Header{"Impersonate-User": {"bob"}, "connection": {"Impersonate_Group"}}, nil, "the header Connection names"},
		{"too many", http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": slices.Repeat([]string{"g"}, maxAssumed)}, nil, "more than 128 values"},
	} {
		t.Run("N9: a request to act as another user is read: "+c.name, func(t *testing.T) {
			before := maps.Clone(c.h)
			got, err := ParseAssumed(c.h)
			if c.says != "" {
				if f := wantStatus(t, err, http.StatusBadRequest); !strings.Contains(f.Error(), c.says) || got != nil {
					t.Errorf("got %+v, %q, want %q", got, f, c.says)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) || !reflect.DeepEqual(c.h, before) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestAssume(t *testing.T) {
	asBob := http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"dev", "system:masters"}, "Impersonate-Uid": {"7"}, "Impersonate-Extra-Scope": {"x"}}
	t.Run("N9: a user who may acts as another one, and stays known", func(t *testing.T) {
		var asked []string
		got, err := Assume(t.Context(), asBob, alice, func(_ context.Context, caller user.Info, as Assumed) (bool, string, error) {
			asked = append(asked, fmt.Sprintf("%s as %s %s %v %v", caller.GetName(), as.User, as.UID, as.Groups, as.Extra))
			return true, "", nil
		})
		if err != nil || !slices.Equal(asked, []string{"alice as bob 7 [dev system:masters] map[scope:[x]]"}) {
			t.Fatalf("asked %q, %v", asked, err)
		}
		if Real(got.User) != alice.User || got.User.GetName() != "bob" || got.Method != MethodStaticToken {
			t.Errorf("got %+v", got)
		}
		mapped, err := newMapper(t, Config{}).Map(got.User)
		want := Impersonation{
			User: "cluster:hub:bob", UID: "7", Groups: []string{"cluster:hub:dev"}, Dropped: []string{"system:masters"},
			Extra: map[string][]string{"scope": {"x"}, ExtraHubUser: {"alice"}, ExtraAssumedUser: {"bob"}},
		}
		if err != nil || !reflect.DeepEqual(mapped, want) {
			t.Errorf("mapped to %+v, %v, want %+v", mapped, err, want)
		}
	})
	t.Run("N9: a request that asks for nobody is its caller's, and nobody is asked", func(t *testing.T) {
		got, err := Assume(t.Context(), http.Header{}, alice, func(context.Context, user.Info, Assumed) (bool, string, error) {
			t.Error("asked")
			return false, "", nil
		})
		if err != nil || got.User != alice.User || Real(got.User) != alice.User {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	for as, groups := range map[string][]string{
		"system:serviceaccount:ops:robot": {"system:serviceaccounts", "system:serviceaccounts:ops", "system:authenticated"},
		"system:serviceaccount:ops":       nil,
		"bob":                             nil,
	} {
		t.Run("N9: only a service account gets groups that were not asked for, its own: "+as, func(t *testing.T) {
			got, err := Assume(t.Context(), http.Header{"Impersonate-User": {as}}, alice, anybody)
			if err != nil || !slices.Equal(got.User.GetGroups(), groups) {
				t.Errorf("got %v, %v, want %v", got.User.GetGroups(), err, groups)
			}
		})
	}
	passed := Caller{User: &user.DefaultInfo{Name: PassThroughUser}, Method: MethodPassThrough, forward: func() string { return "t" }}
	for _, c := range []struct {
		name   string
		caller Caller
		h      http.Header
		may    MayImpersonate
		status int
		says   string
	}{
		{"nobody may at all", alice, asBob, nil, 403, "nobody may act as another user"},
		{"the user may not", alice, asBob, func(context.Context, user.Info, Assumed) (bool, string, error) { return false, "rule x denies it", nil }, 403, "rule x denies it"},
		{"the user may not, without a reason", alice, asBob, func(context.Context, user.Info, Assumed) (bool, string, error) { return false, "", nil }, 403, "no rule allows it"},
		{"nobody can decide", alice, asBob, func(context.Context, user.Info, Assumed) (bool, string, error) {
			return false, "", errors.New("review failed")
		}, 503, "review failed"},
		{"an error beside a yes", alice, asBob, func(context.Context, user.Info, Assumed) (bool, string, error) {
			return true, "", errors.New("review failed")
		}, 503, "review failed"},
		{"an error that says its own", alice, asBob, func(context.Context, user.Info, Assumed) (bool, string, error) {
			return true, "", &fault.Error{Hop: wire.HopHub, Code: wire.CodeResourceExhausted}
		}, 503, "resource exhausted"},
		{"a token that the cluster judges", passed, asBob, anybody, 403, "does not know whose token"},
		{"no caller", Caller{}, asBob, anybody, 403, "no caller"},
		{"as nobody", alice, http.Header{"Impersonate-User": {"system:anonymous"}}, anybody, 403, "system:anonymous"},
		{"as one of nobody", alice, http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"system:unauthenticated"}}, anybody, 403, "system:unauthenticated"},
		{"as whom a cluster judges", alice, http.Header{"Impersonate-User": {PassThroughUser}}, anybody, 403, PassThroughUser},
		{"fields that cannot be followed", alice, http.Header{"Impersonate_user": {"bob"}}, anybody, 400, "Impersonate_user"},
	} {
		t.Run("N9: acting as another user is refused: "+c.name, func(t *testing.T) {
			got, err := Assume(t.Context(), c.h, c.caller, c.may)
			if f := wantStatus(t, err, c.status); !strings.Contains(f.Error(), c.says) {
				t.Errorf("got %q, want %q", f, c.says)
			}
			if got.User != nil {
				t.Errorf("somebody came out: %+v", got)
			}
		})
	}
}

func TestAssumedAttributes(t *testing.T) {
	t.Run("N9: an authorizer is asked what a kube-apiserver asks", func(t *testing.T) {
		var got []string
		for _, as := range []Assumed{
			{User: "bob", UID: "7", Groups: []string{"dev", "ops"}, Extra: map[string][]string{"scope": {"x", "y"}, "a/b": {"z"}}},
			{User: "system:serviceaccount:ns:robot"},
		} {
			for _, a := range as.Attributes(alice.User) {
				if a.GetUser() != alice.User || !a.IsResourceRequest() || a.GetAPIVersion() != "v1" {
					t.Errorf("%+v", a)
				}
				got = append(got, strings.Join([]string{a.GetVerb(), a.GetAPIGroup(), a.GetResource(), a.GetSubresource(), a.GetNamespace(), a.GetName()}, "|"))
			}
		}
		want := []string{
			"impersonate||users|||bob", "impersonate||groups|||dev", "impersonate||groups|||ops", "impersonate|authentication.k8s.io|uids|||7",
			"impersonate|authentication.k8s.io|userextras|a/b||z", "impersonate|authentication.k8s.io|userextras|scope||x",
			"impersonate|authentication.k8s.io|userextras|scope||y", "impersonate||serviceaccounts||ns|robot",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q\nwant %q", got, want)
		}
	})
}

// FuzzAssume sends claims of identity in random spellings with a policy that allows
// everything, and checks that whoever comes out was asked for in the one way that a
// kube-apiserver reads too.
func FuzzAssume(f *testing.F) {
	f.Add(uint64(0), "bob", "Extra-Scope")
	f.Add(uint64(1), "bob\r\nx", "Extra-%2")
	f.Add(uint64(2), "", "Group")
	f.Fuzz(func(t *testing.T, seed uint64, value, suffix string) {
		rng := rand.New(rand.NewPCG(seed, 2))
		h := http.Header{}
		for range 1 + rng.IntN(4) {
			name := []string{"Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-" + suffix}[rng.IntN(4)]
			switch rng.IntN(4) {
			case 0:
				h.Add(name, value)
			case 1:
				name = respell(rng, name)
				h[name] = append(h[name], value)
			case 2:
				h.Add("Connection", name)
			default:
				h.Set(name, value)
			}
		}
		got, err := Assume(t.Context(), h, alice, anybody)
		claims := 0
		for name := range h {
			if isImpersonate(fold(name)) {
				claims++
			}
		}
		switch {
		case err != nil:
			if fault.As(err) == nil {
				t.Fatalf("got %v, which is no fault", err)
			}
		case claims == 0:
			if got.User != alice.User {
				t.Fatalf("%q became %q", h, got.User.GetName())
			}
		default:
			if users := headerValues(h, "Impersonate-User"); len(users) != 1 || got.User.GetName() != users[0] || Real(got.User) != alice.User {
				t.Fatalf("%q became %q", h, got.User.GetName())
			}
			mapped, err := newMapper(t, Config{}).Map(got.User)
			if err == nil && (!strings.HasPrefix(mapped.User, DefaultPrefix) || !slices.Equal(mapped.Extra[ExtraHubUser], []string{"alice"})) {
				t.Fatalf("%q was mapped to %+v", h, mapped)
			}
		}
	})
}
