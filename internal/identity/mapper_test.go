package identity

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

func newMapper(t testing.TB, cfg Config) *Mapper {
	t.Helper()
	m, err := NewMapper(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMap(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		user user.DefaultInfo
		want Impersonation
	}{
		{
			"O15: a service account of the hub gets the name that Open Cluster Management gives it", Config{},
			user.DefaultInfo{Name: saName, UID: "u", Groups: []string{"system:serviceaccounts", "system:authenticated"}, Extra: map[string][]string{"k": {"v"}}},
			Impersonation{
				User: "cluster:hub:" + saName, UID: "u",
				Groups: []string{"cluster:hub:system:serviceaccounts", "cluster:hub:system:authenticated"},
				Extra:  map[string][]string{"k": {"v"}, ExtraHubUser: {saName}},
			},
		},
		{
			"O15: system:masters is dropped, in whatever company", Config{},
			user.DefaultInfo{Name: "root", Groups: []string{"system:masters", "dev", "system:masters"}},
			Impersonation{
				User: "cluster:hub:root", Groups: []string{"cluster:hub:dev"},
				Extra: map[string][]string{ExtraHubUser: {"root"}}, Dropped: []string{"system:masters", "system:masters"},
			},
		},
		{
			"O15: system:masters goes out only prefixed where an administrator allows it", Config{DeniedGroups: []string{}},
			user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}},
			Impersonation{User: "cluster:hub:root", Groups: []string{"cluster:hub:system:masters"}, Extra: map[string][]string{ExtraHubUser: {"root"}}},
		},
		{
			"O15: a name that has the prefix already gets it again", Config{},
			user.DefaultInfo{Name: "cluster:hub:alice", Groups: []string{"cluster:hub:dev"}},
			Impersonation{
				User: "cluster:hub:cluster:hub:alice", Groups: []string{"cluster:hub:cluster:hub:dev"},
				Extra: map[string][]string{ExtraHubUser: {"cluster:hub:alice"}},
			},
		},
		{
			"O15: prefix, denied groups and group mapping are configurable",
			Config{Prefix: "corp/", DeniedGroups: []string{"guests"}, GroupRules: []Rule{{"ops", []string{"admins", "viewers"}}, {"sre", []string{"admins"}}, {"guests", []string{"admins"}}}},
			user.DefaultInfo{Name: "alice", Groups: []string{"ops", "sre", "guests", "dev", ""}},
			Impersonation{
				User: "corp/alice", Groups: []string{"admins", "viewers", "corp/dev"},
				Extra: map[string][]string{ExtraHubUser: {"alice"}}, Dropped: []string{"guests", ""},
			},
		},
		{
			"O15: a backend cannot set the extra keys of the hub", Config{},
			user.DefaultInfo{Name: "alice", Extra: map[string][]string{ExtraHubUser: {"root"}, "Culvert.dev/Hub-User": {"root"}, "culvert.dev/x": {"y"}}},
			Impersonation{User: "cluster:hub:alice", Extra: map[string][]string{ExtraHubUser: {"alice"}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := newMapper(t, c.cfg).Map(&c.user)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
			}
		})
	}
	for name, u := range map[string]user.DefaultInfo{
		"no name":                        {},
		"anonymous":                      {Name: "system:anonymous"},
		"a name that ends in a space":    {Name: "alice "},
		"a name with a newline":          {Name: "alice\r\nImpersonate-Group: system:masters"},
		"a group with a NUL":             {Name: "alice", Groups: []string{"a\x00"}},
		"a UID that begins with a space": {Name: "alice", UID: " 1"},
		"an extra value with a newline":  {Name: "alice", Extra: map[string][]string{"k": {"a\nb"}}},
		"an extra value with an end":     {Name: "alice", Extra: map[string][]string{"k": {"a\t"}}},
		"an empty extra key":             {Name: "alice", Extra: map[string][]string{"": {"a"}}},
	} {
		t.Run("O15: a user that no header carries is refused: "+name, func(t *testing.T) {
			_, err := newMapper(t, Config{}).Map(&u)
			wantStatus(t, err, http.StatusForbidden)
		})
	}
	t.Run("O15: a prefix that could make system groups is refused", func(t *testing.T) {
		if _, err := NewMapper(Config{Prefix: "system"}); err == nil {
			t.Error("accepted")
		}
	})
}

// apiServerReads has the impersonation filter of a real kube-apiserver read h,
// and returns whom it sees and what it asked RBAC for.
func apiServerReads(t *testing.T, h http.Header) (user.Info, []string) {
	t.Helper()
	var seen user.Info
	var asked []string
	filter := impersonation.WithImpersonation(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen, _ = apirequest.UserFrom(r.Context()) }),
		authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			resource := a.GetResource()
			if a.GetSubresource() != "" {
				resource += "/" + a.GetSubresource()
			}
			asked = append(asked, a.GetVerb()+" "+a.GetAPIGroup()+" "+resource+" "+a.GetName())
			return authorizer.DecisionAllow, "", nil
		}),
		serializer.NewCodecFactory(runtime.NewScheme()),
	)
	// Through a real server, so that names and values are what a wire carries.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(apirequest.WithUser(r.Context(), &user.DefaultInfo{Name: "agent"}))
		filter.ServeHTTP(w, r)
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = h
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", response.StatusCode, err)
	}
	slices.Sort(asked)
	return seen, asked
}

func TestApply(t *testing.T) {
	t.Run("O4: the filter of kube-apiserver reads exactly the mapped user", func(t *testing.T) {
		u := &user.DefaultInfo{
			Name: "Jürgen %41 a:b/c", UID: "u-1", Groups: []string{"dev", "a, b", "Ж"},
			Extra: map[string][]string{
				"authentication.kubernetes.io/credential-id": {"JTI=1"},
				"scopes": {"a", "b", ""}, "Case": {"x"}, "case": {"y"}, "100%": {"z"}, "k v:ü": {"w, v"},
			},
		}
		i, err := newMapper(t, Config{}).Map(u)
		if err != nil {
			t.Fatal(err)
		}
		i = i.WithRequestID("req-1")
		h := http.Header{"impersonate-GROUP": {"system:masters"}, "Impersonate-Extra-Other": {"x"}, "Accept": {"*/*"}}
		if err := i.Apply(h); err != nil {
			t.Fatal(err)
		}
		seen, asked := apiServerReads(t, h)
		if seen.GetName() != i.User || seen.GetUID() != i.UID {
			t.Errorf("kube-apiserver sees %q, %q", seen.GetName(), seen.GetUID())
		}
		if want := append(slices.Clone(i.Groups), "system:authenticated"); !slices.Equal(seen.GetGroups(), want) {
			t.Errorf("kube-apiserver sees the groups %q, want %q", seen.GetGroups(), want)
		}
		if !reflect.DeepEqual(seen.GetExtra(), i.Extra) {
			t.Errorf("kube-apiserver sees extra\n%q, want\n%q", seen.GetExtra(), i.Extra)
		}
		for _, a := range asked {
			ok := strings.HasPrefix(a, "impersonate  users ") || strings.HasPrefix(a, "impersonate  groups cluster:hub:") ||
				strings.HasPrefix(a, "impersonate authentication.k8s.io uids ") || strings.HasPrefix(a, "impersonate authentication.k8s.io userextras/")
			if !ok {
				t.Errorf("a right is needed that the package does not name: %q", a)
			}
		}
	})
	t.Run("O15: a service account's name is read as a user, not as an account of the managed cluster", func(t *testing.T) {
		i, err := newMapper(t, Config{}).Map(&user.DefaultInfo{Name: saName})
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		if err := i.Apply(h); err != nil {
			t.Fatal(err)
		}
		_, asked := apiServerReads(t, h)
		if want := "impersonate  users cluster:hub:" + saName; !slices.Contains(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
	})
	for name, i := range map[string]Impersonation{
		"the zero value":      {},
		"a system user":       {User: "system:admin"},
		"a system group":      {User: "a", Groups: []string{"system:masters"}},
		"a newline in a user": {User: "a\nb"},
		"a newline in an id":  Impersonation{User: "a"}.WithRequestID("a\r\nb"),
	} {
		t.Run("O15: nothing is set and nothing of the client is left: "+name, func(t *testing.T) {
			h := http.Header{"Impersonate-User": {"root"}, "Accept": {"*/*"}}
			if err := i.Apply(h); err == nil {
				t.Error("accepted")
			}
			if len(h) != 1 {
				t.Errorf("left with %v", h)
			}
		})
	}
	t.Run("O4: a request id does not change what is shared", func(t *testing.T) {
		i := Impersonation{User: "a", Extra: map[string][]string{"k": {"v"}}}
		if j := i.WithRequestID("1"); len(i.Extra) != 1 || len(j.Extra) != 2 {
			t.Errorf("got %v and %v", i.Extra, j.Extra)
		}
	})
}
