package outbound

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
)

// Error is a failure at the proxy, not at the hub behind it. It is immutable and
// holds no credential and no text that the proxy sent.
type Error struct {
	// Proxy is its URL, without credentials.
	Proxy string
	// Address is the host:port that was to be reached.
	Address string
	// Status is the HTTP status of the proxy's answer; 0 when there was none.
	Status int
	// Schemes are the known authentication schemes that the proxy offered with
	// status 407.
	Schemes []string
	// Err is the cause where Status is 0.
	Err error

	sent bool // whether credentials went along
}

// Error says "proxy <url>: …", and what to do where that is known.
func (e *Error) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("proxy %s: %v", e.Proxy, e.Err)
	}
	text := fmt.Sprintf("proxy %s: CONNECT %s: %d", e.Proxy, e.Address, e.Status)
	if name := http.StatusText(e.Status); name != "" {
		text += " " + name
	}
	return text + ": " + e.remedy()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches [syscall.ECONNREFUSED] where the proxy says that nobody answers at
// the hub's address (502, 503, 504), as a direct connection would have found.
func (e *Error) Is(target error) bool {
	return target == syscall.ECONNREFUSED &&
		(e.Status == http.StatusBadGateway || e.Status == http.StatusServiceUnavailable || e.Status == http.StatusGatewayTimeout)
}

// remedy says what mends an answer that is not a success.
func (e *Error) remedy() string {
	switch e.Status {
	case http.StatusProxyAuthRequired:
		return e.authentication()
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		return "the proxy does not allow this connection: allow CONNECT to " + e.Address + " there, or name the hub in noProxy where it is reached directly"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "the proxy cannot reach " + e.Address + ": check the hub's address, that the hub runs, and the way from the proxy to it"
	case http.StatusBadRequest, http.StatusNotFound, http.StatusNotImplemented:
		return "what listens there does not serve CONNECT: check the proxy's URL and port"
	case http.StatusTooManyRequests:
		return "the proxy limits connections: try again later, or raise its limit"
	default:
		return "the proxy refused: its log says why"
	}
}

func (e *Error) authentication() string {
	offered := strings.Join(e.Schemes, ", ")
	basic := len(e.Schemes) == 0 // it did not say: Basic may be right
	for _, s := range e.Schemes {
		basic = basic || s == "Basic"
	}
	switch {
	case !basic:
		return "the proxy wants one of the authentication schemes " + offered + ", and Basic is the one that this agent has: allow Basic there, or allow this machine without authentication"
	case e.sent:
		return "the proxy does not accept the credentials: correct the credentials file, or user and password in the proxy's URL"
	default:
		return "the proxy wants credentials: give user:password in a credentials file, or in the proxy's URL"
	}
}
