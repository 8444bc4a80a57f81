package answer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/wire"
)

// RefusalError is an answer to a program that is no success: of a hub, or of what a hub leads
// to. Its message is for people.
type RefusalError struct {
	// Status is the HTTP status.
	Status int
	// Code and Hop are those of a hub's own error; empty in the answer of a target.
	Code, Hop string
	// Reason and Message are those of the Status of Kubernetes, where it was one.
	Reason, Message string
}

// Error says what is wrong.
func (r *RefusalError) Error() string { return r.Message }

// Read reads an answer that is no success, whose body is text.
func Read(res *http.Response, text []byte) *RefusalError {
	r := &RefusalError{Status: res.StatusCode, Message: fmt.Sprintf("the answer is %s and not of a hub", res.Status)}
	var status metav1.Status
	if json.Unmarshal(text, &status) != nil || status.Kind != "Status" || status.Message == "" {
		return r
	}
	r.Reason, r.Message = string(status.Reason), status.Message
	r.Code = strings.ReplaceAll(res.Header.Get(HeaderError), "-", " ")
	if r.Code == "" || status.Details == nil {
		return r
	}
	r.Hop = wire.HopHub.String()
	for _, cause := range status.Details.Causes {
		if cause.Type == CauseHop {
			r.Hop = cause.Message
		}
	}
	return r
}
