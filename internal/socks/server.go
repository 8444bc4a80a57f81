package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/forward"
	"github.com/culvertdev/culvert/internal/route"
)

// Suffix ends the host of a request that names its cluster: HOST.CLUSTER.culvert.
const Suffix = ".culvert"

// DefaultHandshakeTimeout is Server.HandshakeTimeout when that is zero.
const DefaultHandshakeTimeout = 10 * time.Second

const (
	// lingerTime and lingerBytes bound what is read of a peer that was refused, so
	// that it gets the reply before the connection is gone.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// Server has what each connection needs. It is safe for concurrent use.
type Server struct {
	// Dial connects, and waits for the answer of the target, as
	// (*client.Client).DialContext does. Required.
	Dial forward.Dial
	// Explain gives the reply for an error of Dial. Required.
	Explain func(error) Reply
	// Cluster is where all connections go. Where it is empty each says it itself.
	Cluster string
	// HandshakeTimeout bounds the time until a peer has said what it wants. Default
	// 10 s.
	HandshakeTimeout time.Duration
}

// Open is a [forward.Open]: it reads what the peer wants, dials, and replies.
//
// With s.Cluster every connection goes there, and a user name counts for nothing.
// Without it a host HOST.CLUSTER.culvert goes to HOST in CLUSTER, and any other to the
// cluster that the user name names. The password counts for nothing.
func (s *Server) Open(ctx context.Context, conn net.Conn) (forward.Destination, net.Conn, error) {
	patience := s.HandshakeTimeout
	if patience <= 0 {
		patience = DefaultHandshakeTimeout
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return forward.Destination{}, nil, err
	}
	to, err := s.handshake(conn)
	if err != nil {
		var refused *Error
		switch {
		case errors.As(err, &refused):
			err = errors.Join(err, farewell(conn, replyTo(refused.Reply)))
		case errors.Is(err, errMethods):
			err = errors.Join(err, farewell(conn, []byte{version5, methodRefused}))
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("the peer has not said within %s what it wants: %w", patience, err)
		case errors.Is(err, errHTTP):
			err = errors.Join(err, farewell(conn, []byte(answerHTTP)))
		}
		return to, nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return to, nil, err
	}
	remote, err := s.Dial(ctx, to.Cluster, "tcp", to.Address)
	if err != nil {
		return to, nil, errors.Join(err, farewell(conn, replyTo(s.Explain(err))))
	}
	// A peer that does not read ten bytes is none.
	err = conn.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = conn.Write(replyTo(Succeeded))
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return to, nil, errors.Join(err, remote.Close())
	}
	return to, remote, nil
}

// handshake reads and answers what comes before the connection.
func (s *Server) handshake(conn io.ReadWriter) (to forward.Destination, err error) {
	methods, err := readGreeting(conn)
	if err != nil {
		return to, err
	}
	user, err := s.login(conn, methods)
	if err != nil {
		return to, err
	}
	host, port, err := readRequest(conn)
	if err != nil {
		return to, err
	}
	return s.destination(user, host, port)
}

// login agrees on a method, and reads the user name where there is one. The method
// with a user name is taken where somebody has to name the cluster.
func (s *Server) login(conn io.ReadWriter, methods []byte) (user string, err error) {
	none, password := bytes.IndexByte(methods, methodNone) >= 0, bytes.IndexByte(methods, methodPassword) >= 0
	switch {
	case password && (s.Cluster == "" || !none):
		if _, err := conn.Write([]byte{version5, methodPassword}); err != nil {
			return "", err
		}
		if user, err = readLogin(conn); err != nil {
			return "", err
		}
		_, err = conn.Write([]byte{versionLogin, 0})
		return user, err
	case none:
		_, err = conn.Write([]byte{version5, methodNone})
		return "", err
	default:
		return "", fmt.Errorf("%w: %x, want none or user name and password", errMethods, methods)
	}
}

// destination is the cluster and the address of a request.
func (s *Server) destination(user, host string, port uint16) (to forward.Destination, err error) {
	to.Cluster = s.Cluster
	if to.Cluster == "" {
		to.Cluster, host = chooseCluster(user, host)
	}
	if to.Cluster == "" {
		return to, refuse(NotAllowed, "request for %.260q: no cluster is named: start with --cluster, give the cluster as the user name, or as HOST.CLUSTER%s", host, Suffix)
	}
	if err := route.CheckCluster(to.Cluster); err != nil {
		return forward.Destination{}, &Error{Reply: NotAllowed, Err: err}
	}
	target, err := route.ParseAddress(net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return forward.Destination{Cluster: to.Cluster}, &Error{Reply: GeneralFailure, Err: err}
	}
	to.Address = net.JoinHostPort(target.Host, strconv.Itoa(int(target.PortNumber)))
	return to, nil
}

// chooseCluster takes the cluster out of the host or, where that has none, from the user
// name.
func chooseCluster(user, host string) (cluster, rest string) {
	name := strings.TrimSuffix(host, ".")
	if len(name) > len(Suffix) && strings.EqualFold(name[len(name)-len(Suffix):], Suffix) {
		name = name[:len(name)-len(Suffix)]
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			return strings.ToLower(name[i+1:]), name[:i]
		}
		return "", host
	}
	return user, host
}

// answerHTTP is what somebody gets who takes this for an HTTP proxy.
const answerHTTP = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n" +
	"This is a SOCKS5 proxy: give it as socks5h://\r\n"

// farewell sends the last answer, and lets the peer read it: what it has sent already
// would else turn the end into a reset.
func farewell(conn net.Conn, answer []byte) error {
	if err := conn.SetDeadline(time.Now().Add(lingerTime)); err != nil {
		return err
	}
	if _, err := conn.Write(answer); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		_, _ = io.CopyN(io.Discard, conn, lingerBytes) // until the peer has gone, or the time is over
	}
	return nil
}
