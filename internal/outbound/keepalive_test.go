//go:build unix

package outbound

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// What stands between forgets connections that are silent.
func TestKeepAlive(t *testing.T) {
	clean(t)
	proxy := startScripted(t, nil, "HTTP/1.1 200 OK\r\n\r\n")
	conn, err := dialer(t, Config{URL: proxy.url}).DialContext(within(t, 10*time.Second), "tcp", hub)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var on int
	var failed error
	err = raw.Control(func(fd uintptr) {
		on, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
	})
	if err != nil || failed != nil || on == 0 {
		t.Errorf("keepalive is %d: %v %v", on, err, failed)
	}
}
