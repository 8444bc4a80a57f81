package trust

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

func TestTokensAreUsedOnce(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 3*time.Minute)
	h := startHub(ctx, t, "once", hubConfig{})
	request := func(t *testing.T, token string) *culvertv1.EnrollRequest {
		t.Helper()
		der, _ := csr(t, &x509.CertificateRequest{})
		return &culvertv1.EnrollRequest{Credential: &culvertv1.EnrollRequest_JoinToken{JoinToken: tokenParts(t, token)}, Csr: der}
	}
	t.Run("K6: of many who use a join token at the same time, on both ports, one gets a certificate", func(t *testing.T) {
		_, token := h.token(ctx, t, "race")
		const many = 16
		results := make(chan error, many)
		start := make(chan struct{})
		for i := range many {
			addr := h.addr()
			if i%2 == 1 {
				addr = h.agent.Addr()
			}
			go enrolOnce(ctx, h, addr, request(t, token), start, results)
		}
		close(start)
		won := 0
		for range many {
			switch err := <-results; {
			case err == nil:
				won++
			case !strings.Contains(err.Error(), "good for one use"):
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d of %d got a certificate", won, many)
		}
	})
	t.Run("K6: a token that was used stays used when the hub crashes", func(t *testing.T) {
		_, token := h.token(ctx, t, "crash")
		_, err := h.rawEnrol(ctx, request(t, token))
		must(t, err)
		must(t, h.process.Kill9())
		must(t, h.process.Start(ctx))
		if _, err := h.rawEnrol(ctx, request(t, token)); err == nil || !strings.Contains(err.Error(), "good for one use") {
			t.Errorf("after the crash: %v", err)
		}
	})
	t.Run("K6: a token's secret has to be the right one, and nobody learns which part was wrong", func(t *testing.T) {
		_, token := h.token(ctx, t, "guess")
		right := tokenParts(t, token)
		var said []string
		for _, guess := range []*culvertv1.JoinToken{
			{Id: right.GetId(), Secret: right.GetSecret() + "x"},
			{Id: right.GetId(), Secret: right.GetSecret()[1:]},
			{Id: right.GetId()},
			{Id: "0123456789abcdef", Secret: right.GetSecret()},
		} {
			req := request(t, token)
			req.Credential = &culvertv1.EnrollRequest_JoinToken{JoinToken: guess}
			_, err := h.rawEnrol(ctx, req)
			if err == nil {
				t.Fatalf("%s: a certificate", guess.GetId())
			}
			said = append(said, err.Error())
		}
		for _, text := range said {
			if text != said[0] {
				t.Errorf("%q, and %q", text, said[0])
			}
		}
		t.Log(said[0])
	})
}

// enrolOnce waits for start and sends one result.
func enrolOnce(ctx context.Context, h *hub, addr string, req *culvertv1.EnrollRequest, start <-chan struct{}, result chan<- error) {
	<-start
	_, err := h.rawEnrolAt(ctx, addr, req)
	result <- err
}
