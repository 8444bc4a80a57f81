package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// The user of the provider.
const (
	username = "test-user2"
	password = "verysecure"
	subject  = "oidc:id2"
)

// browser is what a person has: cookies, redirects, and trust in the provider.
func browser(t *testing.T, p *provider) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.ca)
	jar, err := cookiejar.New(nil)
	must(t, err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Jar: jar}
}

// page makes a request and returns the text and where it ended.
func page(ctx context.Context, client *http.Client, method, address string, form url.Values) (text string, at *url.URL, err error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return "", nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", address, res.Status, body)
	}
	return string(body), res.Request.URL, err
}

// person runs a command that wants somebody to do something in a browser: do gets the
// lines on standard error that match.
func person(ctx context.Context, t *testing.T, pattern string, do func(match []string) error, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(ctx, bin("culvert"), args...)
	cmd.Env = os.Environ()
	var out bytes.Buffer
	cmd.Stdout = &out
	pipe, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	wanted := regexp.MustCompile(pattern)
	var said strings.Builder
	lines := bufio.NewScanner(pipe)
	done := false
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if match := wanted.FindStringSubmatch(lines.Text()); match != nil && !done {
			done = true
			if err := do(match); err != nil {
				t.Errorf("in the browser: %v", err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v: %s", args, err, said.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), said.String()}
}

// logIn logs in with a browser on this machine.
func (w *world) logIn(ctx context.Context, t *testing.T, p *provider, profile string) {
	t.Helper()
	client := browser(t, p)
	got := person(ctx, t, `^  (https://\S+)$`, func(match []string) error {
		_, at, err := page(ctx, client, http.MethodGet, match[1], nil)
		if err != nil {
			return err
		}
		text, _, err := page(ctx, client, http.MethodPost, at.Scheme+"://"+at.Host+at.Path, url.Values{"username": {username}, "password": {password}, "id": {at.Query().Get("authRequestID")}})
		if err == nil && !strings.Contains(text, "go back to the terminal") {
			err = fmt.Errorf("the browser ends at: %s", text)
		}
		return err
	}, "login", w.url(), "--profile", profile, "--hub-ca", w.hubCA(), "--oidc-issuer", p.issuer, "--oidc-client-id", "culvert", "--oidc-ca", p.caFile, "--no-browser")
	if !strings.Contains(got.stdout, "You are "+subject+" at "+w.url()) {
		t.Fatalf("%+v", got)
	}
}

func loginFile(profile string) string {
	return filepath.Join(testbed.Dir(), "config", "culvert", "credentials", profile+".login")
}

// age makes the ID token of a login one that has ended, so that it has to be renewed.
func age(t *testing.T, profile string) {
	t.Helper()
	text, err := os.ReadFile(loginFile(profile))
	must(t, err)
	var login map[string]any
	must(t, json.Unmarshal(text, &login))
	login["expires"] = time.Now().Add(-time.Minute).UTC()
	text, err = json.Marshal(login)
	must(t, err)
	must(t, os.WriteFile(loginFile(profile), text, 0o600))
}

// forget makes the provider lose what it knows of logins, and the one of a profile old.
func (w *world) forget(ctx context.Context, t *testing.T, profile string) {
	t.Helper()
	must(t, w.forgetful.process.Restart(ctx))
	age(t, profile)
}

func TestLogin(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	t.Run("login with a browser, and all commands know the hub and the person", func(t *testing.T) {
		the.logIn(ctx, t, the.provider, "work")
		if got := ok(ctx, t, nil, "whoami", "-o", "json"); !strings.Contains(got.stdout, `"name": "`+subject+`"`) || !strings.Contains(got.stdout, `"method": "oidc"`) {
			t.Errorf("%+v", got)
		}
		if got := ok(ctx, t, nil, "clusters", "list"); !regexp.MustCompile(`(?m)^`+connected+` +connected +1 `).MatchString(got.stdout) || !regexp.MustCompile(`(?m)^`+away+` +away `).MatchString(got.stdout) {
			t.Errorf("%+v", got)
		}
		file := filepath.Join(testbed.Dir(), "work.kubeconfig")
		ok(ctx, t, nil, "kubeconfig", connected, "--wait", "60s", "--output", file)
		got, err := run(ctx, []string{"KUBECONFIG=" + file}, "", "kubectl", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
		if err != nil || got.stdout != "cluster:hub:"+subject {
			t.Errorf("%v %+v", err, got)
		}
	})
	t.Run("no token and no secret is in the profile's file, and what has them is its owner's alone", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(testbed.Dir(), "config", "culvert", "config.yaml"))
		if err != nil || strings.Contains(string(text), "eyJ") || !strings.Contains(string(text), "clientID: culvert") {
			t.Errorf("%v %s", err, text)
		}
		if info, err := os.Stat(loginFile("work")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
	})
	t.Run("a login is renewed by itself, once by many processes, though the provider takes a refresh token once", func(t *testing.T) {
		age(t, "work")
		var together sync.WaitGroup
		tokens := make([]string, 12)
		for i := range tokens {
			together.Go(func() {
				got, err := culvert(ctx, nil, "credential", "--profile", "work")
				if err != nil || got.code != 0 {
					t.Errorf("%v %+v", err, got)
				}
				tokens[i] = got.stdout
			})
		}
		together.Wait()
		for _, token := range tokens {
			if token != tokens[0] {
				t.Error("processes have different tokens")
			}
		}
		ok(ctx, t, nil, "whoami", "--profile", "work")
	})
	t.Run("login with a code in a browser elsewhere", func(t *testing.T) {
		client := browser(t, the.provider)
		got := person(ctx, t, `^Open (https://\S+) in a browser and type in the code (\S+)$`, func(match []string) error {
			at := match[1]
			if _, _, err := page(ctx, client, http.MethodPost, at+"/login", url.Values{"user_code": {match[2]}, "username": {username}, "password": {password}}); err != nil {
				return err
			}
			_, _, err := page(ctx, client, http.MethodGet, at+"/confirm?action=allowed", nil)
			return err
		}, "login", the.url(), "--profile", "device", "--hub-ca", the.hubCA(), "--oidc-issuer", the.provider.issuer, "--oidc-client-id", "culvert", "--oidc-ca", the.provider.caFile, "--device")
		if !strings.Contains(got.stdout, "at "+the.url()) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("logout forgets the login, and the profile says how to come back", func(t *testing.T) {
		ok(ctx, t, nil, "logout", "--profile", "work")
		if _, err := os.Stat(loginFile("work")); !os.IsNotExist(err) {
			t.Errorf("%v", err)
		}
		wrong(ctx, t, nil, []string{"whoami", "--profile", "work"}, 5, "you are not logged in at "+the.url()+": run culvert login "+the.url()+" --profile work")
	})
}

// TestFirstUse is about a person at a terminal, which script(1) makes.
func TestFirstUse(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	answer := func(text, profile string) string {
		cmd := exec.CommandContext(ctx, "script", "-qec", bin("culvert")+" login "+the.url()+" --profile "+profile+" --token-file "+the.tokenFile("alice"), "/dev/null")
		cmd.Stdin = strings.NewReader(text)
		cmd.Env = os.Environ()
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	t.Run("P16,P25: a person who has compared the fingerprint trusts a hub with a word", func(t *testing.T) {
		if out := answer("yes\n", "first"); !strings.Contains(out, "SHA-256 fingerprint") || !strings.Contains(out, "You are alice") {
			t.Errorf("%s", out)
		}
		ok(ctx, t, nil, "whoami", "--profile", "first")
	})
	t.Run("P16,P25: and nothing is sent or kept without it", func(t *testing.T) {
		if out := answer("y\n", "second"); !strings.Contains(out, "is not trusted, and nothing was sent to it") {
			t.Errorf("%s", out)
		}
		wrong(ctx, t, nil, []string{"whoami", "--profile", "second"}, 7, "second")
	})
}
