package route_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// FuzzParse holds every accepted path against what other parsers make of it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"/edge-1/api/v1/pods", "/-/healthz", "/edge-1//a%2Fb", "/edge-1/%2e%2E/x", `/edge-1/..\x`, "/edge-1/..;/x", "/edge-1/%252e",
		"/edge-1/api/v1/namespaces/default/services/https:web:443/proxy-service/x%3A",
		"/edge-1/api/v1/namespaces/default/services/web/proxy-service",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := route.Parse(in)
		if err != nil {
			return
		}
		if r.IsOwn {
			if !strings.HasPrefix(in, "/-") || r.Cluster != "" {
				t.Fatalf("Parse(%q) = %+v", in, r)
			}
			return
		}
		if err := route.CheckCluster(r.Cluster); err != nil {
			t.Fatalf("Parse(%q) gives cluster %q: %v", in, r.Cluster, err)
		}
		if err := route.CheckTarget(r.Target); err != nil {
			t.Fatalf("Parse(%q) gives target %v: %v", in, r.Target, err)
		}
		if r.UpstreamPath != "/" && !strings.HasSuffix(in, r.UpstreamPath) || !strings.HasPrefix(r.UpstreamPath, "/") {
			t.Fatalf("Parse(%q) changed the path to %q", in, r.UpstreamPath)
		}
		if err := route.CheckPath(r.UpstreamPath); err != nil {
			t.Fatalf("Parse(%q) gives path %q: %v", in, r.UpstreamPath, err)
		}
		// However a target decodes and cleans, it never climbs.
		decoded, err := url.PathUnescape(r.UpstreamPath)
		if err != nil {
			t.Fatalf("Parse(%q) accepted an escape that net/url refuses: %v", in, err)
		}
		decoded = strings.ReplaceAll(decoded, `\`, "/")
		for segment := range strings.SplitSeq(decoded, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("Parse(%q) accepted the dot segment in %q", in, decoded)
			}
		}
		if cleaned := path.Clean(decoded); strings.Count(cleaned, "/") > strings.Count(decoded, "/") {
			t.Fatalf("Parse(%q): cleaned to %q", in, cleaned)
		}
	})
}

// FuzzParseAddress proves that what is accepted is canonical.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"db.prod:5432", "[::1]:1", "127.1:1", "0x7f.1:1", "DB.:2", "[fe80::1%a]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		target, err := route.ParseAddress(in)
		if err != nil {
			return
		}
		if err := route.CheckTarget(target); err != nil {
			t.Fatalf("ParseAddress(%q) = %v: %v", in, target, err)
		}
		again, err := route.ParseAddress(strings.TrimPrefix(target.String(), "tcp "))
		if err != nil || again != target {
			t.Fatalf("ParseAddress(%q) = %v, again %v, %v", in, target, again, err)
		}
		if target.Kind != wire.TargetAddress {
			t.Fatalf("ParseAddress(%q) = %v", in, target)
		}
	})
}
