package registry_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestNames(t *testing.T) {
	remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40112}
	long := strings.Repeat("é", 300)
	for _, c := range []struct {
		title string
		given []registry.Agent
		want  []string
	}{
		{"N11: an agent is called what it calls itself", []registry.Agent{{Name: "edge-1-6f9c", Instance: "a"}, {Name: "edge-1-x2x4", Instance: "b"}}, []string{"edge-1-6f9c", "edge-1-x2x4"}},
		{"N11: of two with one name the newer is told apart", []registry.Agent{{Name: "n", Instance: "a"}, {Name: "n", Instance: "b"}, {Name: "n", Instance: "c"}}, []string{"n", "n~2", "n~3"}},
		{"N11: nor can one take the name that another was given", []registry.Agent{{Name: "n", Instance: "a"}, {Name: "n~3", Instance: "b"}, {Name: "n", Instance: "c"}}, []string{"n", "n~3", "n~3~3"}},
		{"N11: an agent that reconnects keeps its name", []registry.Agent{{Name: "n", Instance: "a"}, {Name: "n", Instance: "a"}}, []string{"n"}},
		{"N11: one without a name is called by its instance, or else by its address", []registry.Agent{{Instance: "a"}, {}}, []string{"a", "192.0.2.7"}},
		{"N11: two names that are cut to one are told apart", []registry.Agent{{Name: long + "1", Instance: "a"}, {Name: long + "2", Instance: "b"}}, []string{long[:200], long[:200] + "~2"}},
	} {
		t.Run(c.title, func(t *testing.T) {
			r := registry.New(registry.Config{Known: known})
			var last *mux.Link
			for _, a := range c.given {
				a.Cluster, a.Remote = "c", remote
				last = muxtest.New(t).Dialler
				defer r.Add(a, last)()
			}
			var got []string
			for _, a := range r.Agents("c") {
				got = append(got, a.Name)
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if name := r.NameOf("c", last); name != c.want[len(c.want)-1] {
				t.Errorf("the last is %q", name)
			}
			if name := r.NameOf("c", muxtest.New(t).Dialler) + r.NameOf("d", last); name != "" {
				t.Errorf("a stranger is %q", name)
			}
		})
	}
}

// TestAsked tells who has a session, or refused it.
func TestAsked(t *testing.T) {
	refuses := func(code wire.Code) func(_, a *mux.Config) {
		return func(_, a *mux.Config) {
			a.Handler = func(_ context.Context, in *mux.Incoming) { in.Refuse(code, wire.HopAgent, "no") }
		}
	}
	serve := func(_, a *mux.Config) { a.Handler = echo }
	// cold asks by way of a session that the first Write opens, and raw by Open.
	cold := func(t *testing.T, r *registry.Registry) (string, error) {
		t.Helper()
		conn, err := r.Cold(t.Context(), "c", request(), 10*time.Second, decided)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		named := conn.(interface{ Agent() string })
		if name := named.Agent(); name != "" {
			t.Errorf("before anybody is asked it is %q", name)
		}
		_, err = conn.Write(bytes.Repeat([]byte("x"), 10))
		return named.Agent(), err
	}
	raw := func(t *testing.T, r *registry.Registry) (string, error) {
		t.Helper()
		s, name, err := r.Open(t.Context(), "c", request())
		if err == nil {
			defer s.Close()
		}
		return name, err
	}
	for how, ask := range map[string]func(*testing.T, *registry.Registry) (string, error){"cold": cold, "raw": raw} {
		for _, c := range []struct {
			title         string
			first, second func(_, a *mux.Config)
			want          string
			fails         bool
		}{
			{"N11: the agent that has the session is named", serve, serve, "second", false},
			{"N11: an agent that was passed over is not", serve, refuses(wire.CodeDraining), "first", false},
			{"N11: the agent that refused is named", serve, refuses(wire.CodePermissionDenied), "second", true},
			{"N11: of several that refused the last is named", refuses(wire.CodeDraining), refuses(wire.CodeDraining), "first", true},
		} {
			t.Run(c.title+", "+how, func(t *testing.T) {
				r := registry.New(registry.Config{Known: known, Wait: time.Millisecond})
				for _, a := range []struct {
					name   string
					change func(_, a *mux.Config)
				}{{"first", c.first}, {"second", c.second}} { // of equals the newer is asked first
					p := muxtest.New(t, a.change)
					defer r.Add(registry.Agent{Cluster: "c", Name: a.name, Instance: a.name, Remote: &net.TCPAddr{}}, p.Dialler)()
				}
				name, err := ask(t, r)
				if name != c.want || (err != nil) != c.fails {
					t.Errorf("%q, %v", name, err)
				}
			})
		}
	}
}
