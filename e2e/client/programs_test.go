package client

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// database is the URL of PostgreSQL behind the agent of edge-1, by its name there.
func database() string {
	p := the.postgres
	u := url.URL{Scheme: "postgres", User: url.UserPassword(p.User, p.Password), Host: fmt.Sprintf("db.prod:%d", p.Addr.Port()), Path: "postgres"}
	return u.String()
}

// program runs one of README's.
func program(ctx context.Context, name string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin(name))
	cmd.Env = append(append(os.Environ(), "CULVERT_HUB=https://"+the.port.Addr(), "CULVERT_HUB_CA="+hubCA(), "CULVERT_TOKEN_FILE="+file("ada.token")), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, &stderr)
	}
	return string(out), err
}

func TestPrograms(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	t.Run("K15,O2: README's program lists the pods of two clusters with one client", func(t *testing.T) {
		out, err := program(ctx, "pods")
		if want := "edge-1 work worker-edge-1\nedge-2 work worker-edge-2\n"; err != nil || out != want {
			t.Errorf("%q, %v", out, err)
		}
	})
	c := newClient(t, the.config(slog.New(slog.DiscardHandler)))
	config, err := pgx.ParseConfig(database())
	must(t, err)
	config.DialFunc = c.EarlyDialer("edge-1")
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	db := stdlib.OpenDB(*config)
	defer db.Close()
	t.Run("K4,O2: database/sql with pgx uses a database that the agent alone reaches", func(t *testing.T) {
		for _, line := range []string{"CREATE TABLE fruit (name text)", "INSERT INTO fruit VALUES ('apple'), ('pear')"} {
			_, err := db.ExecContext(ctx, line)
			must(t, err)
		}
		var sum int
		if err := db.QueryRowContext(ctx, "SELECT sum(length(md5(n::text))) FROM generate_series(1, 100000) n").Scan(&sum); err != nil || sum != 3200000 {
			t.Errorf("%d, %v", sum, err)
		}
	})
	t.Run("N4: a query is cancelled by the connection that the driver dials for it", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := db.ExecContext(short, "SELECT pg_sleep(500)")
		if err == nil {
			t.Error("it was not cancelled")
		}
		// The server has ended it: it works for nobody any more.
		var working int
		for working = 1; working > 0; {
			must(t, db.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'").Scan(&working))
		}
	})
	t.Run("K4,O2: README's program runs a query in a database behind an agent", func(t *testing.T) {
		out, err := program(ctx, "sql", "DATABASE_URL="+database())
		if err != nil || strings.TrimSpace(out) != "[apple pear]" {
			t.Errorf("%q, %v", out, err)
		}
	})
}
