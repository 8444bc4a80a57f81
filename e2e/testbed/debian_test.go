package testbed

import (
	"strings"
	"testing"
	"time"
)

func TestSSHD(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	tools, err := OpenSSH(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	network, err := NewPrivateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	s, err := StartSSHD(ctx, SSHDConfig{Name: "sshd", OpenSSH: tools, Dir: t.TempDir(), Namespace: network.Inside, Listen: InsideAddress})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cmd, err := s.Command(ctx, "ssh", "-p", s.port.Number(), InsideAddress.String(), "echo hello; cat")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("world"), &out, t.Output()
	if err := network.Inside.Run(cmd); err != nil || out.String() != "hello\nworld" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestPostgres(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	tools, err := PostgreSQL(ctx, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	network, err := NewPrivateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	p, err := StartPostgres(ctx, PostgresConfig{Name: "postgres", PostgreSQL: tools, Dir: t.TempDir(), Namespace: network.Inside, Listen: InsideAddress})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	cmd, err := p.PSQL(ctx, "--host", InsideAddress.String(), "--port", p.port.Number(), "--command", "select 6 * 7")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, t.Output()
	if err := network.Inside.Run(cmd); err != nil || out.String() != "42\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
