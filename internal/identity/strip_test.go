package identity

import (
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestStrip(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want http.Header
	}{
		{"the usual spellings", http.Header{
			"Authorization": {"x"}, "Proxy-Authorization": {"x"}, "Culvert-Authorization": {"x"}, "Impersonate-User": {"x"},
			"Impersonate-Group": {"x"}, "Impersonate-Uid": {"x"}, "Impersonate-Extra-Foo%2fbar": {"x"}, "X-Remote-User": {"x"},
			"X-Remote-Group": {"x"}, "X-Remote-Uid": {"x"}, "X-Remote-Extra-Foo": {"x"}, "X-Forwarded-For": {"x"}, "Forwarded": {"x"},
		}, http.Header{}},
		{"odd case, underscores and other marks", http.Header{
			"authorization": {"x"}, "AUTHORIZATION": {"x"}, "impersonate-user": {"x"}, "IMPERSONATE_USER": {"x"}, "Impersonate_Group": {"x"},
			"x_remote_user": {"x"}, "X-Remote_Extra-a": {"x"}, "impersonate.user": {"x"}, "_Impersonate-User": {"x"}, "Authorization_": {"x"},
		}, http.Header{}},
		{"names that are no tokens", http.Header{"Impersonate-User\x20": {"x"}, "Impersonate-User\r\nA": {"x"}, "Imper\u017fonate-User": {"x"}, "": {"x"}}, http.Header{}},
		{"mentions in Connection and Trailer", http.Header{
			"Connection": {"Upgrade, Impersonate-User, keep-alive", "impersonate_group", "authorization,close"}, "Trailer": {"Impersonate-User", "X-Remote-User, Digest"},
		}, http.Header{"Connection": {"Upgrade, keep-alive", "close"}, "Trailer": {"Digest"}}},
		{"a Connection of nothing else", http.Header{"connection": {"Impersonate-User"}}, http.Header{}},
		{"a bearer subprotocol in odd case", http.Header{
			"Sec-Websocket-Protocol": {"binary, BASE64URL.bearer.authorization.k8s.io.eHg , v4.channel.k8s.io"},
		}, http.Header{"Sec-Websocket-Protocol": {"binary, v4.channel.k8s.io"}}},
		{"nothing else is touched", http.Header{
			"Accept": {"*/*"}, "Connection": {"Upgrade ,  x"}, "Upgrade": {"websocket"}, "Cookie": {"a=b"}, "X-Remotely": {"y"}, "Impersonation": {"y"},
			"X-Auth-Request": {"y"}, "Sec-Websocket-Protocol": {"a,b", "c"}, "accept-encoding": {"gzip", ""}, "Trailer": {"Digest"},
		}, http.Header{
			"Accept": {"*/*"}, "Connection": {"Upgrade ,  x"}, "Upgrade": {"websocket"}, "Cookie": {"a=b"}, "X-Remotely": {"y"}, "Impersonation": {"y"},
			"X-Auth-Request": {"y"}, "Sec-Websocket-Protocol": {"a,b", "c"}, "accept-encoding": {"gzip", ""}, "Trailer": {"Digest"},
		}},
		{"no header", nil, nil},
	} {
		t.Run("O4: a client's claims of identity are removed: "+c.name, func(t *testing.T) {
			Strip(c.in)
			if !reflect.DeepEqual(c.in, c.want) {
				t.Errorf("left with %q, want %q", c.in, c.want)
			}
		})
	}
	t.Run("O4: trailers are stripped too", func(t *testing.T) {
		trailer := http.Header{"Impersonate-User": nil, "x_remote_group": {"x"}, "Authorization": {"x"}, "Digest": {"y"}}
		StripTrailer(trailer)
		if !reflect.DeepEqual(trailer, http.Header{"Digest": {"y"}}) {
			t.Errorf("left with %q", trailer)
		}
		StripTrailer(nil)
	})
}

// FuzzStrip plants a value under names that claim an identity, each in a random
// spelling and mixed with harmless fields, and looks for what survives.
func FuzzStrip(f *testing.F) {
	f.Add(uint64(0), "Extra-Foo", "Accept", "text/plain")
	f.Add(uint64(1), "User", "Connection", "close, x")
	f.Add(uint64(2), "", "Impersonate-User ", "x")
	f.Add(uint64(3), "Group\r\n", "Trailer", "x_remote_user")
	f.Fuzz(func(t *testing.T, seed uint64, suffix, otherName, otherValue string) {
		const planted = "chosen-by-the-client"
		rng := rand.New(rand.NewPCG(seed, 1))
		names := []string{
			"Authorization", "Proxy-Authorization", "Culvert-Authorization", "Impersonate-User", "Impersonate-Group", "Impersonate-Uid",
			"Impersonate-Extra-" + suffix, "Impersonate-" + suffix, "X-Remote-User", "X-Remote-Group", "X-Remote-Extra-" + suffix, "X-Remote-" + suffix,
		}
		h, trailer := http.Header{}, http.Header{}
		var mentioned []string
		h.Add(otherName, otherValue)
		for range 1 + rng.IntN(20) {
			name := respell(rng, names[rng.IntN(len(names))])
			switch rng.IntN(4) {
			case 0:
				h.Add(name, planted)
			case 1:
				h[name] = append(h[name], planted)
			case 2:
				trailer[name] = []string{planted}
			default:
				list := []string{"Connection", "connection", "Trailer"}[rng.IntN(3)]
				h[list] = append(h[list], "keep-alive ,"+name)
				mentioned = append(mentioned, name)
			}
		}
		h["Accept-Charset"] = []string{"stays"}
		Strip(h)
		StripTrailer(trailer)
		if len(trailer) != 0 {
			t.Fatalf("trailers survived: %q", trailer)
		}
		for name, values := range h {
			if slices.Contains(values, planted) {
				t.Fatalf("%q survived", name)
			}
			if lower := strings.ToLower(name); lower != "connection" && lower != "trailer" {
				continue
			}
			for _, value := range values {
				for member := range strings.SplitSeq(value, ",") {
					if slices.Contains(mentioned, strings.TrimSpace(member)) && !strings.Contains(suffix, ",") {
						t.Fatalf("%s still names %q", name, member)
					}
				}
			}
		}
		if h.Get("Accept-Charset") != "stays" {
			t.Fatal("a harmless field is gone")
		}
		if err := (Impersonation{User: "cluster:hub:alice", Groups: []string{"g"}}).Apply(h); err != nil {
			t.Fatal(err)
		}
		for name, values := range h {
			mapped := name == "Impersonate-User" && slices.Equal(values, []string{"cluster:hub:alice"}) ||
				name == "Impersonate-Group" && slices.Equal(values, []string{"g"})
			if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "impersonate-") && !mapped {
				t.Fatalf("%q: %q beside the mapped identity", name, values)
			}
		}
	})
}

func respell(rng *rand.Rand, name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c == '-' && rng.IntN(3) == 0:
			b[i] = '_'
		case c >= 'a' && c <= 'z' && rng.IntN(2) == 0:
			b[i] = c - 'a' + 'A'
		case c >= 'A' && c <= 'Z' && rng.IntN(2) == 0:
			b[i] = c - 'A' + 'a'
		}
	}
	return string(b)
}
