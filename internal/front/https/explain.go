package https

import (
	"context"
	"errors"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/relay"
	"github.com/culvertdev/culvert/internal/wire"
)

// linkRetry is what callers are told to wait after a link was lost: an agent is
// back within that time after a restart.
const linkRetry = time.Second

// explain says which hop broke a session that had been opened.
func explain(err error) *fault.Error {
	f := &fault.Error{Hop: wire.HopAgent, Op: "proxy", Code: wire.CodeProtocolError, Err: err}
	var session *mux.Error
	switch {
	case errors.As(err, &session):
		f.Hop, f.Code = session.Hop, session.Code
		if session.Message != "" {
			f.Err = errors.New(session.Message)
		} else {
			f.Err = nil
		}
	case errors.Is(err, context.Canceled):
		f.Hop, f.Code = wire.HopClient, wire.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		f.Code = wire.CodeDeadlineExceeded
	case relay.Broken(err):
		f.Hop, f.Code = wire.HopLink, wire.CodeConnectionReset
		f.Err = errors.New("the session ended before the answer was complete, try again")
	}
	switch f.Code {
	case wire.CodeLinkLost, wire.CodeReplaced, wire.CodeDraining:
		f.RetryAfter = linkRetry
	}
	return f
}
