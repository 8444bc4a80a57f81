package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Socket is the name of the socket in a hub's state folder.
const Socket = "admin.sock"

const (
	modeDir    = 0o700
	modeSocket = 0o600

	headTimeout = 5 * time.Second
	callTimeout = time.Minute
	idleTimeout = time.Minute
	maxHead     = 16 << 10
)

// Server serves a Handler on a Unix socket. It is safe for concurrent use.
type Server struct {
	path string
	ln   net.Listener
	http *http.Server
}

// Listen takes the socket at path, also where one of a process that was killed
// is left: the caller makes sure that no other process is alive there. Serve
// answers on it. The caller closes the Server, which removes the socket.
//
// The socket has mode 0600 from the start: it is made in a folder of its own and
// moved to its place. Where the kernel says who calls (Linux), a process of
// another user than the hub's own and root is refused even so.
func (h *Handler) Listen(path string) (*Server, error) {
	ln, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("administrators' socket %s: %w", path, err)
	}
	return &Server{path: path, ln: ln, http: &http.Server{
		Handler:           http.HandlerFunc(h.serveSocket),
		ConnContext:       withPeer,
		ReadHeaderTimeout: headTimeout,
		ReadTimeout:       callTimeout,
		WriteTimeout:      callTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

func listenUnix(path string) (_ net.Listener, err error) {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".admin-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	temp := filepath.Join(dir, "s")
	address, done, err := socketAddress(temp)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it moves
	if err := errors.Join(os.Chmod(temp, modeSocket), os.Rename(temp, path)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// Serve answers until Close; then it returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve administrators: %w", err)
	}
	return nil
}

// Close ends the requests under way and removes the socket, also when Serve was
// never called. It may be called more than once.
func (s *Server) Close() error {
	err := errors.Join(ignore(s.http.Close(), net.ErrClosed), ignore(s.ln.Close(), net.ErrClosed))
	return errors.Join(err, ignore(os.Remove(s.path), fs.ErrNotExist))
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

type peerKey struct{}

// peer is the process at the other end of a socket, as the kernel has it.
type peer struct {
	uid int
	err error
}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// serveSocket names the caller of a socket.
func (h *Handler) serveSocket(w http.ResponseWriter, r *http.Request) {
	r = answer.WithRequestID(r)
	p, ok := r.Context().Value(peerKey{}).(peer)
	switch own := os.Getuid(); {
	case !ok || p.err != nil:
		h.refuse(w, r, "", &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated,
			Err: errors.New("it is not known which user calls")})
	case p.uid != own && p.uid != 0:
		h.refuse(w, r, "", &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodePermissionDenied,
			Err: fmt.Errorf("user id %d may not administer this hub: call as user id %d, which it runs as, or as root", p.uid, own)})
	default:
		h.ServeHTTP(w, As(r, fmt.Sprintf("uid %d on the hub's machine", p.uid)))
	}
}
