package enrol

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// Defaults of [JoinConfig].
const (
	// DefaultRetryTime is how long a hub that does not answer is tried.
	DefaultRetryTime = 30 * time.Second
	// DefaultAcceptTime is how long acceptance is waited for.
	DefaultAcceptTime = time.Hour
)

const (
	connectTimeout = 10 * time.Second // TCP and TLS of one attempt
	callTimeout    = 30 * time.Second
	firstWait      = 250 * time.Millisecond // between attempts; it doubles
	mostWait       = 5 * time.Second
	// The hub says when to ask again, within these.
	leastPoll = 200 * time.Millisecond
	mostPoll  = time.Minute
	// maxAnswer bounds the hub's answer: bundles of CAs are in it. In bytes.
	maxAnswer = 1 << 20
)

// JoinConfig says how to enrol. Hub, Key, Logger, one of Pins and Roots, and one
// of the credentials are required.
type JoinConfig struct {
	// Hub is the hub's host:port.
	Hub string
	// HubName is the name that the hub's certificate must have. Default: the host
	// of Hub.
	HubName string
	// Pins are the authorities of which the hub's certificate must come from one, as
	// pki.Pin writes them. Roots, which count without Pins, are the authorities
	// themselves.
	Pins  []string
	Roots pki.Roots
	// TokenID and TokenSecret are those of a join token.
	TokenID, TokenSecret string
	// ServiceAccountToken takes the place of a join token.
	ServiceAccountToken string
	// Cluster is the name that is expected; a certificate of another one is an
	// error. Empty: whatever the credential is good for.
	Cluster string
	// Version is the program's, for the hub's people.
	Version string
	// Key is the new certificate's. It stays here.
	Key crypto.Signer
	// Dial opens the TCP connection; nil means a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// RetryTime and AcceptTime are how long a hub that does not answer is tried, and
	// acceptance is waited for. Negative: not at all. Defaults [DefaultRetryTime]
	// and [DefaultAcceptTime].
	RetryTime, AcceptTime time.Duration
	Logger                *slog.Logger
}

func (c JoinConfig) withDefaults() (JoinConfig, error) {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.RetryTime == 0 {
		c.RetryTime = DefaultRetryTime
	}
	if c.AcceptTime == 0 {
		c.AcceptTime = DefaultAcceptTime
	}
	if _, err := route.ParseAddress(c.Hub); err != nil {
		return c, fmt.Errorf("hub: want host:port, without a scheme: %w", err)
	}
	if c.HubName == "" {
		host, _, err := net.SplitHostPort(c.Hub)
		if err != nil {
			return c, fmt.Errorf("hub: %w", err)
		}
		c.HubName = host
	}
	switch {
	case c.Key == nil || c.Logger == nil:
		return c, errors.New("key and logger are required")
	case len(c.Pins) == 0 && c.Roots == nil:
		return c, errors.New("nothing to verify the hub with: want the pins of a join token, or the hub's CA")
	case (c.TokenID == "") == (c.ServiceAccountToken == ""):
		return c, errors.New("want either a join token or a service account's token")
	}
	return c, nil
}

// Join enrols: it returns a certificate for cfg.Key, once the hub has issued it
// and it was checked. A hub that does not answer is tried again for
// cfg.RetryTime, and one that waits for somebody to accept the cluster is asked
// again for cfg.AcceptTime; both are logged. A hub that refuses is an [*Error].
func Join(ctx context.Context, cfg JoinConfig) (*Enrolment, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	// One request for all attempts: to the hub they are one enrolment.
	csr, err := pki.NewRequest(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("enrol: %w", err)
	}
	j := &joining{cfg: cfg, until: time.Now().Add(cfg.RetryTime), wait: firstWait, request: &culvertv1.EnrollRequest{
		Csr: csr, Cluster: cfg.Cluster, Version: cfg.Version,
	}}
	if cfg.TokenID != "" {
		j.request.Credential = &culvertv1.EnrollRequest_JoinToken{
			JoinToken: &culvertv1.JoinToken{Id: cfg.TokenID, Secret: cfg.TokenSecret},
		}
	} else {
		j.request.Credential = &culvertv1.EnrollRequest_ServiceAccountToken{ServiceAccountToken: cfg.ServiceAccountToken}
	}
	for {
		got, pause, err := j.try(ctx)
		if err != nil {
			return nil, fmt.Errorf("enrol at %s: %w", cfg.Hub, err)
		}
		if got != nil {
			return got, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("enrol at %s: %w", cfg.Hub, context.Cause(ctx))
		}
	}
}

// joining is one enrolment with all its attempts.
type joining struct {
	cfg     JoinConfig
	request *culvertv1.EnrollRequest
	until   time.Time // when to give up
	wait    time.Duration
	pending bool // the hub waits for somebody
}

// try makes an attempt. It returns a certificate, or after how long to try again,
// or an error that another attempt would not mend.
func (j *joining) try(ctx context.Context) (*Enrolment, time.Duration, error) {
	resp, state, err := j.call(ctx)
	if err != nil {
		return j.failed(ctx, err)
	}
	switch outcome := resp.GetOutcome().(type) {
	case *culvertv1.EnrollResponse_Issued:
		got, err := j.check(outcome.Issued, state)
		return got, 0, err
	case *culvertv1.EnrollResponse_Pending:
		pause, err := j.waiting(outcome.Pending)
		return nil, pause, err
	default:
		return nil, 0, errors.New("the hub's answer is neither a certificate nor that it takes time: it is newer than this agent, use its release")
	}
}

// failed decides whether to try again.
func (j *joining) failed(ctx context.Context, err error) (*Enrolment, time.Duration, error) {
	var refused *Error
	var final *finalError
	pause := j.wait
	switch {
	case ctx.Err() != nil, errors.As(err, &final):
		return nil, 0, err
	case errors.As(err, &refused):
		if !refused.Temporary() {
			return nil, 0, err
		}
		pause = max(pause, min(refused.RetryAfter, mostPoll))
	}
	if time.Now().Add(pause).After(j.until) {
		return nil, 0, err
	}
	j.wait = min(2*j.wait, mostWait)
	j.cfg.Logger.Warn("cannot enrol yet, trying again", "hub", j.cfg.Hub, "reason", err)
	return nil, pause, nil
}

// waiting is called when somebody has to accept the cluster.
func (j *joining) waiting(p *culvertv1.PendingAcceptance) (time.Duration, error) {
	cluster := oneLine(p.GetCluster())
	if !j.pending {
		j.pending = true
		j.until = time.Now().Add(j.cfg.AcceptTime)
		j.cfg.Logger.Info("waiting until the cluster is accepted at the hub",
			"accept", "culvert clusters accept "+cluster, "hub", j.cfg.Hub, "cluster", cluster, "key", oneLine(p.GetKey()), "until", j.until.UTC().Format(time.RFC3339))
	}
	j.wait = firstWait
	pause := min(max(p.GetRetryAfter().AsDuration(), leastPoll), mostPoll)
	if time.Now().Add(pause).After(j.until) {
		return 0, fmt.Errorf("nobody has accepted the cluster within %v: run culvert clusters accept %s at the hub, and then this again with the same token while it is valid, or a new one",
			j.cfg.AcceptTime, cluster)
	}
	return pause, nil
}

// finalError is one that another attempt does not mend.
type finalError struct{ err error }

// Error returns the cause.
func (e *finalError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *finalError) Unwrap() error { return e.err }

func final(format string, args ...any) error { return &finalError{fmt.Errorf(format, args...)} }

// call connects and makes one call.
func (j *joining) call(ctx context.Context) (*culvertv1.EnrollResponse, tls.ConnectionState, error) {
	conn, err := j.connect(ctx)
	if err != nil {
		return nil, tls.ConnectionState{}, err
	}
	state := conn.ConnectionState()
	given := make(chan net.Conn, 1)
	given <- conn
	cc, err := grpc.NewClient("passthrough:///"+j.cfg.Hub,
		grpc.WithTransportCredentials(tunnel.Credentials(Protocol)),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case conn := <-given:
				return conn, nil
			default:
				return nil, errors.New("the connection was lost")
			}
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	)
	if err != nil {
		return nil, state, errors.Join(fmt.Errorf("grpc client: %w", err), conn.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := culvertv1.NewEnrolmentServiceClient(cc).Enroll(ctx, j.request)
	// gRPC owns the connection once it took it; closing twice does no harm, and
	// nothing that closing says matters when the answer is there.
	_ = errors.Join(cc.Close(), conn.Close())
	if err != nil {
		refused := explain(err)
		if refused.Code == codes.Canceled && context.Cause(ctx) != nil {
			return nil, state, context.Cause(ctx)
		}
		return nil, state, refused
	}
	return resp, state, nil
}

// connect opens TCP and TLS, without a certificate of one's own.
func (j *joining) connect(ctx context.Context) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := j.cfg.Dial(ctx, "tcp", j.cfg.Hub)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub: %w", err)
	}
	verify := pki.VerifyPinned(j.cfg.Pins, j.cfg.HubName)
	if len(j.cfg.Pins) == 0 {
		verify = pki.VerifyServer(j.cfg.Roots, j.cfg.HubName)
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: j.cfg.HubName,
		NextProtos: []string{Protocol},
		//nolint:gosec // VerifyConnection takes its place: it checks chain, name and pins
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := verify(state); err != nil {
				return final("%w", err)
			}
			return nil
		},
	})
	err = conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != Protocol {
		err = final("it does not speak %s: want the address of a Culvert hub, with nothing in between that opens TLS", Protocol)
	}
	if err == nil {
		return conn, nil
	}
	_ = raw.Close() // the handshake's error is the reason
	return nil, explainTLS(j.cfg.HubName, err)
}

// explainTLS says what a failed handshake means.
func explainTLS(name string, err error) error {
	var op *net.OpError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return final("it does not answer in TLS: want the host:port at which the hub listens")
	case errors.As(err, &op) && op.Op == "remote error":
		return final("the hub refused the connection, does it take agents without a certificate on this port? its log says why: %w", err)
	default:
		return fmt.Errorf("tls with the hub as %q: %w", name, err)
	}
}
