package oneport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// echo is a TCP service that says its name and then what it is told.
type echo struct {
	name, port string
	ln         net.Listener
	running    sync.WaitGroup
}

// startEcho starts a service on loopback, with TLS where there is a certificate.
func startEcho(name string, certificate *tls.Certificate) (*echo, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &echo{name: name, ln: ln}
	if _, e.port, err = net.SplitHostPort(ln.Addr().String()); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	if certificate != nil {
		e.ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS13})
	}
	e.running.Go(e.serve)
	return e, nil
}

// serve ends with close.
func (e *echo) serve() {
	for {
		conn, err := e.ln.Accept()
		if err != nil {
			return
		}
		e.running.Go(func() {
			defer conn.Close()
			if _, err := io.WriteString(conn, e.name+"\n"); err == nil {
				_, _ = io.Copy(conn, conn) // the client compares what comes back
			}
		})
	}
}

func (e *echo) close() error {
	err := e.ln.Close()
	e.running.Wait()
	return err
}
