package relay

import (
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSetPath(t *testing.T) {
	for _, path := range []string{"/", "/a%2Fb", "//a", "/%41", "/a b|c", "/[x]", "/caf\xc3\xa9", "/%e9", "/a:b"} {
		t.Run("O20: "+path+" is the request target as it is", func(t *testing.T) {
			u := &url.URL{Scheme: "https", Host: "h", Path: "/old", RawPath: "/%6fld", Opaque: "old", RawQuery: "a;b"}
			setPath(u, path)
			if got := u.RequestURI(); got != path+"?a;b" {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("O20: the absolute form stands in where net/url takes a path for a host", func(t *testing.T) {
		u := &url.URL{Scheme: "https", Host: "h"}
		setPath(u, "//a|b")
		if got := u.RequestURI(); got != "https://h//a|b" {
			t.Errorf("got %q", got)
		}
	})
}

func FuzzSetPath(f *testing.F) {
	for _, seed := range []string{"/a%2Fb", "//a|b", "/%zz", "/?", "/\x80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		u := &url.URL{Scheme: "https", Host: "h"}
		setPath(u, path)
		if got := strings.TrimPrefix(u.RequestURI(), "https://h"); got != path {
			t.Errorf("%q became %q", path, got)
		}
	})
}
