package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/e2e/testbed"
)

// lines is a client's log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestHubRestart(t *testing.T) {
	// Other tests find the agents of all clusters there, not that of edge-1 alone.
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := the.awaitAgents(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, way := range []struct {
		name string
		end  func(context.Context) error
	}{
		{"ends in order", the.hub.Stop},
		{"is killed", func(context.Context) error { return the.hub.Kill9() }},
	} {
		t.Run("a hub that "+way.name, func(t *testing.T) { restart(t, way.end) })
	}
}

// restart takes the hub away under a client and an informer, and brings it back.
func restart(t *testing.T, end func(context.Context) error) {
	ctx := within(t, 3*time.Minute)
	log := &lines{}
	c := newClient(t, the.config(slog.New(slog.NewTextHandler(log, nil))))
	_, api := through(t, c, "edge-1")
	store := informer(ctx, t, api)
	open, err := c.DialContext(ctx, "edge-1", "tcp", echo)
	must(t, err)
	defer open.Close()
	must(t, converse(open, "before"))
	watched := watchClusters(ctx, c)

	must(t, end(ctx))
	name := fmt.Sprintf("while-away-%d", time.Now().UnixNano())
	must(t, makeDirectly(ctx, name))
	must(t, the.hub.Start(ctx))
	back := time.Now()

	t.Run("N4,N10: what was open has failed with a code and a hop, and not as if it were over", func(t *testing.T) {
		_, err := open.Read(make([]byte, 1))
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.LinkLost || e.Hop != client.HopTunnel && e.Hop != client.HopHub {
			t.Errorf("%v", err)
		}
	})
	t.Run("O2,K15: the client dials again without being restarted", func(t *testing.T) {
		// The agent is back by itself, soon.
		must(t, testbed.Poll(ctx, "the echo", func(ctx context.Context) error {
			conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
			if err != nil {
				return err
			}
			return errors.Join(converse(conn, "after"), conn.Close())
		}))
		t.Logf("%v after the hub was back", time.Since(back).Round(time.Millisecond))
	})
	t.Run("O2,K15: a client-go informer goes on without being restarted, and misses nothing", func(t *testing.T) {
		must(t, testbed.Poll(ctx, "the informer", func(context.Context) error {
			if _, ok, err := store.GetByKey("work/" + name); err != nil || !ok {
				return fmt.Errorf("it does not have %s, %w", name, err)
			}
			return nil
		}))
		t.Logf("%v after the hub was back", time.Since(back).Round(time.Millisecond))
	})
	t.Run("O2: a watch of clusters goes on, and ends with its context", func(t *testing.T) {
		must(t, watched.end())
	})
	t.Run("N10: the log has one line of the loss and one of the return", func(t *testing.T) {
		text := log.String()
		if lost, back := strings.Count(text, "lost the connection to the hub"), strings.Count(text, "connected to the hub again"); lost != 1 || back != 1 || strings.Count(text, "\n") != 2 {
			t.Errorf("%d and %d:\n%s", lost, back, text)
		}
	})
}

// informer runs client-go's on the ConfigMaps of a namespace until the end of the test,
// and returns once it has its first list.
func informer(ctx context.Context, t *testing.T, api core.CoreV1Interface) cache.Store {
	t.Helper()
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(api.RESTClient(), "configmaps", "work", fields.Everything()),
		ObjectType:    &corev1.ConfigMap{}, Handler: cache.ResourceEventHandlerFuncs{},
	})
	life, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		controller.RunWithContext(life)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	must(t, testbed.Poll(ctx, "the informer's first list", func(context.Context) error {
		if !controller.HasSynced() {
			return errors.New("it is not complete")
		}
		return nil
	}))
	return store
}

// makeDirectly makes a ConfigMap at the API server itself.
func makeDirectly(ctx context.Context, name string) error {
	admin := the.clusters[0].AdminContext()
	config := &rest.Config{
		Host: admin.Server, BearerToken: admin.Token, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CA}, Dial: the.clusters[0].Namespace.Dial,
	}
	web, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer web.CloseIdleConnections()
	api, err := core.NewForConfigAndClient(config, web)
	if err != nil {
		return err
	}
	_, err = api.ConfigMaps("work").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// watcher watches clusters until edge-1 was seen away and is connected again.
type watcher struct {
	ended chan error
}

func watchClusters(ctx context.Context, c *client.Client) *watcher {
	w := &watcher{ended: make(chan error, 1)}
	synced := make(chan struct{})
	go w.run(ctx, c, synced)
	select {
	case <-synced:
	case <-ctx.Done():
	}
	return w
}

// run ends when the watch was synced twice and edge-1 is connected after the second.
func (w *watcher) run(ctx context.Context, c *client.Client, synced chan struct{}) {
	times := 0
	connected := false
	for e, err := range c.WatchClusters(ctx) {
		if err != nil {
			w.ended <- err
			return
		}
		switch {
		case e.Type == client.Synced:
			if times++; times == 1 {
				close(synced)
			}
		case e.Cluster.Name == "edge-1":
			connected = e.Cluster.Connected
		}
		if times > 1 && connected {
			w.ended <- nil
			return
		}
	}
	w.ended <- errors.New("the watch has ended by itself")
}

func (w *watcher) end() error { return <-w.ended }
