package carry

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParallel(t *testing.T) {
	const connections = 200
	forward := start(t, "forward", "edge-1", "0:web.prod:7002")
	address := forward.listener(t, "edge-1 web.prod:7002")
	t.Run("F2: 200 connections through one forward share one connection to the hub", func(t *testing.T) {
		open := make([]net.Conn, connections)
		errs := make(chan error, connections)
		for i := range open {
			go func() { errs <- converse(address, &open[i], i) }()
		}
		for range open {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		count, err := connectionsTo(forward.cmd.Process.Pid, netip.MustParseAddrPort(hubAddress()))
		if err != nil || count != 1 {
			t.Errorf("%d connections to the hub, %v", count, err)
		}
		for i, conn := range open {
			if conn == nil {
				continue
			}
			if err := again(conn, i); err != nil {
				t.Error(err)
			}
			must(t, conn.Close())
		}
	})
}

// converse connects, and says something of its own to the echo.
func converse(address string, to *net.Conn, i int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	*to = conn
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	return again(conn, i)
}

func again(conn net.Conn, i int) error {
	text := fmt.Sprintf("I am %6d", i)
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

// connectionsTo counts the established connections of a process to an address, by proc(5).
func connectionsTo(pid int, to netip.AddrPort) (int, error) {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	var own []string
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil { // one that is closed meanwhile is none
			own = append(own, name)
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	a := to.Addr().As4()
	slices.Reverse(a[:]) // as the kernel prints it on a little-endian machine
	want := strings.ToUpper(hex.EncodeToString(a[:])) + fmt.Sprintf(":%04X", to.Port())
	count := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st ... inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[2] == want && fields[3] == "01" && slices.Contains(own, "socket:["+fields[9]+"]") {
			count++
		}
	}
	return count, lines.Err()
}
