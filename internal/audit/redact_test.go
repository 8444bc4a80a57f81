package audit

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

const jwt = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"

func TestRedact(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a JSON Web Token", jwt, Redacted},
		{"in a path", "/clusters/" + jwt + "/api", "/clusters/" + Redacted + "/api"},
		{"in a sentence, twice", "token " + jwt + ", " + jwt + "!", "token " + Redacted + ", " + Redacted + "!"},
		{"bearer", `header "Authorization: Bearer abc/123+def=="`, `header "Authorization: Bearer ` + Redacted + `"`},
		{"bearer in odd case", "bEaReR 0123456789", "bEaReR " + Redacted},
		{"bearer, escaped", "/x/Bearer%20abcdefgh", "/x/Bearer%20" + Redacted},
		{"basic", "Basic dXNlcjpwYXNzd29yZA==", "Basic " + Redacted},
		{"of a WebSocket", "base64url.bearer.authorization.k8s.io.YWJj, v5", "base64url.bearer.authorization.k8s.io." + Redacted + ", v5"},
		{"to join", "culvert-join.AbC123", "culvert-join." + Redacted},
		{"after what nearly is one", "eyeyJ eyJ Bearer Bearer 0123456789", "eyeyJ eyJ Bearer Bearer " + Redacted},
		{"words are none", "no bearer token; basic auth is off; eyJ", "no bearer token; basic auth is off; eyJ"},
		{"names are none", "rbac.authorization.k8s.io culvert-join", "rbac.authorization.k8s.io culvert-join"},
	} {
		t.Run("D7: "+c.name, func(t *testing.T) {
			if got := redact(c.in); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			l := encode(&Event{Reason: c.in, Path: c.in, User: Identity{Name: c.in}})
			d := decode(t, l)
			if d.Reason != c.want || d.Path != c.want || d.User.Name != c.want {
				t.Errorf("the line has %+v", d)
			}
		})
	}
	t.Run("D7: a credential at the place where a text is cut", func(t *testing.T) {
		for n := range 3 * maxText {
			l := encode(&Event{Error: strings.Repeat("x", n) + "Bearer " + jwt})
			if strings.Contains(l, jwt[20:40]) {
				t.Fatalf("after %d bytes: %s", n, l)
			}
		}
	})
	t.Run("D7: a path has no query and no fragment", func(t *testing.T) {
		for in, want := range map[string]string{"/a?token=x": "/a", "/a#x?y": "/a", "/a%3Fb": "/a%3Fb", "?": "", "/a": "/a"} {
			if got := decode(t, encode(&Event{Path: in})).Path; got != want {
				t.Errorf("%q: %q, want %q", in, got, want)
			}
		}
	})
}

func TestNoFieldForSecrets(t *testing.T) {
	e := &Event{}
	fill(e, "x")
	t.Run("D7: no member of a line has a name that secrets go by", func(t *testing.T) {
		var members map[string]any
		if err := json.Unmarshal([]byte(encode(e)), &members); err != nil {
			t.Fatal(err)
		}
		for name := range members {
			for _, secret := range []string{"token", "password", "passwd", "secret", "credential", "cookie", "authorization", "header", "query", "body", "key", "ticket", "extra"} {
				if strings.Contains(strings.ToLower(name), secret) {
					t.Errorf("member %q", name)
				}
			}
		}
		if len(members) < 30 {
			t.Errorf("%d members of a full event", len(members))
		}
	})
	t.Run("D7: an event has no field that could hold headers or a user's extra fields", func(t *testing.T) {
		for _, typ := range []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[Identity]()} {
			for f := range typ.Fields() {
				switch f.Type.Kind() {
				case reflect.Map, reflect.Interface, reflect.Pointer:
					t.Errorf("%s.%s is a %v", typ.Name(), f.Name, f.Type)
				}
			}
		}
	})
}

// FuzzRedact plants a credential between any two texts, in any field.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{"", "x", "/a/", " ", "ey", "\n", "eyJ", "Bearer ", "🙂", "\x01", "\\u00", "basic", "%20"} {
		f.Add(s, s, []byte("0123456789abcdef"))
	}
	f.Fuzz(func(t *testing.T, before, after string, secret []byte) {
		if len(secret) < 12 || len(before) > 100 {
			return
		}
		text := base64.RawURLEncoding.EncodeToString(secret)
		for _, planted := range []string{
			"eyJ" + text + "." + text, "Bearer " + text, "BEARER " + text, "bearer%20" + text,
			"basic " + text, "base64url.bearer.authorization.k8s.io." + text, "culvert-join." + text,
		} {
			if strings.Contains(before, text) || strings.Contains(after, text) {
				return
			}
			e := &Event{}
			fill(e, before+planted+after)
			// What stands before may be cut off with the credential, or take it for
			// a part of a credential of its own.
			if l := encode(e); strings.Contains(l, text) {
				t.Fatalf("%q is in %s", text, l)
			}
		}
	})
}
