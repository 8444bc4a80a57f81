package kubectl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// operation is something that users do with kubectl.
type operation struct {
	name string
	run  func(context.Context, *client) error
	// upgrade tells what leaves HTTP.
	upgrade bool
	// row is the id of the promise.
	row string
}

var operations = []operation{
	{"get", get, false, "K9"},
	{"watch", watch, false, "K9"},
	{"apply", apply, false, "K9"},
	{"logs -f", logs, false, "K9,D11"},
	{"exec", execute, true, "K9,S21"},
	{"exec -it, resize", terminal, true, "K9,S21"},
	{"attach", attach, true, "K9,S21"},
	{"cp in, 50 MiB", copyIn, true, "K9,S21"},
	{"cp out, 50 MiB", copyFrom, true, "K9,S21"},
	{"port-forward, 100", forward, true, "K9"},
}

// combinations are the columns of the table.
var combinations = []struct {
	stream stream
	http   version
}{{webSocket, http1}, {webSocket, http2}, {spdy, http1}, {spdy, http2}}

// Reasons why a combination does not exist. [testUpgradesNeedHTTP1] holds the first
// against kube-apiserver.
const (
	needsHTTP1 = "a" // see below
	noStream   = "b"
	legend     = `a  In Kubernetes an upgrade is HTTP/1.1: HTTP/2 has no Upgrade (RFC 9113, 8.2.2), kube-apiserver does not offer
   what HTTP/2 has in its place (RFC 8441), and client-go's dialers of both protocols speak HTTP/1.1 alone
   (transport/websocket by gorilla/websocket; apimachinery's util/httpstream/spdy, util/proxy/dial.go). The
   HTTP/1.1 column is kubectl as users have it: its requests before the upgrade are HTTP/2.
b  There is no stream to choose a protocol for: it is the same request as under WebSocket.
`
)

// cell is a field of the table.
type cell struct {
	text string
	took time.Duration // zero when nothing ran
}

func (c cell) String() string {
	if c.took == 0 {
		return c.text
	}
	return fmt.Sprintf("%s %.1f s", c.text, c.took.Seconds())
}

func testMatrix(t *testing.T, w *world) {
	ways := w.accesses(t)
	tables := make([][][]cell, len(ways)) // by way, operation and combination
	t.Run("cells", func(t *testing.T) {
		for i, way := range ways {
			tables[i] = make([][]cell, len(operations))
			for j, op := range operations {
				tables[i][j] = make([]cell, len(combinations))
				for k, combination := range combinations {
					to := &tables[i][j][k]
					c := &client{w: w, way: way, stream: combination.stream, http: combination.http, id: fmt.Sprintf("cell-%d-%d-%d", i, j, k)}
					switch {
					case !op.upgrade && c.stream == spdy:
						to.text = noStream
						continue
					case op.upgrade && c.http == http2:
						to.text = needsHTTP1
						continue
					case op.upgrade:
						c.http = http2 // of the requests before it
					}
					t.Run(title(op, c), func(t *testing.T) {
						t.Parallel()
						runCell(t, op, c, to)
					})
				}
			}
		}
	})
	table := new(strings.Builder)
	for i, way := range ways {
		writeTable(table, way, tables[i])
	}
	t.Logf("kubectl against kube-apiserver v1.35.1; times include the start of kubectl\n%s\n%s", table, legend)
}

// title is the name of the test of a cell. The control proves nothing about Culvert.
func title(op operation, c *client) string {
	name := fmt.Sprintf("kubectl %s, %s, over %s", op.name, c.way.name, c.http)
	if op.upgrade {
		name = fmt.Sprintf("kubectl %s, %s, over %s", op.name, c.way.name, c.stream)
	}
	if c.way.row != "" {
		name = op.row + "," + c.way.row + ": " + name
	}
	return name
}

// runCell runs one operation.
func runCell(t *testing.T, op operation, c *client, to *cell) {
	t.Helper()
	to.text = "FAIL" // unless it comes to its end
	started := time.Now()
	err := op.run(within(t, cellTime), c)
	to.took = time.Since(started)
	if err != nil {
		t.Error(err)
		return
	}
	to.text = "pass"
}

// cellTime is how long a cell may take on a slow machine.
const cellTime = 3 * time.Minute

// writeTable writes the table of one way.
func writeTable(to io.Writer, way access, rows [][]cell) {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\n"+way.name)
	for _, combination := range combinations {
		fmt.Fprintf(table, "\t%s, %s", combination.stream, combination.http)
	}
	fmt.Fprintln(table)
	for i, op := range operations {
		fmt.Fprint(table, op.name)
		for _, c := range rows[i] {
			fmt.Fprintf(table, "\t%s", c)
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush() // into memory
}

// testUpgradesNeedHTTP1 asks kube-apiserver itself whether HTTP/2 could carry a
// stream: a server that takes the CONNECT of RFC 8441 says so in its settings.
func testUpgradesNeedHTTP1(t *testing.T, w *world) {
	admin := w.managed.AdminContext()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(admin.CA)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}}).
		DialContext(within(t, 30*time.Second), "tcp", strings.TrimPrefix(admin.Server, "https://"))
	must(t, err)
	t.Cleanup(func() { check(t, conn.Close()) })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, xhttp2.ClientPreface)
	must(t, err)
	framer := xhttp2.NewFramer(conn, conn)
	must(t, framer.WriteSettings())
	for {
		frame, err := framer.ReadFrame()
		must(t, err)
		settings, ok := frame.(*xhttp2.SettingsFrame)
		if !ok || settings.IsAck() {
			continue
		}
		if value, ok := settings.Value(xhttp2.SettingEnableConnectProtocol); ok && value != 0 {
			t.Error("kube-apiserver takes streams in HTTP/2 by now: the table has to have them")
		}
		return
	}
}
