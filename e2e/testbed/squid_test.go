package testbed

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// ask sends one request to a squid and returns its status, and what comes first
// when that is 200.
func ask(ctx context.Context, s *Squid, dial func(context.Context, string, string) (net.Conn, error), request, basic string) (status int, first string, err error) {
	conn, err := dial(ctx, "tcp", s.Addr.String())
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	head := request + "\r\nHost: x\r\n"
	if basic != "" {
		head += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(basic)) + "\r\n"
	}
	if err := errors.Join(conn.SetDeadline(time.Now().Add(20*time.Second)), func() error { _, err := io.WriteString(conn, head+"\r\n"); return err }()); err != nil {
		return 0, "", err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return 0, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, "", nil
	}
	text := make([]byte, 5)
	_, err = io.ReadFull(r, text)
	return resp.StatusCode, string(text), err
}

// greetAll says hello to everybody until ln is closed; it sends the reason.
func greetAll(ln net.Listener, ended chan<- error) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			ended <- err
			return
		}
		_, err = io.WriteString(conn, "hello")
		if err := errors.Join(err, conn.Close()); err != nil && !isReset(err) {
			ended <- err
			return
		}
	}
}

func TestSquid(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	dir := t.TempDir()
	var listeners []net.Listener
	ended := make(chan error, 2)
	for range 2 {
		ln, err := net.Listen("tcp", netip.AddrPortFrom(HubAddress, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		go greetAll(ln, ended)
		listeners = append(listeners, ln)
	}
	defer func() {
		for _, ln := range listeners {
			ln.Close()
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	}()
	target, other := listeners[0].Addr().String(), listeners[1].Addr().String()
	password := rand.Text()
	open, err := StartSquid(ctx, SquidConfig{Name: "open", Dir: dir, Listen: HubAddress, Allow: netip.MustParseAddrPort(target)})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	locked, err := StartSquid(ctx, SquidConfig{
		Name: "locked", Dir: dir, Listen: HubAddress, Allow: netip.MustParseAddrPort(target), User: "u", Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	network, err := NewPrivateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	if err := network.AllowOnly(open.Addr); err != nil {
		t.Fatal(err)
	}
	outside := new(net.Dialer).DialContext
	for _, c := range []struct {
		name, request, basic string
		squid                *Squid
		status               int
	}{
		{"to the target", "CONNECT " + target + " HTTP/1.1", "", open, 200},
		{"to another port", "CONNECT " + other + " HTTP/1.1", "", open, 403},
		{"to another address", "CONNECT 198.18.77.1:" + portOf(target) + " HTTP/1.1", "", open, 403},
		{"without CONNECT", "GET http://" + target + "/ HTTP/1.1", "", open, 403},
		{"without credentials", "CONNECT " + target + " HTTP/1.1", "", locked, 407},
		{"with wrong ones", "CONNECT " + target + " HTTP/1.1", "u:x", locked, 407},
		{"with credentials", "CONNECT " + target + " HTTP/1.1", "u:" + password, locked, 200},
	} {
		status, first, err := ask(ctx, c.squid, outside, c.request, c.basic)
		if err != nil || status != c.status || (status == 200 && first != "hello") {
			t.Errorf("%s: %d %q %v, want %d", c.name, status, first, err, c.status)
		}
	}
	if status, first, err := ask(ctx, open, network.Inside.Dial, "CONNECT "+target+" HTTP/1.1", ""); status != 200 || first != "hello" {
		t.Errorf("from the private network: %d %q %v", status, first, err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if conn, err := network.Inside.Dial(short, "tcp", target); err == nil {
		conn.Close()
		t.Error("the target can be reached without the proxy")
	}
	err = Poll(ctx, "squid's log", func(context.Context) error {
		lines, err := open.Requests()
		if err == nil && len(lines) < 5 {
			err = fmt.Errorf("%q", lines)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err) // an address of a listener
	}
	return port
}
