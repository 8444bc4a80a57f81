package front

import (
	"context"
	"time"

	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/limit"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Session is a session of raw bytes that a front end wants for a client. It
// belongs to the front end until [Sessions.Open] or [Sessions.Refuse] gets it.
type Session struct {
	// Cluster and Target are where it leads to, in the spelling of package route.
	// Both may be empty for a session that is refused before that is known.
	Cluster string
	Target  wire.Target
	// Caller is who asks: [identity.JudgedByTarget] where the target itself, and
	// nobody before it, authenticates the client.
	Caller identity.Caller
	// Source is the client's address.
	Source string
	// First are the first bytes of the stream, where they are known. They go to the
	// target before anything else; the front end does not write them.
	First []byte
	// Start is when it was asked for.
	Start time.Time
	// Hold has what the front end took of limits already: the client's network. It
	// is released with the session.
	Hold limit.Hold
}

// Sessions opens raw sessions. Every one that is opened or refused has its audit
// lines, metrics and span from here, whatever the front end is. It is safe for
// concurrent use.
type Sessions interface {
	// Admit is asked before a client is authenticated: whether its network may ask,
	// and whether what happens can be recorded.
	Admit(ctx context.Context, s *Session) error
	// Open holds the caller to limits and policy and opens the session. It takes a
	// bounded time. The error is a [*fault.Error], and recorded. The context has the
	// request id ([answer.WithID]) and the caller's trace, where there is one. The
	// front end owns the session, and joins or closes it.
	Open(ctx context.Context, s *Session) (*mux.Session, error)
	// Refuse records a session that the front end itself refuses.
	Refuse(ctx context.Context, s *Session, err error)
}
