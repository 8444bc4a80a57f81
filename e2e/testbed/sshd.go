package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sshUser is the one account of an [SSHD].
const sshUser = "tester"

// OpenSSH returns OpenSSH's programs (https://www.openssh.com), see [Unpack].
func OpenSSH(ctx context.Context, progress io.Writer) (Debian, error) {
	// The wrapper gives sshd an account that the machine need not have.
	return Unpack(ctx, progress, "openssh-server", "openssh-client", "libnss-wrapper")
}

// SSHDConfig says how to start an sshd.
type SSHDConfig struct {
	// Name is used in errors and names the log file.
	Name string
	// OpenSSH is what [OpenSSH] returned.
	OpenSSH Debian
	// Dir is an existing folder for keys and logs, and the home of the account.
	Dir string
	// Namespace is the network it runs in; nil is the caller's own.
	Namespace *Namespace
	// Listen is the address it listens on; the port is a free one.
	Listen netip.Addr
}

// SSHD is a server for SSH, whose one account logs in with a key. Its methods are safe
// for concurrent use.
type SSHD struct {
	// Addr is where it listens.
	Addr netip.AddrPort
	// Process can be stopped and started again; the port stays the same.
	Process *Process

	cfg  SSHDConfig
	port *Port
}

// StartSSHD starts an sshd and waits until it listens. Close ends it.
func StartSSHD(ctx context.Context, cfg SSHDConfig) (_ *SSHD, err error) {
	s := &SSHD{cfg: cfg}
	if s.port, err = ReservePort(cfg.Namespace, cfg.Listen); err != nil {
		return nil, fmt.Errorf("sshd %s: %w", cfg.Name, err)
	}
	s.Addr = s.port.addr
	if err = s.configure(ctx); err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		s.port.Close()
		return nil, fmt.Errorf("sshd %s: %w", cfg.Name, err)
	}
	return s, nil
}

func (s *SSHD) file(name string) string { return filepath.Join(s.cfg.Dir, s.cfg.Name+"-"+name) }

// configure makes the keys of both sides, the account and sshd_config(5).
func (s *SSHD) configure(ctx context.Context) error {
	for _, key := range []string{"host", "user"} {
		if err := s.cfg.OpenSSH.once(ctx, false, "usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", s.file(key)); err != nil {
			return err
		}
	}
	hostKey, err := os.ReadFile(s.file("host.pub"))
	if err != nil {
		return err
	}
	lines := []string{
		"ListenAddress " + s.Addr.String(), "HostKey " + s.file("host"), "AuthorizedKeysFile " + s.file("user.pub"),
		"PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UseDNS no",
		"Subsystem sftp internal-sftp", "LogLevel VERBOSE", "MaxStartups 100",
	}
	id := fmt.Sprint(os.Geteuid())
	if os.Geteuid() == 0 {
		id = fmt.Sprint(ordinaryUser)
	}
	account := strings.Join([]string{sshUser, "x", id, id, "", s.cfg.Dir, "/bin/sh"}, ":")
	return errors.Join(
		os.WriteFile(s.file("config"), []byte(strings.Join(lines, "\n")+"\n"), 0o600),
		os.WriteFile(s.file("passwd"), []byte(account+"\n"), 0o600),
		os.WriteFile(s.file("group"), []byte(sshUser+":x:"+id+":\n"), 0o600),
		// Whatever the server is called, it is this one.
		os.WriteFile(s.file("known"), append([]byte("* "), hostKey...), 0o600))
}

func (s *SSHD) start(ctx context.Context) error {
	path, err := s.cfg.OpenSSH.Path("usr/sbin/sshd")
	if err != nil {
		return err
	}
	wrapper, err := s.cfg.OpenSSH.Path("usr/lib/*/libnss_wrapper.so")
	if err != nil {
		return err
	}
	s.Process, err = StartProcess(ctx, ProcessConfig{
		Name: s.cfg.Name, Path: path, Args: []string{"-D", "-e", "-f", s.file("config")}, LogDir: s.cfg.Dir,
		Env:       append(s.cfg.OpenSSH.Env(), "LD_PRELOAD="+wrapper, "NSS_WRAPPER_PASSWD="+s.file("passwd"), "NSS_WRAPPER_GROUP="+s.file("group")),
		Namespace: s.cfg.Namespace, Unprivileged: true,
		Ready: func(ctx context.Context) error {
			conn, err := s.cfg.Namespace.Dial(ctx, "tcp", s.Addr.String())
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return err
}

// Command is ssh, scp or sftp with the key of the account, to whom only this server is
// the right one, whatever host it is asked for; user is [SSHD.User].
func (s *SSHD) Command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	ssh, err := s.cfg.OpenSSH.Path("usr/bin/ssh")
	if err != nil {
		return nil, err
	}
	options := []string{
		"-F", "none", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=" + s.file("user"), "-o", "UserKnownHostsFile=" + s.file("known"),
		"-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "User=" + sshUser,
	}
	if program != "ssh" {
		options = append([]string{"-S", ssh}, options...)
	}
	return s.cfg.OpenSSH.Command(ctx, "usr/bin/"+program, append(options, args...)...)
}

// Close ends sshd.
func (s *SSHD) Close() error {
	err := s.Process.Kill9()
	s.port.Close()
	return err
}
