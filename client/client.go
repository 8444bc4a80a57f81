package client

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

// Client is a program's access to a hub. It is safe for concurrent use; its owner calls
// Close.
type Client struct {
	set *settings
	way *way
	web *http.Transport // to the hub itself, over sessions
}

// New checks cfg and returns a client. It does not connect: the first use does, or
// [Client.Connect].
func New(cfg Config) (*Client, error) {
	set, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	c := &Client{set: set}
	c.way = newWay(tunnel.DialerConfig{
		Address: set.address, Protocol: tunnel.ClientProtocol, TLS: set.tls, Dial: set.way.DialContext,
		Mux: mux.Config{
			Hello: wire.Hello{Version: version.String(), Name: set.rest.UserAgent},
			Hop:   wire.HopClient,
		},
		Logger: set.rest.Logger,
	}, set)
	c.web = c.newWeb()
	return c, nil
}

// Connect waits until there is a connection to the hub, on which the credential was
// accepted. Nobody needs it but who wants to know now.
func (c *Client) Connect(ctx context.Context) error {
	_, err := c.way.link(ctx)
	return err
}

// Hub returns the hub's URL.
func (c *Client) Hub() string { return c.set.base }

// Close ends the connection, and every session with it, and waits for the client's
// goroutines. Requests and dials that wait fail with [net.ErrClosed].
func (c *Client) Close() error {
	err := c.way.close()
	c.web.CloseIdleConnections()
	return err
}

// token is what says who calls, "" with a client certificate.
func (c *Client) token(ctx context.Context) (string, error) {
	if c.set.tokens == nil {
		return "", nil
	}
	token, err := c.set.tokens.get(ctx)
	switch {
	case errors.Is(err, net.ErrClosed):
		return "", err
	case err != nil:
		return "", tokenError(err)
	}
	return token.Value, nil
}
