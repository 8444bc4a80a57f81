package server_test

import (
	"net"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/server"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func TestInheritedListeners(t *testing.T) {
	t.Run("K2: a listener that was handed over takes the place of its address, and others are opened", func(t *testing.T) {
		cfg := config(t)
		given := listen(t, "127.0.0.1:0")
		cfg.Listen = []string{"127.0.0.1:0", given.Addr().String()}
		cfg.Listeners = []net.Listener{given}
		h := start(t, cfg)
		if got := h.server.Addr().String(); got == given.Addr().String() {
			t.Errorf("the first address is %s", got)
		}
		conn, err := net.Dial("tcp", given.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("K2: all addresses are one, however they are written", func(t *testing.T) {
		given := listen(t, ":0")
		_, port, err := net.SplitHostPort(given.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"", "0.0.0.0", "[::]"} {
			cfg := config(t)
			// A copy each, since a hub closes what it has taken over.
			tcp, ok := given.(*net.TCPListener)
			if !ok {
				t.Fatalf("%T", given)
			}
			file, err := tcp.File()
			if err != nil {
				t.Fatal(err)
			}
			again, err := net.FileListener(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
			cfg.Listen, cfg.Listeners = []string{host + ":" + port}, []net.Listener{again}
			s, err := server.New(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%s: %v", host, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("K2: a listener that no address is for keeps the hub from starting", func(t *testing.T) {
		cfg := config(t)
		cfg.Listeners = []net.Listener{listen(t, "127.0.0.1:0")}
		s, err := server.New(t.Context(), cfg)
		if err == nil {
			_ = s.Close()
			t.Fatal("the hub starts")
		}
		if !strings.Contains(err.Error(), "handed over for 127.0.0.1:") || !strings.Contains(err.Error(), "socket unit") {
			t.Errorf("%v", err)
		}
	})
}
