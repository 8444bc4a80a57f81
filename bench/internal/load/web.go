package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Web is a way over HTTP. It is not changed once it is made.
type Web struct {
	URL string
	// Roots verify the server. Required for https.
	Roots *x509.CertPool
	// Header is sent with every request.
	Header http.Header
	// Least is the least length of a complete answer, in bytes.
	Least int64
}

// client returns a client with one kept-alive connection a worker, or one for all
// over HTTP/2.
func (v *Web) client(workers int, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{
		Timeout: openTime,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: v.Roots, MinVersion: tls.VersionTLS13},
			Protocols:           protocols,
			MaxIdleConnsPerHost: workers,
			DisableCompression:  true,
		},
	}
}

// get makes one request and reads the whole answer.
func (v *Web) get(ctx context.Context, c *http.Client, scratch []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.URL, nil)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	maps.Copy(req.Header, v.Header)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, scratch)
	err = errors.Join(err, resp.Body.Close())
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: %w", v.URL, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: %s %s", v.URL, resp.Status, scratch[:min(n, 300)])
	case n < v.Least:
		return fmt.Errorf("GET %s: %d bytes where %d are wanted", v.URL, n, v.Least)
	}
	return nil
}

// Probe makes requests until one is answered well or ctx ends.
func (v *Web) Probe(ctx context.Context) error {
	c := v.client(1, false)
	defer c.CloseIdleConnections()
	scratch := make([]byte, 4<<10)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := v.get(ctx, c, scratch)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// Requests makes requests by n workers at once, over kept-alive connections. The
// window begins when every worker has had an answer, so that connections are set
// up before.
func (v *Web) Requests(ctx context.Context, n int, http2 bool, w Window) (Trips, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := v.client(n, http2)
	defer c.CloseIdleConnections()
	var counting atomic.Bool
	records := make([]recorder, n)
	g := &Group{conns: make([]net.Conn, n), failed: make(chan error, 1)}
	answered := make(chan struct{}, n)
	g.start(func(i int, _ net.Conn) error {
		records[i].counting = &counting
		scratch := make([]byte, 4<<10)
		for first := true; ; first = false {
			start := time.Now()
			if err := v.get(ctx, c, scratch); err != nil {
				return err
			}
			records[i].add(time.Since(start))
			if first {
				answered <- struct{}{}
			}
		}
	})
	elapsed, err := time.Duration(0), g.all(ctx, answered)
	if err == nil {
		elapsed, err = w.run(ctx, g.failed, counting.Store)
	}
	g.over.Store(true)
	cancel()
	err = errors.Join(err, g.Close())
	t := merge(records, elapsed)
	if err == nil && len(t.Sorted) == 0 {
		err = fmt.Errorf("GET %s: not one answer in %v", v.URL, w.Length)
	}
	return t, err
}
