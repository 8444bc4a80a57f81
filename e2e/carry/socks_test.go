package carry

import (
	"net/url"
	"os/exec"
	"strings"
	"testing"
)

// curl asks through a proxy.
func curl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return output(exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--max-time", "20", "--noproxy", ""}, args...)...))
}

func TestSocks(t *testing.T) {
	fixed := start(t, "socks", "--cluster", "edge-1", "--listen", "127.0.0.1:0").listener(t, "edge-1 SOCKS5")
	open := start(t, "socks", "--listen", "127.0.0.1:0").listener(t, "* SOCKS5")
	t.Run("K4,F2: curl --socks5-hostname reaches a host that only the agent's DNS knows", func(t *testing.T) {
		if out, err := curl(t, "--socks5-hostname", fixed, "http://web.prod:8000/"); err != nil || out != "web web.prod:8000" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("K4,F2: an address", func(t *testing.T) {
		if out, err := curl(t, "--socks5", fixed, "http://192.0.2.2:8000/"); err != nil || out != "web 192.0.2.2:8000" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("F2: without --cluster the user name names it, or the host", func(t *testing.T) {
		proxy := url.URL{Scheme: "socks5h", Host: open, User: url.UserPassword("edge-1", "any")}
		if out, err := curl(t, "--proxy", proxy.String(), "http://web.prod:8000/"); err != nil || out != "web web.prod:8000" {
			t.Errorf("by user name: %q, %v", out, err)
		}
		if out, err := curl(t, "--socks5-hostname", open, "http://web.prod.edge-1.culvert:8000/"); err != nil || out != "web web.prod.edge-1.culvert:8000" {
			t.Errorf("by host: %q, %v", out, err)
		}
	})
	// The number is the reply of RFC 1928, in curl's words.
	for name, c := range map[string]struct{ proxy, url, says string }{
		"nobody listens":                {fixed, "http://web.prod:7009/", "(5)"},
		"a name that nobody has":        {fixed, "http://no.prod:8000/", "(4)"},
		"refused by the agent's policy": {fixed, "http://web.prod:7010/", "(2)"},
		"refused by the hub's policy":   {fixed, "http://web.prod:22/", "(2)"},
		"no cluster":                    {open, "http://web.prod:8000/", "(2)"},
		"an unknown cluster":            {open, "http://web.prod.edge-2.culvert:8000/", "(4)"},
	} {
		t.Run("F2,N10: the reply says what is wrong: "+name, func(t *testing.T) {
			if out, err := curl(t, "--socks5-hostname", c.proxy, c.url); exitCode(err) != 97 || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v, want %s", out, err, c.says)
			}
		})
	}
	t.Run("F2: a command finds the proxy in its environment", func(t *testing.T) {
		cmd := command(t.Context(), "socks", "--cluster", "edge-1", "--listen", "127.0.0.1:0", "--",
			"curl", "-sS", "--max-time", "20", "--noproxy", "", "http://web.prod:8000/")
		if out, err := output(cmd); err != nil || out != "web web.prod:8000" {
			t.Errorf("%q, %v", out, err)
		}
	})
}
