package policy_test

import (
	"errors"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestAll(t *testing.T) {
	yes := parse(t, "rules:\n- {name: yes, effect: allow, services: [{namespace: '*', name: '*'}]}\n")
	no := parse(t, "default: deny\n")
	broken := failing{errors.New("cluster is down")}
	ask := service("a", "b", "1", "http", 0)(t)
	tests := []struct {
		name    string
		all     policy.Authorizer
		allowed bool
		code    wire.Code // of an error
	}{
		{"V20: nobody allows nothing", policy.All(), false, wire.CodePermissionDenied},
		{"one", policy.All(yes), true, 0},
		{"all allow", policy.All(yes, yes), true, 0},
		{"one denies", policy.All(yes, no), false, wire.CodePermissionDenied},
		{"who denies first is enough", policy.All(no, broken), false, wire.CodePermissionDenied},
		{"N10: who cannot decide is 503, whatever the others say", policy.All(yes, broken), false, wire.CodeUnavailable},
		{"N10: who cannot decide is 503, whatever it says beside", broken, false, wire.CodeUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := policy.Check(t.Context(), tt.all, ask, wire.HopHub)
			if d.Allowed != tt.allowed || (err == nil) != tt.allowed {
				t.Fatalf("%+v, %v", d, err)
			}
			if f := fault.As(err); err != nil && (f == nil || f.Code != tt.code || f.Hop != wire.HopHub || f.Cluster != "edge-1") {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("N10: a fault says itself who could not decide", func(t *testing.T) {
		own := &fault.Error{Hop: wire.HopHub, Op: "authorize", Code: wire.CodeDeadlineExceeded}
		if _, err := policy.Check(t.Context(), failing{own}, ask, wire.HopAgent); fault.As(err) != own {
			t.Error(err)
		}
	})
}
