package kube

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// half is how much flows in one direction after the other has ended.
const half = 1 << 20

// closeWriter is a TCP or TLS connection.
type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// upgrade switches to the protocol that was asked for and then acts by the
// last segment of the path (kube-apiserver sends no query with an upgrade):
//
//	echo    sends back what it receives, to the end
//	answer  receives to the end, then sends half
//	ask     sends half, ends its side, then receives to the end
func (s *services) upgrade(w http.ResponseWriter, r *http.Request) {
	client, buffered, err := http.NewResponseController(w).Hijack()
	check(err)
	defer client.Close()
	conn, ok := client.(closeWriter)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
	check(err)
	s.talk(conn, buffered.Reader, path.Base(r.URL.Path))
}

// talk is what happens on a raw stream, upgraded or not.
func (s *services) talk(conn closeWriter, from *bufio.Reader, mode string) {
	switch mode {
	case "echo":
		_, err := io.Copy(conn, from)
		check(err)
	case "answer":
		s.hear(from)
		_, err := io.CopyN(conn, noise(), half)
		check(err)
	case "ask":
		_, err := io.CopyN(conn, noise(), half)
		check(err)
		check(conn.CloseWrite())
		s.hear(from)
		return
	}
	check(conn.CloseWrite())
}

// hear receives to the end, and tells the test.
func (s *services) hear(from io.Reader) {
	hash := sha256.New()
	n, err := io.Copy(hash, from)
	check(err)
	s.heard <- digest{n, hex.EncodeToString(hash.Sum(nil))}
}

// serveDatabase serves a protocol that is not HTTP: the server speaks first, and
// then acts by the line that it is sent, as upgrade does by its path.
func (s *services) serveDatabase(ctx context.Context, t *testing.T, in *testbed.Namespace) {
	t.Helper()
	listener, err := in.Listen(ctx, databaseAddress+":5432")
	must(t, err)
	ended := make(chan error, 1)
	go s.acceptDatabase(listener, ended)
	t.Cleanup(func() {
		if err := errors.Join(listener.Close(), <-ended); err != nil {
			t.Errorf("database: %v", err)
		}
	})
}

// acceptDatabase ends when the listener is closed and all its clients are gone.
func (s *services) acceptDatabase(listener net.Listener, ended chan<- error) {
	var clients sync.WaitGroup
	for {
		conn, err := listener.Accept()
		if err != nil {
			clients.Wait()
			if errors.Is(err, net.ErrClosed) {
				err = nil
			}
			ended <- err
			return
		}
		clients.Add(1)
		go s.query(conn.(*net.TCPConn), &clients)
	}
}

// greeting is what the database says at once.
const greeting = "database ready\n"

// query serves one client of the database and ends with it.
func (s *services) query(conn *net.TCPConn, done *sync.WaitGroup) {
	defer done.Done()
	defer conn.Close()
	// check aborts as in an HTTP handler: the client sees the broken stream.
	defer func() {
		v := recover()
		if err, _ := v.(error); v != nil && !errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
	}()
	_, err := io.WriteString(conn, greeting)
	check(err)
	from := bufio.NewReader(conn)
	mode, err := from.ReadString('\n')
	check(err)
	s.talk(conn, from, mode[:len(mode)-1])
}

// echoWebSocket sends back each message, and closes when the client does.
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	conn, err := upgrader.Upgrade(w, r, nil)
	check(err)
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return // the library has answered the close by then
		}
		check(conn.WriteMessage(kind, message))
	}
}

// echoSPDY sends back what arrives on each stream, until its end, as a kubelet's
// exec of cat would.
func echoSPDY(w http.ResponseWriter, r *http.Request) {
	streams := make(chan httpstream.Stream, 4)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, reply <-chan struct{}) error {
		streams <- stream
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	for {
		select {
		case stream := <-streams:
			_, err := io.Copy(stream, stream)
			check(err)
			check(stream.Close()) // of this side alone
		case <-conn.CloseChan():
			return
		}
	}
}
