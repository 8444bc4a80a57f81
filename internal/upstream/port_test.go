package upstream

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/wire"
)

func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPorts()
		target := wire.Service("ns", "svc", "https", "https")
		p.put(target, 8443)
		time.Sleep(portTTL - time.Millisecond)
		if number, ok := p.get(target); !ok || number != 8443 {
			t.Errorf("O21: before its time is over: %d, %v", number, ok)
		}
		time.Sleep(time.Millisecond)
		if _, ok := p.get(target); ok {
			t.Error("O21: a number is used after its time")
		}
		for i := range 2*maxPorts + 1 {
			p.put(wire.Service("ns", "svc-"+strconv.Itoa(i), "https", ""), 1)
			if len(p.known) > maxPorts {
				t.Fatalf("O21: %d numbers are kept", len(p.known))
			}
		}
	})
}
