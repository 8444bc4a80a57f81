package testbed

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// SquidPackage is what [Need] takes for StartSquid.
const SquidPackage = "squid"

// basicHelper is where Debian has squid's helper for files of passwords.
const basicHelper = "/usr/lib/squid/basic_ncsa_auth"

// SquidConfig says how to start a squid that allows CONNECT to one address and
// port and nothing else.
type SquidConfig struct {
	// Name is used in errors and names the log files and the service: letters,
	// digits and "-".
	Name string
	// Dir is an existing folder for its configuration and logs.
	Dir string
	// Listen is the address it listens on; the port is a free one.
	Listen netip.Addr
	// Allow is where connections may go.
	Allow netip.AddrPort
	// User and Password, where given, are demanded in Basic authentication.
	User, Password string
}

// Squid is an HTTP proxy (https://www.squid-cache.org). Its methods are safe for
// concurrent use.
type Squid struct {
	// Addr is its address, host:port.
	Addr netip.AddrPort
	// Process can be stopped and started again; the port stays the same.
	Process *Process

	port *Port
	dir  string
	name string
}

// StartSquid starts a squid in the caller's network and waits until it listens.
// Close ends it. The package must be installed: see [Need] and [SquidPackage].
func StartSquid(ctx context.Context, cfg SquidConfig) (_ *Squid, err error) {
	s := &Squid{dir: cfg.Dir, name: cfg.Name}
	if s.port, err = ReservePort(nil, cfg.Listen); err != nil {
		return nil, fmt.Errorf("squid %s: %w", cfg.Name, err)
	}
	s.Addr = s.port.addr
	file := filepath.Join(cfg.Dir, cfg.Name+".conf")
	text, err := s.configuration(cfg)
	if err == nil {
		err = writeFile(file, []byte(text))
	}
	if err == nil {
		s.Process, err = StartProcess(ctx, ProcessConfig{
			// In the foreground, and with a name of its own for what it shares: letters
			// and digits alone.
			Name: cfg.Name, Path: "/usr/sbin/squid", Args: []string{"-N", "-n", strings.ReplaceAll(cfg.Name, "-", ""), "-f", file},
			LogDir: cfg.Dir, Unprivileged: true, Ready: s.ready,
		})
	}
	if err != nil {
		s.port.Close()
		return nil, fmt.Errorf("squid %s: %w", cfg.Name, err)
	}
	return s, nil
}

// configuration is that of squid.conf
// (https://www.squid-cache.org/Doc/config/).
func (s *Squid) configuration(cfg SquidConfig) (string, error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("http_port %s", s.Addr)
	line("pid_filename none")
	line("cache deny all")
	line("cache_log %s", filepath.Join(cfg.Dir, cfg.Name+".cache.log"))
	line("access_log stdio:%s", s.AccessLog())
	line("buffered_logs off")
	line("coredump_dir none")
	line("shutdown_lifetime 0 seconds")
	line("visible_hostname %s", cfg.Name)
	line("acl CONNECT method CONNECT")
	line("acl hub dst %s", cfg.Allow.Addr())
	line("acl hub_port port %d", cfg.Allow.Port())
	line("http_access deny !CONNECT")
	line("http_access deny !hub")
	line("http_access deny !hub_port")
	if cfg.User != "" {
		passwords := filepath.Join(cfg.Dir, cfg.Name+".passwords")
		sum := md5.Sum([]byte(cfg.Password)) // the one format of the helper that needs no salt
		if err := writeFile(passwords, []byte(cfg.User+":"+hex.EncodeToString(sum[:])+"\n")); err != nil {
			return "", err
		}
		line("auth_param basic program %s %s", basicHelper, passwords)
		line("auth_param basic children 1 startup=1 idle=1")
		line("auth_param basic realm hub")
		line("acl known proxy_auth REQUIRED")
		line("http_access deny !known")
	}
	line("http_access allow all")
	return b.String(), nil
}

func (s *Squid) ready(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr.String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// AccessLog is the file with one line a request that has ended, as squid's format
// has it: time, duration, client, result/status, bytes, method, address, user.
func (s *Squid) AccessLog() string { return filepath.Join(s.dir, s.name+".access.log") }

// Requests returns the lines of the access log; none is no error. Connections that
// ended without a request, as those that look whether it listens, are left out.
func (s *Squid) Requests() ([]string, error) {
	text, err := os.ReadFile(s.AccessLog())
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("squid %s: %w", s.name, err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "error:transaction-end-before-headers") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}

// Close ends squid.
func (s *Squid) Close() error {
	err := s.Process.Kill9()
	s.port.Close()
	return err
}
