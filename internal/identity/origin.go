package identity

import (
	"errors"
	"net/http"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// CheckOrigin refuses what a web page of another origin makes a browser send: a
// request that changes something, or a WebSocket. It is for callers by client
// certificate, which a browser shows whoever asks for it; a page that sends a token
// has been given one. The error is a [*fault.Error].
func CheckOrigin(r *http.Request) error {
	if r.Header.Get("Upgrade") != "" {
		// Upgrades are GETs, which are taken for harmless, and no browser keeps one
		// page from opening another's WebSocket.
		upgrade := *r
		upgrade.Method = http.MethodPost
		r = &upgrade
	}
	if new(http.CrossOriginProtection).Check(r) == nil {
		return nil
	}
	return &fault.Error{
		Hop: wire.HopHub, Op: "check origin", Code: wire.CodePermissionDenied,
		Err: errors.New("a web page of another origin sent the request, with the certificate that the browser shows by itself: such a page has to send a token"),
	}
}
