package kube

import (
	"testing"
	"time"
)

// idleTime is for how long nothing happens on the idle watches.
const idleTime = 61 * time.Second

func TestHub(t *testing.T) {
	w := startWorld(t)
	idle := startIdle(t, w)
	t.Run("watch", func(t *testing.T) { testWatch(t, w) })
	t.Run("together", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *world){
			"network": testNetwork, "walkthrough": testWalkthrough, "identity": testIdentity, "callers": testCallers,
			"kubectl": testKubectl, "bulk": testBulk, "api": testAPI, "informer": testInformer,
			"services": testServices, "streams": testStreams, "large": testLarge, "status": testStatus,
			"upgrade": testUpgrade, "edge": testEdge, "dev": testDev,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, w)
			})
		}
	})
	t.Run("idle", func(t *testing.T) { testIdle(t, w, idle) })
}
