package outbound

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// answerTimeout bounds the wait for the proxy's answer, which it gives when it
	// has reached the hub. The caller's context may be shorter.
	answerTimeout = 30 * time.Second
	// maxAnswer bounds the head of the answer, interim ones included.
	maxAnswer = 64 << 10
)

// establish asks the proxy at the other end of conn for address and returns a
// connection that goes there. On an error conn is left to the caller, in any
// state.
func establish(ctx context.Context, conn net.Conn, proxy, address, basic string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	// A deadline in the past is what ends a read that is under way.
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // a closed connection ends the read too
	})
	through, err := exchange(conn, proxy, address, basic)
	if !stop() {
		// The answer may have come at the same time, but conn has a deadline now.
		return nil, gaveUp(address, context.Cause(ctx))
	}
	return through, err
}

// gaveUp says why the wait for an answer ended.
func gaveUp(address string, cause error) error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("CONNECT %s: no answer in time: check that the proxy can resolve and reach that address: %w", address, cause)
	}
	return fmt.Errorf("CONNECT %s: %w", address, cause)
}

// exchange sends the request and reads the answer.
func exchange(conn net.Conn, proxy, address, basic string) (net.Conn, error) {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address,
		Header: http.Header{"User-Agent": {"culvert-agent"}},
	}
	if basic != "" {
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(basic)))
	}
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("send CONNECT %s: %w", address, err)
	}
	status, header, rest, err := readAnswer(conn, req)
	if err != nil {
		return nil, fmt.Errorf("answer to CONNECT %s: %w", address, err)
	}
	if status/100 != 2 {
		return nil, &Error{
			Proxy: proxy, Address: address, Status: status,
			Schemes: schemes(header), sent: basic != "",
		}
	}
	if len(rest) == 0 {
		return conn, nil
	}
	return &readAhead{Conn: conn, rest: rest}, nil
}

// readAnswer reads the head of the final answer, and returns what came in behind
// it: with a success these are the first bytes of the hub. No error has text of
// the answer in it, since a proxy may send back what it was sent.
func readAnswer(conn io.Reader, req *http.Request) (status int, header http.Header, rest []byte, err error) {
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	buffered := bufio.NewReader(limited)
	for {
		//nolint:bodyclose // the body is the tunnel, or nothing that is wanted: the connection is closed
		resp, err := http.ReadResponse(buffered, req)
		if err != nil {
			return 0, nil, nil, explainAnswer(err, limited.N <= 0)
		}
		status, header = resp.StatusCode, resp.Header
		// Interim answers have no body (RFC 9110 section 15.2). 101 is for a
		// request that asked for it.
		if status/100 != 1 || status == http.StatusSwitchingProtocols {
			break
		}
	}
	rest, err = buffered.Peek(buffered.Buffered())
	if err != nil { // never: it asks for what is there
		return 0, nil, nil, err
	}
	return status, header, slices.Clone(rest), nil
}

// errNotHTTP is an answer that cannot be parsed.
var errNotHTTP = errors.New("it is not HTTP/1: check the proxy's URL and port, and use https:// where the proxy is spoken to in TLS")

// explainAnswer keeps of an error what cannot have text of the answer in it.
func explainAnswer(err error, full bool) error {
	var op *net.OpError
	switch {
	case full:
		return fmt.Errorf("its head is longer than %d bytes: check the proxy's URL and port", maxAnswer)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the proxy closed the connection: check the proxy's URL and port, and its log, and use https:// where the proxy is spoken to in TLS")
	case errors.As(err, &op):
		return op // of the connection, such as a reset
	default:
		return errNotHTTP
	}
}

// schemes returns those of the known authentication schemes that the proxy
// offers (RFC 9110 section 11.3; the registry of IANA).
func schemes(header http.Header) []string {
	var found []string
	for _, value := range header.Values("Proxy-Authenticate") {
		for part := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(part), " ")
			for _, known := range []string{"Basic", "Digest", "NTLM", "Negotiate", "Kerberos", "Bearer"} {
				if strings.EqualFold(name, known) && !slices.Contains(found, known) {
					found = append(found, known)
				}
			}
		}
	}
	return found
}

// readAhead gives what was read too early before what comes.
type readAhead struct {
	net.Conn
	rest []byte // owned by the reader
}

// Read implements [net.Conn].
func (c *readAhead) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
