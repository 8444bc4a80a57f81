package outbound

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhichWay(t *testing.T) {
	const other = "https://other.example.com"
	for _, c := range []struct {
		name    string
		env     map[string]string
		cfg     Config
		address string // default: hub
		want    string
	}{
		{name: "no proxy anywhere"},
		{name: "from the environment", env: map[string]string{"HTTPS_PROXY": "http://p:3128"}, want: "http://p:3128"},
		{name: "lower case", env: map[string]string{"https_proxy": "http://p:3128"}, want: "http://p:3128"},
		{name: "without a scheme", env: map[string]string{"HTTPS_PROXY": "p:3128"}, want: "http://p:3128"},
		{name: "without a port", env: map[string]string{"HTTPS_PROXY": "http://p"}, want: "http://p:80"},
		{name: "https without a port", env: map[string]string{"HTTPS_PROXY": "https://p/"}, want: "https://p:443"},
		{name: "an IPv6 address", env: map[string]string{"HTTPS_PROXY": "http://[fd00::1]:3128"}, want: "http://[fd00::1]:3128"},
		{name: "with credentials", env: map[string]string{"HTTPS_PROXY": "http://u:" + escaped + "@p:3128"}, want: "http://p:3128"},
		{name: "HTTP_PROXY is for other things", env: map[string]string{"HTTP_PROXY": "http://p:3128"}},
		{name: "an exception", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "example.com"}},
		{name: "an exception for what is below", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": ".example.com"}},
		{name: "an exception for another port", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "example.com:443"}, want: "http://p:80"},
		{name: "an exception for this port", env: map[string]string{"HTTPS_PROXY": "http://p", "no_proxy": "x, example.com:8443"}},
		{name: "an exception by range", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, address: "10.1.2.3:443"},
		{name: "outside of the range", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, address: "11.1.2.3:443", want: "http://p:80"},
		{name: "an exception for all", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}},
		{name: "loopback", env: map[string]string{"HTTPS_PROXY": "http://p"}, address: "127.0.0.1:8443"},
		{name: "localhost", cfg: Config{URL: "http://p"}, address: "localhost:8443"},
		{name: "a setting", cfg: Config{URL: "http://set"}, want: "http://set:80"},
		{name: "a setting wins", env: map[string]string{"HTTPS_PROXY": "http://p"}, cfg: Config{URL: other}, want: other + ":443"},
		{name: "none wins", env: map[string]string{"HTTPS_PROXY": "http://p"}, cfg: Config{URL: None}},
		{name: "exceptions of the environment hold for a setting", env: map[string]string{"NO_PROXY": "example.com"}, cfg: Config{URL: "http://set"}},
		{name: "exceptions of the setting win", env: map[string]string{"HTTPS_PROXY": "http://p", "NO_PROXY": "example.com"}, cfg: Config{NoProxy: []string{}}, want: "http://p:80"},
		{name: "exceptions of the setting", env: map[string]string{"HTTPS_PROXY": "http://p"}, cfg: Config{NoProxy: []string{"a", "hub.example.com"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			address := c.address
			if address == "" {
				address = hub
			}
			if got := dialer(t, c.cfg).Proxy(address); got != c.want {
				t.Errorf("the way to %s is %q, want %q", address, got, c.want)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		name string
		env  string
		cfg  Config
		says []string
	}{
		{name: "SOCKS", cfg: Config{URL: "socks5://p:1080"}, says: []string{"url:", `"socks5" is not supported, want http or https`}},
		{name: "in the environment", env: "ftp://p", says: []string{"HTTPS_PROXY of the environment", `"ftp" is not supported`}},
		{name: "no host", cfg: Config{URL: "http://:3128"}, says: []string{"url: not the URL of a proxy"}},
		{name: "a path", cfg: Config{URL: "http://p:3128/x"}, says: []string{"url: not the URL of a proxy"}},
		{name: "port 0", cfg: Config{URL: "http://p:0"}, says: []string{"url: not the URL of a proxy"}},
		{name: "a large port", cfg: Config{URL: "http://p:65536"}, says: []string{"url: not the URL of a proxy"}},
		{name: "a password that is not escaped", cfg: Config{URL: "http://u:" + secret + "@p:3128"}, says: []string{"url: not the URL", "percent-encoded"}},
		{name: "the same in the environment", env: "http://u:" + secret + "@p:3128", says: []string{"HTTPS_PROXY", "percent-encoded"}},
		{name: "no user", cfg: Config{URL: "http://:" + escaped + "@p"}, says: []string{"credentials without a user"}},
		{name: "a colon in the user", cfg: Config{URL: "http://a%3Ab:" + escaped + "@p"}, says: []string{"has a colon"}},
		{name: "a line break", cfg: Config{URL: "http://u:" + escaped + "%0d%0aX@p"}, says: []string{"control character"}},
		{name: "credentials twice", cfg: Config{URL: "http://u:" + escaped + "@p", CredentialsFile: "f"}, says: []string{"url, credentialsFile", "give them once"}},
		{name: "a CA for http", cfg: Config{URL: "http://p", CA: "ca.crt"}, says: []string{"ca: without effect"}},
		{name: "more beside none", cfg: Config{URL: None, CA: "ca.crt"}, says: []string{`without effect beside the URL "none"`}},
		{name: "a URL as exception", cfg: Config{NoProxy: []string{"a", "https://hub"}}, says: []string{"noProxy[1]", "has a scheme"}},
		{name: "no CA file", cfg: Config{URL: "https://p", CA: missing}, says: []string{"proxy: ca:", missing}},
		{name: "no credentials file", cfg: Config{URL: "http://p", CredentialsFile: missing}, says: []string{"proxy: credentialsFile:", missing}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clean(t)
			t.Setenv("HTTPS_PROXY", c.env)
			_, err := New(c.cfg, nil)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: does not say %q", err, part)
				}
			}
			withoutSecret(t, err.Error())
		})
	}
}

func withoutSecret(t *testing.T, text string) {
	t.Helper()
	for _, part := range []string{"w@rd", "p/s", escaped, "w%40rd", "cC9zOndAcmQl"} {
		if strings.Contains(text, part) {
			t.Errorf("has the password in it: %s", text)
		}
	}
}

func TestSettingsPrintWithoutCredentials(t *testing.T) {
	for _, url := range []string{"http://u:" + escaped + "@p:3128", "http://u:" + secret + "@p:3128"} {
		cfg := Config{URL: url, CA: "ca.crt"}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "proxy", cfg)
		for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", struct{ Proxy Config }{cfg}), fmt.Sprintf("%#v", &cfg), log.String()} {
			withoutSecret(t, text)
			if !strings.Contains(text, "ca.crt") {
				t.Errorf("says nothing: %s", text)
			}
		}
	}
}
