package forward

import (
	"strings"
	"testing"
)

func TestParseSpec(t *testing.T) {
	db := Destination{Cluster: "edge-1", Address: "db.prod:5432"}
	for _, c := range []struct {
		text string
		want Spec
	}{
		{"5432:db.prod:5432", Spec{"tcp", "127.0.0.1:5432", db}},
		{"db.prod:5432", Spec{"tcp", "127.0.0.1:5432", db}},
		{"0:DB.prod.:5432", Spec{"tcp", "127.0.0.1:0", db}},
		{"localhost:1:db.prod:5432", Spec{"tcp", "127.0.0.1:1", db}},
		{"0.0.0.0:1:db.prod:5432", Spec{"tcp", "0.0.0.0:1", db}},
		{"*:1:db.prod:5432", Spec{"tcp", ":1", db}},
		{"[::1]:1:db.prod:5432", Spec{"tcp", "[::1]:1", db}},
		{"edge-2/1:[fd00::1]:80", Spec{"tcp", "127.0.0.1:1", Destination{"edge-2", "[fd00::1]:80"}}},
		{"[::1]:1:[fd00::1]:80", Spec{"tcp", "[::1]:1", Destination{"edge-1", "[fd00::1]:80"}}},
		{"[fd00::1]:80", Spec{"tcp", "127.0.0.1:80", Destination{"edge-1", "[fd00::1]:80"}}},
		{"unix:/run/db.sock:db.prod:5432", Spec{"unix", "/run/db.sock", db}},
		{"unix:a/b:c.sock:db.prod:5432", Spec{"unix", "a/b:c.sock", db}},
		{"edge-2/unix:s:db.prod:5432", Spec{"unix", "s", Destination{"edge-2", "db.prod:5432"}}},
	} {
		if got, err := ParseSpec(c.text, "edge-1"); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
	}
	for text, says := range map[string]string{
		"": "host:port", "5432": "host:port", "db": "host:port", ":5432": "host", "x:db:5432": "local port", "65536:db:1": "local port",
		"01:db:1": "local port", "-1:db:1": "local port", "1:db:0": "port", "1:db:http": "port", "1:127.1:80": "IPv4", "db:1:2": "",
		"host:1:db:2": "bind address", "::1:1:db:2": "bind address", "[127.0.0.1]:1:db:2": "bind address", "[::1:1:db:2": "bracket",
		"Edge/1:db:2": "cluster", "unix::db:1": "socket", "5432[::1]:22": "host", "x[::1]:22": "host", "/1:db:1": "cluster", "unix:" + strings.Repeat("x", 108) + ":db:1": "socket",
	} {
		if got, err := ParseSpec(text, "edge-1"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want an error with %q", text, got, err, says)
		}
	}
	if _, err := ParseSpec("1:db:2", ""); err == nil || !strings.Contains(err.Error(), "first argument") {
		t.Errorf("no cluster: %v", err)
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"5432:db:5432", "a/[::1]:1:[::2]:3", "unix:/x:y:1", "*:0:db:1", "a/b/c:d:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpec(text, "edge-1")
		if err != nil {
			return
		}
		if s.To.Cluster == "" || s.To.Address == "" || s.Network != "tcp" && s.Network != "unix" {
			t.Errorf("%q: %+v", text, s)
		}
		again := s.To.Cluster + "/" + s.Listen + ":" + s.To.Address
		if s.Network == "unix" {
			again = s.To.Cluster + "/unix:" + s.Listen + ":" + s.To.Address
		} else if strings.HasPrefix(s.Listen, ":") {
			again = s.To.Cluster + "/*" + s.Listen + ":" + s.To.Address
		}
		if got, err := ParseSpec(again, ""); err != nil || got != s {
			t.Errorf("%q is %+v, and %q is %+v, %v", text, s, again, got, err)
		}
	})
}
