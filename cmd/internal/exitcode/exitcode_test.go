package exitcode

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/profile"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOf(t *testing.T) {
	at := func(code client.Code, hop client.Hop) error {
		return &client.Error{Op: "dial", Code: code, Hop: hop, Err: errors.New("it is so")}
	}
	exited := exec.CommandContext(t.Context(), "sh", "-c", "exit 3").Run()
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, OK},
		{errors.New("x"), Failure},
		{exited, Failure}, // another program's code is not this one's
		{&Error{Code: Usage, Err: errors.New("x")}, Usage},
		{&profile.MissingError{}, Unauthenticated}, {&profile.MissingError{Name: "x"}, NotFound},
		{&credential.Error{Err: exited}, Unauthenticated},
		{&client.Error{Code: client.Internal, Err: &credential.Error{Err: errors.New("x")}}, Unauthenticated},
		{at(client.Unreachable, client.HopTunnel), HubUnreachable}, {at(client.ConnectionRefused, client.HopClient), HubUnreachable}, {at(client.DeadlineExceeded, client.HopHub), HubUnreachable},
		{at(client.TLSFailure, client.HopHub), HubUnverified}, {at(client.TLSFailure, client.HopTarget), Target},
		{at(client.Unauthenticated, client.HopHub), Unauthenticated}, {at(client.PermissionDenied, client.HopAgent), Forbidden},
		{at(client.NotFound, client.HopHub), NotFound}, {at(client.InvalidTarget, client.HopHub), Usage},
		{at(client.Unavailable, client.HopHub), Unavailable}, {at(client.LinkLost, client.HopTunnel), Unavailable}, {at(client.TooManyRequests, client.HopHub), Unavailable},
		{at(client.ConnectionRefused, client.HopTarget), Target}, {at(client.Unreachable, client.HopAgent), Target}, {at(client.DeadlineExceeded, client.HopTarget), Target},
		{at(client.ConnectionReset, client.HopTunnel), Target}, {at(client.ConnectionReset, client.HopHub), HubUnreachable},
		{at(client.Internal, client.HopHub), Failure},
		{&fault.Error{Hop: wire.HopAgent, Code: wire.CodeConnectionRefused}, Target}, {&fault.Error{Hop: wire.HopHub, Code: wire.CodeDraining}, Unavailable},
		{&answer.RefusalError{Status: 403, Code: "unauthenticated", Hop: "hub"}, Unauthenticated}, {&answer.RefusalError{Status: 404}, NotFound}, {&answer.RefusalError{Status: 418}, Failure},
		{context.Canceled, Interrupted},
	} {
		if got := Of(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
		if tt.err == nil {
			continue
		}
		if got := Of(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
			t.Errorf("wrapped %v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestLine(t *testing.T) {
	for want, err := range map[string]error{
		"a; b": errors.Join(errors.New("a"), errors.New("b")),
		"said": &Error{Code: HubUnreachable, Err: errors.New("said"), Complete: true},
		"gone: check that the hub runs, and its address (culvert profiles show)": &Error{Code: HubUnreachable, Err: errors.New("gone")},
		"paste:\n- this":    &answer.RefusalError{Status: 409, Message: "paste:\n- this"},
		"run culvert login": &credential.Error{Err: errors.New("run culvert login")},
	} {
		if got := Line(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range Codes {
		if !strings.Contains(Table(), c.Meaning) {
			t.Errorf("%d is not in the table", c.Code)
		}
	}
}
