package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

func TestTokenSource(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	var asked atomic.Int32
	cfg := hub.Config()
	cfg.Token, cfg.Patience = "", -1
	cfg.TokenSource = func(context.Context) (string, time.Time, error) {
		if asked.Add(1) == 1 {
			return "an-old-one", time.Now().Add(time.Hour), nil
		}
		return hub.Token, time.Now().Add(time.Hour), nil
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Run("N10: a refused token is told, and forgotten, however long it says that it lasts", func(t *testing.T) {
		err := c.Connect(t.Context())
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.Unauthenticated || e.Hop != client.HopHub {
			t.Errorf("got %v", err)
		}
		u, err := c.WhoAmI(t.Context())
		if err != nil || u.Name != "tester" {
			t.Errorf("got %+v, %v", u, err)
		}
	})
	t.Run("a good one is asked for once", func(t *testing.T) {
		if _, err := c.Clusters(t.Context()); err != nil {
			t.Error(err)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("the source was asked %d times", n)
		}
	})
}
