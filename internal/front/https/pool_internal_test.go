package https

import (
	"errors"
	"io"
	"math"
	"testing"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestPoolKey(t *testing.T) {
	seen := map[string]bool{}
	for _, target := range []wire.Target{
		wire.KubernetesAPI(), wire.Service("ns", "web", "", "https"), wire.Service("ns", "web", "443", "https"),
		wire.Service("ns", "web", "", "http"), wire.Service("web", "ns", "", "https"), wire.Service("ns", "web", "https", "https"),
	} {
		for _, cluster := range []string{"edge-1", "service", "kubernetes", "7-agent"} {
			key := poolKey(cluster, target)
			if seen[key] {
				t.Errorf("%s %v shares key %q", cluster, target, key)
			}
			seen[key] = true
			for agent, key := range map[uint64]string{0: key, 7: agentKey(7, key), math.MaxUint64: agentKey(math.MaxUint64, key)} {
				gotAgent, gotCluster, got, err := parsePoolKey(key + ":80")
				if err != nil || gotAgent != agent || gotCluster != cluster || got != target {
					t.Errorf("%q: got agent %d of %s, %v, %v", key, gotAgent, gotCluster, got, err)
				}
			}
		}
	}
	for _, bad := range []string{"", "a", "a:80", "a.b:80", "a.b.c.d.e.f:80", "x_agent.a.kubernetes:80"} {
		if _, _, _, err := parsePoolKey(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestExplain(t *testing.T) {
	tests := []struct {
		err  error
		hop  wire.Hop
		code wire.Code
	}{
		{&mux.Error{Code: wire.CodeLinkLost, Hop: wire.HopLink}, wire.HopLink, wire.CodeLinkLost},
		{&mux.Error{Code: wire.CodePermissionDenied, Hop: wire.HopAgent, Message: "no"}, wire.HopAgent, wire.CodePermissionDenied},
		{io.ErrUnexpectedEOF, wire.HopLink, wire.CodeConnectionReset},
		{errors.New("http: server closed idle connection"), wire.HopLink, wire.CodeConnectionReset},
		{errors.New("malformed HTTP response"), wire.HopAgent, wire.CodeProtocolError},
	}
	for _, tt := range tests {
		f := explain(tt.err)
		if f.Hop != tt.hop || f.Code != tt.code || (f.RetryAfter > 0) != (tt.code == wire.CodeLinkLost) {
			t.Errorf("%v: got %v, retry after %v", tt.err, f, f.RetryAfter)
		}
	}
}
