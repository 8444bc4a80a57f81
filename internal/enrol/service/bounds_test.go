package service_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/store"
)

func TestBounds(t *testing.T) {
	t.Run("N2: one source gets so many attempts at once, and is told when to come again", func(t *testing.T) {
		b := newBed(t, nil)
		client := b.client(t)
		for range 60 {
			_, err := client.Enroll(t.Context(), &culvertv1.EnrollRequest{})
			switch status.Code(err) {
			case codes.InvalidArgument:
			case codes.ResourceExhausted:
				details := status.Convert(err).Details()
				failure, ok := details[0].(*culvertv1.EnrolmentFailure)
				if !ok || failure.GetReason() != culvertv1.EnrolmentReason_ENROLMENT_REASON_TOO_MANY || failure.GetRetryAfter().AsDuration() <= 0 {
					t.Errorf("%v", details)
				}
				return
			default:
				t.Fatal(err)
			}
		}
		t.Error("sixty at once")
	})
	t.Run("N2: an oversized request is refused before it is decoded", func(t *testing.T) {
		b := newBed(t, nil)
		_, err := b.call(t, &culvertv1.EnrollRequest{Csr: make([]byte, 100<<10)})
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%v", err)
		}
	})
	t.Run("N2: connections of one source are bounded, those above are closed at once and others go on", func(t *testing.T) {
		b := newBed(t, nil)
		var open []net.Conn
		closed := false
		for range 40 {
			c, err := tls.Dial("tcp", b.enrol, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{enrol.Protocol}, MinVersion: tls.VersionTLS13})
			if err != nil {
				closed = true
				break
			}
			open = append(open, c)
		}
		// The first ones hear HTTP/2's settings, the last ones the end.
		for _, c := range open {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			n, err := c.Read(make([]byte, 1))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a connection is neither served nor closed")
			}
			closed = closed || n == 0
		}
		if !closed {
			t.Error("40 connections are served")
		}
		for _, c := range open {
			_ = c.Close()
		}
		eventually(t, "there is room again", func() bool {
			token, secret := b.token(store.Token{}, 0, time.Hour)
			_, err := enrol.Join(t.Context(), b.joiner(token.ID, secret))
			return err == nil
		})
	})
	t.Run("a renewal without a tunnel is refused", func(t *testing.T) {
		b := newBed(t, nil)
		_, err := b.client(t).Renew(t.Context(), &culvertv1.RenewRequest{})
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%v", err)
		}
	})
}
