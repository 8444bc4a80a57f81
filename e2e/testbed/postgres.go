package testbed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// PostgreSQL returns PostgreSQL's programs (https://www.postgresql.org), see [Unpack].
func PostgreSQL(ctx context.Context, progress io.Writer) (Debian, error) {
	return Unpack(ctx, progress, "postgresql/postgresql-[0-9]*", "postgresql-client/postgresql-client-[0-9]*", "libpq5")
}

// postgresBin is where Debian has them.
const postgresBin = "usr/lib/postgresql/*/bin/"

// PostgresConfig says how to start a PostgreSQL server.
type PostgresConfig struct {
	// Name is used in errors and names the log file.
	Name string
	// PostgreSQL is what [PostgreSQL] returned.
	PostgreSQL Debian
	// Dir is an existing folder for data and logs.
	Dir string
	// Namespace is the network it runs in; nil is the caller's own.
	Namespace *Namespace
	// Listen is the address it listens on; the port is a free one.
	Listen netip.Addr
}

// Postgres is a PostgreSQL server with one user, by password, and the database
// postgres. Its methods are safe for concurrent use.
type Postgres struct {
	// Addr is where it listens.
	Addr netip.AddrPort
	// User and Password are those of its one user.
	User, Password string
	// Process can be stopped and started again; the port stays the same.
	Process *Process

	cfg  PostgresConfig
	port *Port
}

// StartPostgres makes a database cluster, starts its server and waits until it takes
// connections. Close ends it.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (_ *Postgres, err error) {
	p := &Postgres{User: "app", Password: rand.Text(), cfg: cfg}
	if p.port, err = ReservePort(cfg.Namespace, cfg.Listen); err != nil {
		return nil, fmt.Errorf("postgres %s: %w", cfg.Name, err)
	}
	p.Addr = p.port.addr
	if err = p.start(ctx); err != nil {
		p.port.Close()
		return nil, fmt.Errorf("postgres %s: %w", cfg.Name, err)
	}
	return p, nil
}

func (p *Postgres) start(ctx context.Context) error {
	data, password := filepath.Join(p.cfg.Dir, p.cfg.Name), filepath.Join(p.cfg.Dir, p.cfg.Name+".password")
	if err := os.WriteFile(password, []byte(p.Password+"\n"), 0o600); err != nil {
		return err
	}
	// initdb and the server refuse to run as root.
	err := p.cfg.PostgreSQL.once(ctx, true, postgresBin+"initdb", "--pgdata", data, "--username", p.User, "--pwfile", password,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if err := errors.Join(err, os.Remove(password)); err != nil {
		return err
	}
	path, err := p.cfg.PostgreSQL.Path(postgresBin + "postgres")
	if err != nil {
		return err
	}
	settings := []string{
		"listen_addresses=" + p.Addr.Addr().String(), "port=" + fmt.Sprint(p.Addr.Port()), "unix_socket_directories=",
		"fsync=off", "synchronous_commit=off", "full_page_writes=off", // a test's data need not survive the machine
		"log_connections=on",
	}
	args := []string{"-D", data}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	// The password has to come from every address, not only from the loopback ones that
	// initdb has thought of.
	rules := "host all all 0.0.0.0/0 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		return err
	}
	p.Process, err = StartProcess(ctx, ProcessConfig{
		Name: p.cfg.Name, Path: path, Args: args, Env: p.cfg.PostgreSQL.Env(), LogDir: p.cfg.Dir, Namespace: p.cfg.Namespace,
		Unprivileged: true, Ready: p.ready,
	})
	return err
}

func (p *Postgres) ready(ctx context.Context) error {
	cmd, err := p.cfg.PostgreSQL.Command(ctx, postgresBin+"pg_isready", "--host", p.Addr.Addr().String(), "--port", fmt.Sprint(p.Addr.Port()))
	if err != nil {
		return err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.cfg.Namespace.Run(cmd); err != nil {
		return fmt.Errorf("%w: %s", err, &out)
	}
	return nil
}

// PSQL is psql as the server's user, who is asked for nothing; connect it with --host
// and --port or the like.
func (p *Postgres) PSQL(ctx context.Context, args ...string) (*exec.Cmd, error) {
	options := []string{"--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"}
	cmd, err := p.cfg.PostgreSQL.Command(ctx, postgresBin+"psql", append(options, args...)...)
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "PGUSER="+p.User, "PGDATABASE=postgres", "PGPASSWORD="+p.Password)
	return cmd, nil
}

// Close ends the server.
func (p *Postgres) Close() error {
	// Its children have shared memory that only an orderly end gives back.
	err := p.Process.Stop(context.Background())
	p.port.Close()
	return err
}
