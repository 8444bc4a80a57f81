package agent

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/pki"
)

const (
	// bundleEvery is how often the hub's CAs are asked for.
	bundleEvery = time.Hour
	// firstBundle is when they are asked for after the start: the agent may have
	// been away while they changed.
	firstBundle = 5 * time.Second
	// jitter is by what part a time is moved, in either direction, so that agents
	// which started together do not stay together.
	jitter = 0.05
	// renewTime bounds one attempt.
	renewTime = 30 * time.Second
	// The waits after failures double, up to the most or a tenth of the time that is
	// left, whichever is less.
	firstRetry = time.Second
	leastRetry = 250 * time.Millisecond
	mostRetry  = 5 * time.Minute
	// absentRetry is how soon to look again when there is no tunnel.
	absentRetry = 2 * time.Second
	// lookEvery is how often the state folder is looked at for what another process
	// has saved.
	lookEvery = time.Minute
)

// errAbsent is why nothing can be renewed while the agent is not connected.
var errAbsent = errors.New("no connection to the hub")

// renewer keeps a certificate and the hub's CAs current. run owns it.
type renewer struct {
	// leaf is the certificate in force.
	leaf func() *x509.Certificate
	// renew replaces it, bundle the hub's CAs.
	renew, bundle func(context.Context) error
	// failed is told of each outcome of both.
	renewed, bundled func(error)
	// random is between 0 and 1.
	random func() float64

	serial     string // of the certificate that due is about
	due        time.Time
	failures   int
	nextBundle time.Time
	bundleFail int
}

// run works until ctx ends. A failure is reported and tried again; it never ends
// anything.
func (r *renewer) run(ctx context.Context) {
	r.nextBundle = time.Now().Add(firstBundle)
	for {
		r.look()
		next := r.due
		if r.nextBundle.Before(next) {
			next = r.nextBundle
		}
		timer := time.NewTimer(min(max(time.Until(next), 0), lookEvery))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		r.look()
		now := time.Now()
		switch {
		case !now.Before(r.due):
			r.attempt(ctx)
		case !now.Before(r.nextBundle):
			r.refresh(ctx)
		}
	}
}

// look finds out when the certificate in force is due, once for each.
func (r *renewer) look() {
	leaf := r.leaf()
	if serial := leaf.SerialNumber.String(); serial != r.serial {
		r.serial, r.failures = serial, 0
		r.due = dueAt(leaf, r.random())
	}
}

// dueAt is two thirds of a certificate's life, give or take the jitter.
func dueAt(leaf *x509.Certificate, random float64) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	part := 2.0 / 3 * (1 + jitter*(2*random-1))
	return leaf.NotBefore.Add(time.Duration(float64(life) * part))
}

func (r *renewer) attempt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	err := r.renew(ctx)
	r.renewed(err)
	if err == nil {
		// The new bundle came with it.
		r.nextBundle = time.Now().Add(bundleEvery)
		return // look finds the new certificate
	}
	r.failures++
	r.due = time.Now().Add(retryAfter(err, r.failures, time.Until(r.leaf().NotAfter), r.random()))
}

func (r *renewer) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	err := r.bundle(ctx)
	r.bundled(err)
	if err == nil {
		r.bundleFail = 0
		r.nextBundle = time.Now().Add(time.Duration(float64(bundleEvery) * (1 + jitter*(2*r.random()-1))))
		return
	}
	r.bundleFail++
	r.nextBundle = time.Now().Add(retryAfter(err, r.bundleFail, bundleEvery, r.random()))
}

// retryAfter is the wait after a number of failures, when so much time is left.
func retryAfter(err error, failures int, left time.Duration, random float64) time.Duration {
	wait := firstRetry << min(failures-1, 20)
	if errors.Is(err, errAbsent) {
		wait = absentRetry
	}
	most := mostRetry
	if left > 0 {
		most = min(most, max(left/10, leastRetry))
	}
	wait = min(wait, most)
	if refused, ok := errors.AsType[*enrol.Error](err); ok {
		wait = max(wait, min(refused.RetryAfter, mostRetry))
	}
	return time.Duration(float64(wait) * (0.75 + random/2))
}

// newRenewer keeps t current over the connections that conn gives.
func newRenewer(t *stateTrust, conn func() grpc.ClientConnInterface) *renewer {
	return &renewer{
		leaf:    func() *x509.Certificate { return t.now().cert.Leaf },
		renew:   func(ctx context.Context) error { return t.renew(ctx, conn()) },
		bundle:  func(ctx context.Context) error { return t.refresh(ctx, conn()) },
		renewed: t.reportRenewal,
		bundled: t.reportBundle,
		random:  rand.Float64,
	}
}

func (t *stateTrust) reportRenewal(err error) {
	news := t.renewals.add(err)
	leaf := t.current.Load().cert.Leaf
	switch {
	case err == nil:
		t.log.Info("certificate renewed", "cluster", t.current.Load().Cluster, "serial", leaf.SerialNumber.Text(16), "expires", timestamp(leaf.NotAfter))
	case !news:
	case time.Now().After(leaf.NotAfter):
		t.log.Error("certificate was not renewed in time", "reason", checkDates(t.current.Load(), t.vault, time.Now()), "last", err)
	default:
		t.log.Warn("certificate was not renewed, trying again", "cluster", t.current.Load().Cluster, "expires", timestamp(leaf.NotAfter), "reason", err)
	}
}

func (t *stateTrust) reportBundle(err error) {
	if errors.Is(err, errAbsent) {
		return // the dialler says so
	}
	if t.bundles.add(err) && err != nil {
		t.log.Warn("the hub's CAs were not refreshed, trying again", "reason", err)
	}
}

// renew replaces certificate and key, and the hub's CAs with them.
func (t *stateTrust) renew(ctx context.Context, cc grpc.ClientConnInterface) error {
	before := t.now()
	if now := time.Now(); now.After(before.cert.Leaf.NotAfter) {
		return checkDates(before, t.vault, now)
	}
	if cc == nil {
		return errAbsent
	}
	key, err := pki.NewKey()
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	got, err := enrol.Renew(ctx, cc, key, before.TrustDomain, before.Cluster)
	if err != nil {
		return err
	}
	about := before.info
	about.SystemRoots = len(got.HubCA) == 0
	id, err := newIdentity(about, got.Chain, keyPEM, got.HubCA)
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	return t.replace(before, id)
}

// refresh replaces the hub's CAs where they have changed.
func (t *stateTrust) refresh(ctx context.Context, cc grpc.ClientConnInterface) error {
	if cc == nil {
		return errAbsent
	}
	before := t.now()
	got, err := enrol.Renew(ctx, cc, nil, before.TrustDomain, before.Cluster)
	if err != nil {
		return err
	}
	about := before.info
	about.SystemRoots = len(got.HubCA) == 0
	if about.SystemRoots == before.SystemRoots && bytes.Equal(got.HubCA, before.ca) {
		return nil
	}
	id, err := newIdentity(about, before.chain, before.key, got.HubCA)
	if err != nil {
		return fmt.Errorf("refresh the hub's CAs: %w", err)
	}
	if err := t.replace(before, id); err != nil {
		return err
	}
	t.log.Info("the hub's CAs have changed", "cas", len(id.cas), "system", id.SystemRoots)
	return nil
}
