package client

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/e2e/testbed"
)

// rotated is how long the first token says that it lasts: another is looked for ten
// seconds before its end.
const rotated = 16 * time.Second

func TestCredentials(t *testing.T) {
	way, err := newRelay(the.port.Addr())
	must(t, err)
	t.Cleanup(way.close)
	ctx := within(t, 2*time.Minute)
	cfg := the.config(slog.New(slog.DiscardHandler))
	cfg.Hub, cfg.TokenFile, cfg.Patience = "https://"+way.addr(), file("rotated.token"), -1
	first, second := the.token(rotated), the.token(time.Hour)
	for _, token := range []string{first, second} {
		must(t, testbed.Poll(ctx, "the hub to know a token", func(ctx context.Context) error { return knows(ctx, token, true) }))
	}
	must(t, os.WriteFile(cfg.TokenFile, []byte(first), 0o600))
	c := newClient(t, cfg)
	running, err := c.DialContext(ctx, "edge-1", "tcp", echo)
	must(t, err)
	defer running.Close()
	must(t, converse(running, "by the first token"))
	replace(t, cfg.TokenFile, second)
	t.Run("O2,N4: before a token ends there is another connection with the next one, and what runs goes on", func(t *testing.T) {
		// Nobody asks for it: the client looks by itself.
		must(t, testbed.Poll(ctx, "another connection", func(context.Context) error {
			if way.count.Load() < 2 {
				return errors.New("there is one")
			}
			return converse(running, "while it is made")
		}))
		// The first token is good for nothing any more; who has the second does not notice.
		must(t, the.revoke(first))
		must(t, testbed.Poll(ctx, "the hub to refuse the first token", func(ctx context.Context) error { return knows(ctx, first, false) }))
		conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
		must(t, err)
		must(t, errors.Join(converse(conn, "by the second token"), conn.Close(), converse(running, "still there")))
		if n := way.count.Load(); n != 2 {
			t.Errorf("%d connections to the hub, one for each token", n)
		}
	})
	t.Run("N10: a token that was taken back opens nothing more, and the error says so", func(t *testing.T) {
		must(t, the.revoke(second))
		must(t, testbed.Poll(ctx, "the hub to refuse the second token", func(ctx context.Context) error { return knows(ctx, second, false) }))
		_, dialled := c.DialContext(ctx, "edge-1", "tcp", echo)
		_, asked := c.Clusters(ctx)
		for _, err := range []error{dialled, asked, c.Connect(ctx)} {
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.Unauthenticated || e.Hop != client.HopHub || strings.Contains(err.Error(), second) {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("O2: with a good token in the file the client goes on without being restarted", func(t *testing.T) {
		replace(t, cfg.TokenFile, the.token(time.Hour))
		must(t, testbed.Poll(ctx, "the client", func(ctx context.Context) error {
			conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
			if err != nil {
				return err
			}
			return errors.Join(converse(conn, "by the third token"), conn.Close())
		}))
	})
	t.Run("O2,K4: a client certificate in place of a token", func(t *testing.T) {
		own := the.config(slog.New(slog.DiscardHandler))
		own.TokenFile, own.CertFile, own.KeyFile = "", file("ada.crt"), file("ada.key")
		must(t, the.users.issue("ada", own.CertFile, own.KeyFile))
		c := newClient(t, own)
		u, err := c.WhoAmI(ctx)
		if err != nil || u.Name != "ada" || u.Expires.IsZero() {
			t.Errorf("%+v, %v", u, err)
		}
		conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
		must(t, err)
		must(t, errors.Join(converse(conn, "by a certificate"), conn.Close()))
	})
}

// replace changes a file as those do who rotate tokens.
func replace(t *testing.T, path, text string) {
	t.Helper()
	must(t, errors.Join(os.WriteFile(path+".next", []byte(text), 0o600), os.Rename(path+".next", path)))
}

// knows wants the hub to take a token, or to refuse it: it looks at its file now and then.
func knows(ctx context.Context, token string, want bool) error {
	cfg := the.config(slog.New(slog.DiscardHandler))
	cfg.TokenFile, cfg.Token, cfg.Patience = "", token, -1
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	err = c.Connect(ctx)
	e, ok := errors.AsType[*client.Error](err)
	if want && err == nil || !want && ok && e.Code == client.Unauthenticated {
		return c.Close()
	}
	return errors.Join(errors.New("not yet"), err, c.Close())
}

func TestProxy(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	squid, err := testbed.StartSquid(ctx, testbed.SquidConfig{
		Name: "squid-client", Dir: testbed.Dir(), Listen: testbed.HubAddress, Allow: netip.MustParseAddrPort(the.port.Addr()), User: "ada", Password: "through",
	})
	must(t, err)
	t.Cleanup(func() { must(t, squid.Close()) })
	cfg := the.config(slog.New(slog.DiscardHandler))
	t.Run("K4: through an HTTP proxy that wants a password", func(t *testing.T) {
		cfg.Proxy = client.Proxy{URL: "http://ada:through@" + squid.Addr.String(), NoProxy: []string{}}
		c := newClient(t, cfg)
		conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
		must(t, err)
		must(t, errors.Join(converse(conn, "through squid"), conn.Close(), c.Close()))
		must(t, testbed.Poll(ctx, "squid's log", func(context.Context) error { // of a tunnel at its end
			lines, err := squid.Requests()
			if err == nil && (len(lines) != 1 || !strings.Contains(lines[0], "TCP_TUNNEL/200") || !strings.Contains(lines[0], the.port.Addr())) {
				err = errors.New(strings.Join(lines, "\n"))
			}
			return err
		}))
	})
	t.Run("N10: a proxy that refuses is the error, without the password", func(t *testing.T) {
		cfg.Proxy = client.Proxy{URL: "http://ada:wrongpassword@" + squid.Addr.String(), NoProxy: []string{}}
		cfg.Patience = -1
		_, err := newClient(t, cfg).DialContext(ctx, "edge-1", "tcp", echo)
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.Unreachable || e.Hop != client.HopTunnel || !strings.Contains(err.Error(), "407") || strings.Contains(err.Error(), "wrongpassword") {
			t.Errorf("%v", err)
		}
	})
}
