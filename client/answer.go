package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ignoreClosed drops what closing says about a body that is closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// maxStatus bounds a Status that is read, in bytes.
const maxStatus = 64 << 10

// asError gives an error the form that callers see.
func asError(op, cluster string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok || errors.Is(err, net.ErrClosed) {
		return err
	}
	out := &Error{Op: op, Code: LinkLost, Hop: HopTunnel, Cluster: cluster, Err: err}
	for _, c := range []struct {
		is   error
		code Code
	}{{context.Canceled, Canceled}, {context.DeadlineExceeded, DeadlineExceeded}} {
		if errors.Is(err, c.is) {
			out.Code = c.code
		}
	}
	return out
}

// fromAnswer makes an error of an answer that is one of the hub's, and closes it. Its
// code is in X-Culvert-Error, the hop and the id in the causes of the Status.
func fromAnswer(op, cluster string, res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return asError(op, cluster, err)
	}
	out := &Error{Op: op, Code: Internal, Hop: HopHub, Cluster: cluster, RequestID: res.Header.Get("X-Request-Id")}
	if named := res.Header.Get("X-Culvert-Error"); named != "" {
		out.Code = Code(strings.ReplaceAll(named, "-", " "))
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		out.RetryAfter = time.Duration(s) * time.Second
	}
	var says struct {
		Message string `json:"message"`
		Details struct {
			Causes []struct {
				Type    string `json:"reason"`
				Message string `json:"message"`
			} `json:"causes"`
		} `json:"details"`
	}
	if json.Unmarshal(text, &says) != nil || says.Message == "" {
		out.Err = errors.New("the hub answers " + res.Status)
		return out
	}
	for _, cause := range says.Details.Causes {
		if cause.Type == "Hop" {
			out.Hop = Hop(cause.Message)
		}
	}
	// The message says hop and code once more, before the reason.
	reason := says.Message
	if _, rest, ok := strings.Cut(reason, ": "+string(out.Code)+": "); ok {
		reason = rest
	}
	out.Err = errors.New(reason)
	return out
}
