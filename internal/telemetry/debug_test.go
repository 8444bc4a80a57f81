package telemetry_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// debugged starts the debug listener of cfg and returns its URL.
func debugged(t *testing.T, cfg telemetry.DebugConfig) string {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	server, err := telemetry.ListenDebug(t.Context(), "localhost:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-served); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + server.Addr().String()
}

func TestDebugAddress(t *testing.T) {
	cfg := telemetry.DebugConfig{Logger: slog.New(slog.DiscardHandler)}
	for _, address := range []string{
		":6060", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[fe80::1%lo]:0", "[::ffff:0.0.0.0]:0", "[::1%lo]:0", "hub.example:0", "localhost.example:0",
		"0:0", "2130706433:0", "0x7f.1:0", "127.1:0", "0127.0.0.1:0", "localhost", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "LOCALHOST.:0", "",
	} {
		server, err := telemetry.ListenDebug(t.Context(), address, cfg)
		if err == nil {
			t.Errorf("K10: %q was taken: %v", address, server.Close())
		} else if !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "127.0.0.1:PORT") {
			t.Errorf("%q: %v", address, err)
		}
		if checked := telemetry.CheckDebugAddress(address); err != nil && (checked == nil || checked.Error() != err.Error()) {
			t.Errorf("%q is checked as %v and refused as %v", address, checked, err)
		}
	}
	t.Run("K10: the debug listener is on loopback only", func(t *testing.T) {
		for _, address := range []string{"127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0", "[::ffff:127.0.0.1]:0"} {
			server, err := telemetry.ListenDebug(t.Context(), address, cfg)
			if err != nil {
				if strings.Contains(err.Error(), "cannot assign") {
					continue // a machine without IPv6
				}
				t.Errorf("%q: %v", address, err)
				continue
			}
			if at, ok := server.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
				t.Errorf("%q became %v", address, server.Addr())
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := telemetry.ListenDebug(t.Context(), "127.0.0.1:0", telemetry.DebugConfig{}); err == nil {
		t.Error("no logger, no error")
	}
}

func TestDebugAskers(t *testing.T) {
	url := debugged(t, telemetry.DebugConfig{})
	t.Run("K10: what a web page makes a browser send is not answered", func(t *testing.T) {
		for _, c := range []struct {
			host, header, value string
			status              int
		}{
			{"", "", "", 200},
			{"localhost", "", "", 200},
			{"[::1]:6060", "Sec-Fetch-Site", "none", 200},
			{"[::1]", "Sec-Fetch-Site", "same-origin", 200},
			{"evil.example", "", "", 421},
			{"localhost.evil.example:80", "", "", 421},
			{"192.0.2.1", "", "", 421},
			{"", "Origin", "http://evil.example", 403},
			{"", "Sec-Fetch-Site", "cross-site", 403},
			{"", "Sec-Fetch-Site", "same-site", 403},
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/debug/links", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = c.host
			if c.header != "" {
				r.Header.Set(c.header, c.value)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("%+v: %d", c, res.StatusCode)
			}
		}
	})
	t.Run("K10: profiles are in the form of go tool pprof", func(t *testing.T) {
		for _, name := range []string{"heap", "goroutine", "allocs", "block", "mutex", "threadcreate", "profile?seconds=0.1"} {
			code, body := get(t, url+"/debug/pprof/"+name)
			z, err := gzip.NewReader(strings.NewReader(body))
			if code != 200 || err != nil {
				t.Errorf("%s: %d, %v", name, code, err)
				continue
			}
			if _, err := io.Copy(io.Discard, z); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if code, body := get(t, url+"/debug/pprof/trace?seconds=0.05"); code != 200 || !strings.HasPrefix(body, "go 1.") {
			t.Errorf("trace: %d", code)
		}
		if code, body := get(t, url+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile: total") {
			t.Errorf("goroutine as text: %d %q", code, body)
		}
	})
	for path, want := range map[string]int{
		"/": 200, "/debug/pprof/": 200, "/debug/pprof/cmdline": 404, "/debug/pprof/profile?seconds=-1": 400, "/debug/pprof/trace?seconds=1e9": 400,
		"/debug/pprof/profile?seconds=NaN": 400, "/debug/sessions?limit=0": 400, "/debug/requests?limit=x": 400, "/metrics": 404,
	} {
		if code, body := get(t, url+path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, path := range []string{"links", "sessions", "requests"} {
		if code, body := get(t, url+"/debug/"+path); code != 200 || !strings.Contains(body, `"`+path+`": []`) {
			t.Errorf("%s of nothing: %d %s", path, code, body)
		}
	}
}

// read decodes what the debug listener answers.
func read(t *testing.T, url string) map[string]any {
	t.Helper()
	code, body := get(t, url)
	var out map[string]any
	if err := json.Unmarshal([]byte(body), &out); err != nil || code != 200 {
		t.Fatalf("%d %v:\n%s", code, err, body)
	}
	return out
}

func only(t *testing.T, v any) map[string]any {
	t.Helper()
	list, ok := v.([]any)
	if !ok || len(list) != 1 {
		t.Fatalf("not one but %v", v)
	}
	one, ok := list[0].(map[string]any)
	if !ok {
		t.Fatalf("got %v", list[0])
	}
	return one
}

func TestLiveView(t *testing.T) {
	links, live := telemetry.NewLinks(), telemetry.NewLive()
	url := debugged(t, telemetry.DebugConfig{Links: links, Live: live})
	o := telemetry.Observer{Live: live}
	p := muxtest.New(t, func(d, a *mux.Config) { a.InitialWindow, a.MinWindow, a.MaxWindow = 1<<10, 1<<10, 1<<10 })
	links.Add(telemetry.LinkInfo{Cluster: "edge", Instance: "i1", Version: "v1", Remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 7}}, p.Dialler)

	about := telemetry.OpenStart{Cluster: "edge", Target: wire.Address("db", 5432), RequestID: "id-1"}
	ctx, observed := o.StartSession(t.Context(), telemetry.SessionStart{
		OpenStart: about, User: "alice\nroot", Bytes: func() (int64, int64) { return 5, 4096 },
	})
	s, err := p.Dialler.Open(ctx, mux.Request{Target: about.Target, RequestID: "id-1", Trace: clientParent})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(bytes.Repeat([]byte("x"), 4096)); err != nil { // nobody reads it
		t.Fatal(err)
	}
	seen, _ := o.Begin(request(t), finished{})
	seen.Route("core", wire.KubernetesAPI())
	seen.User("bob")

	t.Run("N11: the live view has links, and sessions with identity, target, bytes, age and how long they are stalled", func(t *testing.T) {
		link := only(t, read(t, url+"/debug/links")["links"])
		if link["cluster"] != "edge" || link["remote"] != "192.0.2.7:7" || link["instance"] != "i1" || link["sessions"] != 1.0 {
			t.Errorf("link: %v", link)
		}
		session := only(t, read(t, url+"/debug/sessions")["sessions"])
		if session["user"] != "alice\nroot" || session["target"] != "tcp db:5432" || session["requestID"] != "id-1" || session["traceparent"] != clientParent || session["state"] != "open" {
			t.Errorf("session: %v", session)
		}
		if age, ok := session["ageSeconds"].(float64); !ok || age <= 0 {
			t.Errorf("age: %v", session["ageSeconds"])
		}
		if sent, ok := session["sentBytes"].(float64); !ok || sent < 1024 {
			t.Errorf("sent: %v", session["sentBytes"])
		}
		if stalled, ok := session["stalledSeconds"].(float64); !ok || stalled <= 0 || session["queuedBytes"] == 0.0 {
			t.Errorf("stalled: %v", session)
		}
	})
	t.Run("N11: the live view has requests and raw sessions by who asked for them", func(t *testing.T) {
		both := read(t, url+"/debug/requests")
		if list, ok := both["requests"].([]any); !ok || len(list) != 2 || both["all"] != 2.0 {
			t.Fatalf("got %v", both)
		}
		one := only(t, read(t, url+"/debug/requests?cluster=edge")["requests"])
		if one["kind"] != "session" || one["user"] != "alice\nroot" || one["sentBytes"] != 4096.0 || one["receivedBytes"] != 5.0 {
			t.Errorf("got %v", one)
		}
		other := only(t, read(t, url+"/debug/requests?cluster=core&limit=1")["requests"])
		if other["user"] != "bob" || other["method"] != "GET" || other["path"] != "/edge/api" || other["target"] != "kubernetes" {
			t.Errorf("got %v", other)
		}
		if none := read(t, url+"/debug/links?cluster=core")["links"]; len(none.([]any)) != 0 {
			t.Errorf("got %v", none)
		}
	})
	t.Run("N11: as text it is a table, and a name makes no line of its own", func(t *testing.T) {
		_, body := get(t, url+"/debug/sessions?format=text")
		rows := strings.Split(strings.TrimSpace(body), "\n")
		if len(rows) != 2 || !strings.HasPrefix(rows[0], "CLUSTER") || !strings.Contains(rows[1], "alice root") {
			t.Errorf("got\n%s", body)
		}
		for _, path := range []string{"links", "requests"} {
			if code, body := get(t, url+"/debug/"+path+"?format=text"); code != 200 || !strings.Contains(body, "edge") {
				t.Errorf("%s: %d\n%s", path, code, body)
			}
		}
	})
	seen.End()
	observed.End(telemetry.SessionEnd{})
	if got := read(t, url+"/debug/requests"); got["all"] != 0.0 {
		t.Errorf("what has ended is shown: %v", got)
	}
}
