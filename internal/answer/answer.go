package answer

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// HeaderError is on every answer that Culvert itself makes. Its value is the
// code in words joined by dashes, such as "connection-refused".
const HeaderError = "X-Culvert-Error"

// The types of the causes in Status.details that are not of Kubernetes.
const (
	// CauseHop has the hop that failed as its message.
	CauseHop metav1.CauseType = "Hop"
	// CauseRequestID has the request's id as its message.
	CauseRequestID metav1.CauseType = "RequestID"
)

// Fault returns the fault in err's chain. Without one, an ended context becomes
// a canceled or deadline fault of the given hop, and everything else an internal
// one whose cause is err: for logs, since Write shows no cause of an internal
// fault. It returns nil for nil.
func Fault(hop wire.Hop, op string, err error) *fault.Error {
	if err == nil {
		return nil
	}
	if f := fault.As(err); f != nil {
		return f
	}
	f := &fault.Error{Hop: hop, Op: op, Code: wire.CodeInternal, Err: err}
	switch {
	case errors.Is(err, context.Canceled):
		f.Code = wire.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		f.Code = wire.CodeDeadlineExceeded
	}
	return f
}

// Write answers r with err as a Kubernetes Status, in JSON or in Kubernetes'
// protobuf as the Accept header prefers, and returns the HTTP status that it sent. An err without a [*fault.Error] in its chain is answered as an
// internal error of the hub, whose cause is not shown: log it. Headers that w
// already has are kept, except those that describe a body.
//
// The error it returns is that of writing to the client, which may be gone.
func Write(w http.ResponseWriter, r *http.Request, err error) (int, error) {
	f := faultOf(err)
	status := Status(f, RequestID(r.Context()))
	if status.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	return write(w, r, f, status)
}

// WriteProxy is Write for a proxy's answer to CONNECT: who is not authenticated
// gets 407 and the challenges (RFC 9110 section 11.7.1), so that clients do not
// take it for an answer of the target.
func WriteProxy(w http.ResponseWriter, r *http.Request, err error, challenges ...string) (int, error) {
	f := faultOf(err)
	status := Status(f, RequestID(r.Context()))
	if status.Code == http.StatusUnauthorized {
		status.Code = http.StatusProxyAuthRequired
		w.Header()["Proxy-Authenticate"] = challenges
	}
	return write(w, r, f, status)
}

// WriteMethod is Write with 405 for a request whose method is not one of allow.
func WriteMethod(w http.ResponseWriter, r *http.Request, err error, allow ...string) (int, error) {
	f := faultOf(err)
	status := Status(f, RequestID(r.Context()))
	status.Code, status.Reason = http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return write(w, r, f, status)
}

func faultOf(err error) *fault.Error {
	if f := Fault(wire.HopHub, "", err); f != nil {
		return f
	}
	return &fault.Error{Hop: wire.HopHub, Code: wire.CodeInternal}
}

// write answers with a fault as the status says it.
func write(w http.ResponseWriter, r *http.Request, f *fault.Error, status *metav1.Status) (int, error) {
	contentType, body, err := encode(r, status)
	if err != nil {
		return 0, err
	}
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Etag", "Last-Modified", "Trailer"} {
		h.Del(name)
	}
	h.Set(HeaderError, headerValue(f.Code))
	if id := RequestID(r.Context()); id != "" {
		h.Set(HeaderRequestID, id)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", contentType)
	h.Add("Vary", "Accept")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	if s := retryAfterSeconds(f.RetryAfter); s > 0 {
		h.Set("Retry-After", strconv.FormatInt(s, 10))
	}
	code := int(status.Code)
	w.WriteHeader(code)
	_, err = w.Write(body)
	return code, err
}

// Status returns f as a Kubernetes Status. requestID may be empty.
func Status(f *fault.Error, requestID string) *metav1.Status {
	details := &metav1.StatusDetails{
		Causes:            []metav1.StatusCause{{Type: CauseHop, Message: f.Hop.String()}},
		RetryAfterSeconds: int32(min(retryAfterSeconds(f.RetryAfter), maxRetryAfter)),
	}
	if requestID != "" {
		details.Causes = append(details.Causes, metav1.StatusCause{Type: CauseRequestID, Message: requestID})
	}
	if f.Answer != nil {
		for _, cause := range f.Answer.Causes {
			details.Causes = append(details.Causes, metav1.StatusCause{Type: metav1.CauseType(cause.Type), Message: cause.Message})
		}
	}
	return &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Message:  message(f, requestID),
		Reason:   metav1.StatusReason(f.Reason()),
		Details:  details,
		Code:     int32(f.HTTPStatus()),
	}
}

// message is what kubectl prints after "Error from server (<reason>): ". The id
// stands in it since kubectl prints nothing else of a Status.
func message(f *fault.Error, requestID string) string {
	public := *f
	if f.Code.Known() == wire.CodeInternal {
		public.Err = errors.New("the cause is in the log of this hop")
	}
	text := public.Error()
	if requestID != "" {
		text += " (request id " + requestID + ")"
	}
	return text
}

func headerValue(c wire.Code) string {
	return strings.ReplaceAll(c.Known().String(), " ", "-")
}

// maxRetryAfter keeps what a client is told within a day, in seconds.
const maxRetryAfter = 86400

// retryAfterSeconds rounds up: a client that comes early is refused again.
func retryAfterSeconds(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return min(int64((d-1)/time.Second)+1, maxRetryAfter)
}
