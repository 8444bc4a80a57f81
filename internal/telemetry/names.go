package telemetry

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// Role is which half of Culvert a process is.
type Role string

// The roles.
const (
	RoleHub   Role = "hub"
	RoleAgent Role = "agent"
)

// Kind is the kind of a target, as a label. It has few values.
type Kind string

// The kinds.
const (
	KindKubernetes Kind = "kubernetes"
	// KindKubernetesTLS is of raw bytes to an API server.
	KindKubernetesTLS Kind = "kubernetes-tls"
	KindService       Kind = "service"
	KindAddress       Kind = "tcp"
	// KindNone is of requests that lead to no cluster: the hub's own paths, and
	// what could not be read.
	KindNone Kind = "none"
)

// KindOf returns the kind of a target.
func KindOf(t wire.Target) Kind {
	switch t.Kind {
	case wire.TargetKubernetesAPI:
		return KindKubernetes
	case wire.TargetKubernetesTLS:
		return KindKubernetesTLS
	case wire.TargetService:
		return KindService
	case wire.TargetAddress:
		return KindAddress
	default:
		return KindNone
	}
}

// Outcome is what a decision came to.
type Outcome string

// The outcomes.
const (
	Allowed Outcome = "allowed"
	Refused Outcome = "refused"
	// Failed is when there was no decision, since what decides could not be asked.
	Failed Outcome = "failed"
)

// OutcomeOf returns the outcome of an authentication that ended with err: it tells a
// refusal from a failure to decide.
func OutcomeOf(err error) Outcome {
	switch f := fault.As(err); {
	case err == nil:
		return Allowed
	case f != nil && (f.Code == wire.CodeUnauthenticated || f.Code == wire.CodePermissionDenied):
		return Refused
	default:
		return Failed
	}
}

// codeOK is the label of what did not fail.
const codeOK = "ok"

// codeLabel returns a code in the form of the header X-Culvert-Error.
func codeLabel(c wire.Code) string { return strings.ReplaceAll(c.Known().String(), " ", "-") }

// codesByLabel has what may stand in that header.
var codesByLabel = func() map[string]bool {
	known := make(map[string]bool)
	for c := wire.Code(1); c.Known() == c; c++ {
		known[codeLabel(c)] = true
	}
	return known
}()

// result is what became of something, as labels.
type result struct{ code, hop string }

// resultOf returns what an error says: of a fault and of a link its code and hop,
// of what a connection or a context gave the code that fits.
func resultOf(err error) result {
	if err == nil {
		return result{code: codeOK}
	}
	if f := fault.As(err); f != nil {
		return result{code: codeLabel(f.Code), hop: f.Hop.String()}
	}
	if e, ok := errors.AsType[*mux.Error](err); ok {
		return result{code: codeLabel(e.Code), hop: e.Hop.String()}
	}
	code := wire.CodeInternal
	switch {
	case errors.Is(err, context.Canceled):
		code = wire.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		code = wire.CodeDeadlineExceeded
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF):
		code = wire.CodeConnectionReset
	case errors.Is(err, syscall.ECONNREFUSED):
		code = wire.CodeConnectionRefused
	}
	return result{code: codeLabel(code)}
}

// statusClass keeps a target that invents statuses from making series: it returns
// a status that is common as it is, 1 to 5 for the hundreds of another one, 0 for
// none, and -1 for what is no status.
func statusClass(status int) int {
	switch {
	case status == 0:
		return 0
	case status < 100 || status > 599:
		return -1
	case knownStatus(status):
		return status
	default:
		return status / 100
	}
}

// statusLabel is the text of what statusClass returns.
func statusLabel(class int) string {
	switch {
	case class == 0:
		return "none"
	case class < 0:
		return "other"
	case class < 100:
		return strconv.Itoa(class) + "xx"
	default:
		return strconv.Itoa(class)
	}
}

func knownStatus(status int) bool {
	switch status {
	case 101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308,
		400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 422, 429, 431, 499,
		500, 501, 502, 503, 504:
		return true
	default:
		return false
	}
}

// The attributes of spans. Those without the prefix are of OpenTelemetry's
// semantic conventions for HTTP
// (https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
const (
	attrMethod    = attribute.Key("http.request.method")
	attrStatus    = attribute.Key("http.response.status_code")
	attrPath      = attribute.Key("url.path")
	attrCluster   = attribute.Key("culvert.cluster")
	attrTarget    = attribute.Key("culvert.target")
	attrRequestID = attribute.Key("culvert.request_id")
	attrCode      = attribute.Key("culvert.code")
	attrHop       = attribute.Key("culvert.hop")
	attrReceived  = attribute.Key("culvert.bytes.received")
	attrSent      = attribute.Key("culvert.bytes.sent")
)

// spanAttributes are all of them, for who compares.
var spanAttributes = []attribute.Key{
	attrMethod, attrStatus, attrPath, attrCluster, attrTarget, attrRequestID, attrCode, attrHop, attrReceived, attrSent,
}

// Bounds of what callers choose, in bytes.
const (
	maxPath = 1024
	maxText = 256
)

// bounded makes text that a caller chose fit for an export: OTLP refuses a whole
// batch for one string that is not UTF-8.
func bounded(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// method returns an HTTP method, or "_OTHER" for one that is not common.
func method(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return m
	default:
		return "_OTHER"
	}
}
