package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// maxAnswer bounds what is read of one answer to a token review, in bytes.
const maxAnswer = 1 << 20

const redacted = "[redacted]"

// reviewKey is the context key of a *reviewRecord.
type reviewKey struct{}

// reviewRecord belongs to one review and is used by its goroutine only.
type reviewRecord struct {
	token string
	// refusal is status.error of the last answer that was a whole TokenReview
	// and did not authenticate. The webhook authenticator returns it as an error
	// that looks like any failure of the cluster.
	refusal string
}

// reviewTransport sits under the client of the TokenReview API. It bounds
// answers, takes the token out of failures, since the client puts what a server
// says then in errors and logs, and notes refusals in the review's record.
type reviewTransport struct{ next http.RoundTripper }

func newReviewTransport(next http.RoundTripper) http.RoundTripper {
	return &reviewTransport{next: next}
}

// WrappedRoundTripper lets k8s.io/apimachinery find the connections below.
func (t *reviewTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements http.RoundTripper.
func (t *reviewTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	record, ok := request.Context().Value(reviewKey{}).(*reviewRecord)
	if err != nil || !ok {
		return response, err
	}
	record.refusal = ""
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusCreated {
		// Never redacted: whoever chose the token would choose what is cut out of
		// the verdict. The client puts nothing of it in errors.
		record.refusal = refusal(body)
	} else {
		body = []byte(redact(string(body), record.token))
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	response.ContentLength = int64(len(body))
	response.Header.Del("Content-Length")
	return response, nil
}

// refusal returns status.error of body where that is a TokenReview of v1 which
// did not authenticate, and "" for anything else.
func refusal(body []byte) string {
	var review authenticationv1.TokenReview
	if err := json.Unmarshal(body, &review); err != nil {
		return ""
	}
	if review.Kind != "TokenReview" || review.APIVersion != authenticationv1.SchemeGroupVersion.String() || review.Status.Authenticated {
		return ""
	}
	return review.Status.Error
}

// redact takes token out of text, plain and as JSON and Go quote it.
func redact(text, token string) string {
	spellings := []string{token, unquoted(strconv.Quote(token))}
	if quoted, err := json.Marshal(token); err == nil {
		spellings = append(spellings, unquoted(string(quoted)))
	}
	for _, spelling := range spellings {
		text = strings.ReplaceAll(text, spelling, redacted)
	}
	return text
}

func unquoted(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`) }
