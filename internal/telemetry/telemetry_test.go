package telemetry_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg telemetry.Config) string {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := tel.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), server.Close(), <-served, tel.Close(), tel.Close()); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + server.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestMetrics(t *testing.T) {
	expires := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	health := []telemetry.Health{
		{Name: "serving certificate", Subject: "CN=hub", NotAfter: expires, Failures: 3, LastError: "tls.crt: half-written"},
		{Name: "token file", File: "tokens.csv"},
	}
	var notReady error
	url := start(t, telemetry.Config{Health: func() []telemetry.Health { return health }, Ready: func() error { return notReady }})
	t.Run("P5: expiry times and failed reloads are metrics", func(t *testing.T) {
		code, body := get(t, url+"/metrics")
		for _, want := range []string{
			fmt.Sprintf("culvert_certificate_expiry_timestamp_seconds{name=\"serving certificate\"} %.9e", float64(expires.Unix())),
			`culvert_reload_failures_total{name="serving certificate"} 3`,
			`culvert_reload_failures_total{name="token file"} 0`,
			"# TYPE culvert_certificate_expiry_timestamp_seconds gauge", "# TYPE culvert_reload_failures_total counter",
		} {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("%d lacks %q:\n%s", code, want, body)
			}
		}
		if strings.Contains(body, `timestamp_seconds{name="token file"}`) || strings.Contains(body, "otel_") {
			t.Errorf("more than was asked for:\n%s", body)
		}
	})
	t.Run("P5: a bad new file is a warning and does not make the process unready", func(t *testing.T) {
		code, body := get(t, url+"/readyz?verbose")
		want := "[!]serving certificate WARNING: the newest content cannot be used, the one before stays in force: tls.crt: half-written: " +
			"CN=hub, expires at 2031-02-03T04:05:06Z\n[+]token file ok\n"
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("%d %s", code, body)
		}
		if code, body := get(t, url+"/readyz"); code != 200 || body != "ok\n" {
			t.Errorf("%d %q", code, body)
		}
	})
	if code, body := get(t, url+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	notReady = errors.New("the store is away")
	if code, body := get(t, url+"/readyz"); code != 503 || !strings.Contains(body, "the store is away") {
		t.Errorf("not ready: %d %q", code, body)
	}
}

func TestLine(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		health telemetry.Health
		want   string
	}{
		{telemetry.Health{Name: "a"}, "[+]a ok"},
		{telemetry.Health{Name: "a", Subject: "CN=x", NotAfter: now.Add(-time.Second)}, "[!]a ok: CN=x, EXPIRED at 2029-12-31T23:59:59Z"},
		{telemetry.Health{Name: "a", NotAfter: now.Add(time.Hour)}, "[+]a ok: expires at 2030-01-01T01:00:00Z, in 1h0m0s"},
		{telemetry.Health{Name: "a", Subject: "CN=x\n[+]y", LastError: "one\ntwo"}, "[!]a WARNING: the newest content cannot be used, the one before stays in force: one two: CN=x [+]y"},
	} {
		if got := c.health.Line(now); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	if _, err := telemetry.New(telemetry.Config{}); err == nil {
		t.Error("no logger, no error")
	}
	tel, err := telemetry.New(telemetry.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tel.Listen(t.Context(), "nonsense"); err == nil || !strings.Contains(err.Error(), "listen for metrics") {
		t.Errorf("got %v", err)
	}
	if err := tel.Close(); err != nil {
		t.Error(err)
	}
}
