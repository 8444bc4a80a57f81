// Command oidc is the OpenID Connect provider of the test bed: that of
// github.com/zitadel/oidc, with its own pages for logging in, over TLS and in memory.
// Its user is test-user2 with the password verysecure; culvert is its client.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	listen := flag.String("listen", "", "HOST:PORT to serve at, which is the issuer too")
	cert := flag.String("cert", "", "PEM file of the serving certificate")
	key := flag.String("key", "", "PEM file of its key")
	lifetime := flag.Duration("lifetime", time.Hour, "how long an ID token is valid")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *listen, *cert, *key, *lifetime)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "oidc:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, listen, cert, key string, lifetime time.Duration) error {
	issuer := "https://" + listen
	storage.RegisterClients(storage.NativeClient("culvert", "http://127.0.0.1/callback"))
	users := storage.NewUserStore(issuer)
	store := &store{storage.NewStorage(users), users, lifetime}
	server := &http.Server{
		Addr: listen, Handler: exampleop.SetupServer(issuer, store, slog.New(slog.NewTextHandler(io.Discard, nil)), false), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServeTLS(cert, key) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		err := server.Close()
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

// store gives clients the lifetime that is wanted.
type store struct {
	*storage.Storage

	users    storage.UserStore
	lifetime time.Duration
}

// CompleteDeviceAuthorization is called with a user's name where the subject, their id,
// is meant.
func (s *store) CompleteDeviceAuthorization(ctx context.Context, code, name string) error {
	user := s.users.GetUserByUsername(name)
	if user == nil {
		return fmt.Errorf("no user %q", name)
	}
	return s.Storage.CompleteDeviceAuthorization(ctx, code, user.ID)
}

// GetClientByClientID implements [op.Storage].
func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return &client{c, s.lifetime}, nil
}

// client may log in with a device too.
type client struct {
	op.Client

	lifetime time.Duration
}

// IDTokenLifetime implements [op.Client].
func (c *client) IDTokenLifetime() time.Duration { return c.lifetime }

// GrantTypes implements [op.Client].
func (c *client) GrantTypes() []oidc.GrantType {
	return append(c.Client.GrantTypes(), oidc.GrantTypeDeviceCode)
}
