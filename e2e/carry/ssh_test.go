package carry

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proxyCommand is what an ssh_config has.
func proxyCommand() []string {
	return []string{"-o", "ProxyCommand=culvert connect " + strings.Join(flags(hubAddress(), "ada.token"), " ") + " edge-1 %h:%p"}
}

func TestSSH(t *testing.T) {
	port := fmt.Sprint(the.sshd.Addr.Port())
	t.Run("F2: ssh by ProxyCommand reaches a host that only the agent's DNS knows", func(t *testing.T) {
		cmd, err := the.sshd.Command(t.Context(), "ssh", append(proxyCommand(), "-p", port, "vm.prod", "echo to standard error >&2; cat; exit 7")...)
		must(t, err)
		cmd.Stdin = strings.NewReader("through standard input")
		out, err := output(cmd)
		if exitCode(err) != 7 || out != "through standard input" || !strings.Contains(err.Error(), "to standard error") {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("F2: scp of 200 MiB, with equal hashes, and of some back", func(t *testing.T) {
		dir := t.TempDir()
		for name, size := range map[string]int64{"there": 200 << 20, "back": 16 << 20} {
			from, to := filepath.Join(dir, name), file("scp-"+name)
			ways := []string{from, "vm.prod:" + to}
			if name == "back" {
				from, to = to, from
				ways = []string{"vm.prod:" + from, to}
			}
			sum := randomFile(t, from, size)
			cmd, err := the.sshd.Command(t.Context(), "scp", append(proxyCommand(), "-q", "-P", port, ways[0], ways[1])...)
			must(t, err)
			if out, err := output(cmd); err != nil {
				t.Fatalf("%s: %v %s", name, err, out)
			}
			if got := hashOf(t, to); got != sum {
				t.Errorf("%s: hash %s of what came, want %s", name, got, sum)
			}
			must(t, os.Remove(file("scp-"+name)))
		}
	})
	t.Run("N10: what the tunnel refuses is said by ssh", func(t *testing.T) {
		cmd, err := the.sshd.Command(t.Context(), "ssh", append(proxyCommand(), "-p", "7010", "vm.prod", "true")...)
		must(t, err)
		out, err := output(cmd)
		if exitCode(err) != 255 || !strings.Contains(err.Error(), "agent: read: cluster edge-1: vm.prod:7010: permission denied: ") {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// randomFile makes a file and returns its hash.
func randomFile(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, h), rand.Reader, size)
	must(t, err)
	must(t, f.Close())
	return hex.EncodeToString(h.Sum(nil))
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return hex.EncodeToString(h.Sum(nil))
}
