package oneport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// call makes one request and returns the body of its answer, which has to be a
// success.
func call(ctx context.Context, client *http.Client, method, url, bearer string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, res.Status, text)
	}
	return text, err
}

// caller uses the Kubernetes API by one way and sees to whom it is taken, and where.
type caller struct {
	base, bearer string
	// user and cluster are what the cluster has to say.
	user, cluster string
	client        *http.Client
}

const review = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`

func (c *caller) once(ctx context.Context) error {
	text, err := call(ctx, c.client, http.MethodGet, c.base+"/api/v1/namespaces/default/configmaps/whoami", c.bearer, nil)
	if err != nil {
		return err
	}
	var object struct{ Data struct{ Cluster string } }
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	text, err = call(ctx, c.client, http.MethodPost, c.base+"/apis/authentication.k8s.io/v1/selfsubjectreviews", c.bearer, []byte(review))
	if err != nil {
		return err
	}
	var self struct {
		Status struct{ UserInfo struct{ Username string } }
	}
	if err := json.Unmarshal(text, &self); err != nil {
		return err
	}
	if object.Data.Cluster != c.cluster || self.Status.UserInfo.Username != c.user {
		return fmt.Errorf("answered by %s as %s, want %s as %s", object.Data.Cluster, self.Status.UserInfo.Username, c.cluster, c.user)
	}
	return nil
}

// toHub dials the hub's port whatever host is asked for.
func toHub(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address())
}

// transport returns a way to the hub's port.
func transport(cfg *tls.Config, http2 bool) *http.Transport {
	cfg.MinVersion = tls.VersionTLS13
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Transport{DialContext: toHub, TLSClientConfig: cfg, Protocols: protocols}
}

// talker is a client of an echo service.
type talker struct {
	name string
	dial func(ctx context.Context) (net.Conn, error)
}

func (k *talker) once(ctx context.Context) error {
	conn, err := k.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	said := rand.Text() + rand.Text() + "\n"
	if _, err := io.WriteString(conn, said); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	for _, want := range []string{k.name + "\n", said} {
		got, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
	}
	return nil
}

// secured dials the hub's port with TLS for a name.
func secured(cfg *tls.Config) func(context.Context) (net.Conn, error) {
	cfg.MinVersion = tls.VersionTLS13
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := toHub(ctx, "", "")
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, cfg)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

// way is one of the ways through the port; of makes the client number i.
type way struct {
	title string
	of    func(i int) (client once, done func())
}

func ways() []way {
	kube := func(base func(i int) (url, bearer, user, cluster string), tlsFor func() *tls.Config, http2 bool) func(i int) (once, func()) {
		return func(i int) (once, func()) {
			t := transport(tlsFor(), http2)
			url, bearer, user, cluster := base(i)
			return &caller{base: url, bearer: bearer, user: user, cluster: cluster, client: &http.Client{Transport: t}}, t.CloseIdleConnections
		}
	}
	ofHub := func() *tls.Config { return &tls.Config{RootCAs: the.roots} }
	ofWest := func() *tls.Config { return &tls.Config{RootCAs: the.westRoots} }
	path := func(cluster string) func(i int) (string, string, string, string) {
		return func(i int) (string, string, string, string) {
			return "https://" + address() + "/" + cluster, token("hub", i), "cluster:hub:" + name("hub", i), cluster
		}
	}
	terminated := func(i int) (string, string, string, string) {
		return "https://cluster-east." + domain, token("hub", i), "cluster:hub:" + name("hub", i), "east"
	}
	passed := func(i int) (string, string, string, string) {
		return "https://cluster-west." + domain, token("west", i), name("west", i), "west"
	}
	talk := func(name string, cfg func() *tls.Config) func(i int) (once, func()) {
		return func(int) (once, func()) {
			c := cfg()
			c.ServerName = name + "." + domain
			return &talker{name: name, dial: secured(c)}, func() {}
		}
	}
	return append([]way{
		{"path, HTTP/1.1, east", kube(path("east"), ofHub, false)},
		{"path, HTTP/2, west", kube(path("west"), ofHub, true)},
		{"name, terminated, HTTP/1.1", kube(terminated, ofHub, false)},
		{"name, terminated, HTTP/2", kube(terminated, ofHub, true)},
		{"name, passed through, HTTP/1.1", kube(passed, ofWest, false)},
		{"name, passed through, HTTP/2", kube(passed, ofWest, true)},
		{"bytes in the hub's TLS", talk("plain", ofHub)},
		{"TLS of a service", talk("secure", ofWest)},
	}, proxied()...)
}

func TestOnePort(t *testing.T) {
	for _, w := range ways() {
		t.Run("N5: "+w.title, func(t *testing.T) {
			client, done := w.of(0)
			defer done()
			if err := client.once(within(t, time.Minute)); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("N5: two hundred clients of all kinds at once, and none gets what is another's", func(t *testing.T) {
		const clients, rounds = 200, 8
		ctx := within(t, 5*time.Minute)
		all := ways()
		var running sync.WaitGroup
		failed := make([]error, clients)
		start := time.Now()
		for i := range clients {
			running.Go(func() {
				w := all[i%len(all)]
				client, done := w.of(i / len(all) % callers)
				defer done()
				for range rounds {
					if err := client.once(ctx); err != nil {
						failed[i] = fmt.Errorf("client %d, %s: %w", i, w.title, err)
						return
					}
				}
			})
		}
		running.Wait()
		for _, err := range failed {
			if err != nil {
				t.Error(err)
			}
		}
		t.Logf("%d clients of %d kinds, %d rounds each: %v", clients, len(all), rounds, time.Since(start).Round(time.Millisecond))
	})
}

func TestNames(t *testing.T) {
	t.Run("D20: an unknown name is refused in the handshake", func(t *testing.T) {
		_, err := secured(&tls.Config{RootCAs: the.roots, ServerName: "other." + domain + ".example"})(t.Context())
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("D20: a cluster that is not there has no other's answer", func(t *testing.T) {
		tr := transport(&tls.Config{RootCAs: the.roots}, true)
		defer tr.CloseIdleConnections()
		_, err := call(t.Context(), &http.Client{Transport: tr}, http.MethodGet, "https://cluster-north."+domain+"/version", token("hub", 0), nil)
		if err == nil || !strings.Contains(err.Error(), "404") || !strings.Contains(err.Error(), "north") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("H: a request for one host on a connection for another is misdirected", func(t *testing.T) {
		for _, c := range []struct{ server, host string }{
			{"cluster-east." + domain, "cluster-north." + domain}, {"cluster-east." + domain, "hub." + domain},
			{"hub." + domain, "cluster-east." + domain}, {"cluster-east." + domain, "CLUSTER-NORTH." + domain + ".:443"},
			{"cluster-east." + domain, "cluster-west." + domain},
		} {
			for _, http2 := range []bool{false, true} {
				tr := transport(&tls.Config{RootCAs: the.roots, ServerName: c.server}, http2)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.server+"/east/version", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = c.host
				req.Header.Set("Authorization", "Bearer "+token("hub", 0))
				res, err := (&http.Client{Transport: tr}).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				tr.CloseIdleConnections()
				if res.StatusCode != http.StatusMisdirectedRequest || res.Header.Get("X-Culvert-Error") != "misdirected" {
					t.Errorf("%s on %s, HTTP/2 %v: %s", c.host, c.server, http2, res.Status)
				}
			}
		}
	})
	t.Run("S4: the API server alone judges who calls by pass-through", func(t *testing.T) {
		tr := transport(&tls.Config{RootCAs: the.westRoots}, true)
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr}
		_, err := call(t.Context(), client, http.MethodGet, "https://cluster-west."+domain+"/version", token("hub", 0), nil)
		if err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("a token of the hub: %v", err)
		}
	})
}
