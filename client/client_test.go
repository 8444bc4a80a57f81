package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRequests(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{Clusters: []string{"edge-1", "edge-2"}})
	c := hub.Client(t)
	way := &http.Client{Transport: c.RoundTripper()}
	get := func(ctx context.Context, url string) (string, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		res, err := way.Do(r)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return string(text), err
	}
	t.Run("requests go to the cluster that the context names", func(t *testing.T) {
		for _, cluster := range []string{"edge-1", "edge-2"} {
			got, err := get(client.WithCluster(t.Context(), cluster), "https://ignored.example.com/api/v1/pods?resourceVersion=2%2F3")
			if want := "GET /api/v1/pods?resourceVersion=2%2F3 as cluster:hub:tester at " + cluster + "\n"; err != nil || got != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
	})
	t.Run("a request without a cluster is sent to nobody", func(t *testing.T) {
		for _, ctx := range []context.Context{t.Context(), client.WithCluster(t.Context(), ""), client.WithCluster(t.Context(), "../-/v1/self"), client.WithCluster(t.Context(), "-")} {
			_, err := get(ctx, "https://hub/-/v1/self")
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.InvalidTarget || e.Hop != client.HopClient {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("a path that is the hub's own is one of the cluster's", func(t *testing.T) {
		got, err := get(client.WithCluster(t.Context(), "edge-1"), "https://hub/-/v1/self")
		if err != nil || !strings.HasPrefix(got, "GET /-/v1/self as cluster:hub:tester at edge-1") {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("who the client is", func(t *testing.T) {
		u, err := c.WhoAmI(t.Context())
		if err != nil || u.Name != "tester" || u.Method != "static-token" || u.Hub == "" {
			t.Errorf("got %+v, %v", u, err)
		}
	})
	t.Run("the hops to a cluster", func(t *testing.T) {
		p, err := c.Ping(t.Context(), "edge-1")
		if err != nil || p.Hub <= 0 || p.Agent <= 0 || p.Target <= 0 || p.AgentName != "edge-1-agent" || p.HubVersion == "" || p.AgentVersion == "" {
			t.Errorf("got %+v, %v", p, err)
		}
		_, err = c.Ping(t.Context(), "nobody")
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.NotFound || e.Hop != client.HopHub || e.Cluster != "nobody" {
			t.Errorf("got %v", err)
		}
	})
}

func TestClusters(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{Clusters: []string{"edge-1", "edge-2"}})
	c := hub.Client(t)
	all, err := c.Clusters(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "edge-1" || !all[1].Connected || all[1].Agents[0].Name != "edge-2-agent" {
		t.Fatalf("got %+v, %v", all, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var seen []string
	for e, err := range c.WatchClusters(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, string(e.Type)+" "+e.Cluster.Name)
		if e.Type == client.Synced {
			hub.StopAgent(t, "edge-2")
		}
		if e.Type == client.Modified {
			if e.Cluster.Connected || e.Cluster.LastSeen.IsZero() {
				t.Errorf("got %+v", e)
			}
			break
		}
	}
	if got := strings.Join(seen, ", "); got != "ADDED edge-1, ADDED edge-2, SYNCED , MODIFIED edge-2" {
		t.Errorf("got %s", got)
	}
	cancel()
	for _, err := range c.WatchClusters(ctx) {
		if err == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestClustersOfAddresses(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{
		Clusters: []string{"edge-1", "edge-2", "edge-3"},
		Policy: `apiVersion: policy.culvert.dev/v1
kind: Policy
default: deny
rules:
- name: database
  effect: allow
  clusters: {names: [edge-1]}
  tcp: [{hosts: [localhost], ports: ["1"]}]
- name: others
  effect: allow
  users: [somebody]
  clusters: {names: [edge-2]}
  tcp: [{hosts: [localhost]}]
`,
	})
	all, err := hub.Client(t).Clusters(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "edge-1" {
		t.Errorf("who may reach one address of edge-1 alone sees %+v, %v", all, err)
	}
}

func TestReconnect(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	l := &counted{Listener: listen(t)}
	go l.relay(t, hub.URL[len("https://"):])
	log := &lines{}
	cfg := hub.Config()
	cfg.Hub, cfg.ServerName = "https://"+l.Addr().String(), "localhost"
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	address := echo(t)
	old, err := c.DialContext(t.Context(), "test", "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l.cut()
	_, err = old.Read(make([]byte, 1))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.LinkLost || e.Hop != client.HopTunnel {
		t.Errorf("N4: a connection that was lost fails with %v", err)
	}
	next, err := c.DialContext(t.Context(), "test", "tcp", address)
	if err != nil {
		t.Fatalf("the client has not recovered: %v", err)
	}
	if err := errors.Join(next.Close(), old.Close()); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "lost the connection") != 1 || strings.Count(text, "connected to the hub again") != 1 {
		t.Errorf("want one line each, got\n%s", text)
	}
}

func TestNoHub(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	nobody := listen(t)
	nobody.Close()
	other := culverttest.Start(t, culverttest.Config{})
	for _, tt := range []struct {
		name   string
		change func(*client.Config)
		code   client.Code
		hop    client.Hop
	}{
		{"nothing listens", func(c *client.Config) { c.Hub = "https://" + nobody.Addr().String() }, client.Unreachable, client.HopTunnel},
		{"another CA", func(c *client.Config) { c.HubCA = other.CAFile }, client.TLSFailure, client.HopHub},
		{"another name", func(c *client.Config) { c.ServerName = "hub.example.com" }, client.TLSFailure, client.HopHub},
		{"a token that nobody knows", func(c *client.Config) { c.Token = "wrong" }, client.Unauthenticated, client.HopHub},
		{"a file that is not there", func(c *client.Config) { c.Token, c.TokenFile = "", "/nowhere/token" }, client.Unauthenticated, client.HopClient},
	} {
		t.Run("N10: "+tt.name, func(t *testing.T) {
			cfg := hub.Config()
			cfg.Patience = -1
			tt.change(&cfg)
			c, err := client.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			_, dialled := c.DialContext(t.Context(), "test", "tcp", "127.0.0.1:80")
			_, asked := c.WhoAmI(t.Context())
			for _, err := range []error{c.Connect(t.Context()), dialled, asked} {
				e, ok := errors.AsType[*client.Error](err)
				if !ok || e.Code != tt.code || e.Hop != tt.hop || strings.Contains(err.Error(), hub.Token) {
					t.Errorf("got %v, want %q at %q", err, tt.code, tt.hop)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("a closed client says so", func(t *testing.T) {
		c := hub.Client(t)
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.DialContext(t.Context(), "test", "tcp", "127.0.0.1:80"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := c.Clusters(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseDelivers(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{})
	l := listen(t)
	got := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		all, err := io.ReadAll(conn)
		if err = errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
		got <- all
	}()
	c := hub.Client(t)
	conn, err := c.DialContext(t.Context(), "test", "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if all := <-got; len(all) != len(sent) {
		t.Errorf("%d of %d bytes have arrived", len(all), len(sent))
	}
}
