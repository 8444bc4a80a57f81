package service_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/enrol/service"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/tunnel"
)

func TestEnrol(t *testing.T) {
	t.Run("O6,K6: a token makes a certificate that opens a tunnel, and the token's labels are kept", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{Labels: map[string]string{"region": "eu"}}, 0, time.Hour)
		cfg := b.joiner(token.ID, secret)
		got, err := enrol.Join(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got.Cluster != "edge-1" || got.TrustDomain != trustDomain || string(got.HubCA) != string(b.serving.PEM()) {
			t.Errorf("%+v", got)
		}
		if until := time.Until(got.Leaf.NotAfter); until > time.Hour || until < time.Hour-time.Minute {
			t.Errorf("valid for %v", until)
		}
		b.dial(tls.Certificate{Certificate: [][]byte{got.Leaf.Raw}, PrivateKey: cfg.Key}, io.Discard)
		<-b.links
		cluster, found, err := b.store.Cluster("edge-1")
		if err != nil || !found || cluster.TokenLabels["region"] != "eu" {
			t.Errorf("%+v, %v, %v", cluster, found, err)
		}
		if said := b.log.with("agent enrolled"); len(said) != 1 || !strings.Contains(said[0], "cluster=edge-1") || !strings.Contains(said[0], token.ID) {
			t.Errorf("log: %q", said)
		}
		if strings.Contains(b.log.String(), secret) {
			t.Error("the log has the secret")
		}
	})
	t.Run("O6: of many that use one token at once, one key has a certificate; that key may ask again", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{}, 0, time.Hour)
		var all sync.WaitGroup
		won := make(chan enrol.JoinConfig, 8)
		for range 8 {
			cfg := b.joiner(token.ID, secret)
			all.Go(func() {
				var refused *enrol.Error
				if _, err := enrol.Join(t.Context(), cfg); err == nil {
					won <- cfg
				} else if !errors.As(err, &refused) || refused.Reason != culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED {
					t.Errorf("refused with %v", err)
				}
			})
		}
		all.Wait()
		close(won)
		if len(won) != 1 {
			t.Fatalf("%d have a certificate", len(won))
		}
		if _, err := enrol.Join(t.Context(), <-won); err != nil {
			t.Errorf("the answer was lost: %v", err)
		}
	})
	t.Run("O6: a token with approval waits until the cluster is accepted", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{Approval: true}, 0, time.Hour)
		cfg := b.joiner(token.ID, secret)
		type result struct {
			got *enrol.Enrolment
			err error
		}
		done := make(chan result, 1)
		go func() {
			got, err := enrol.Join(t.Context(), cfg)
			done <- result{got, err}
		}()
		eventually(t, "it waits", func() bool { return len(b.log.with("waiting until the cluster is accepted at the hub")) == 1 })
		pending, found, err := b.store.Pending("edge-1")
		if err != nil || !found {
			t.Fatalf("pending: %v, %v", found, err)
		}
		if len(b.log.with(`msg="cluster waits to be accepted" accept="culvert clusters accept edge-1"`)) != 1 {
			t.Errorf("log: %s", b.log)
		}
		if _, err := b.store.Accept("edge-1", pending.Key, "admin", time.Now()); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.err != nil || r.got.Cluster != "edge-1" {
			t.Errorf("%+v", r)
		}
		if _, found, err := b.store.Pending("edge-1"); found || err != nil {
			t.Errorf("it still waits: %v", err)
		}
	})
	t.Run("O6: nobody accepts, and the wait is bounded and says what to do", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{Approval: true}, 0, time.Hour)
		cfg := b.joiner(token.ID, secret)
		cfg.AcceptTime = time.Second
		_, err := enrol.Join(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "nobody has accepted the cluster within 1s: run culvert clusters accept edge-1") {
			t.Errorf("%v", err)
		}
	})
}

// TestRefused is the table of attempts that end without a certificate: what the
// agent is told, and the hub's line.
func TestRefused(t *testing.T) {
	b := newBed(t, nil)
	old, oldSecret := b.token(store.Token{}, -2*time.Hour, -time.Hour)
	taken, takenSecret := b.token(store.Token{}, 0, time.Hour)
	if _, err := b.store.RevokeToken(taken.ID, "admin", time.Now()); err != nil {
		t.Fatal(err)
	}
	used, usedSecret := b.token(store.Token{}, 0, time.Hour)
	if _, err := enrol.Join(t.Context(), b.joiner(used.ID, usedSecret)); err != nil {
		t.Fatal(err)
	}
	fresh, freshSecret := b.token(store.Token{}, 0, time.Hour)
	gone, goneSecret := b.token(store.Token{Cluster: "edge-9"}, 0, time.Hour)
	goneCfg := b.joiner(gone.ID, goneSecret)
	if _, err := enrol.Join(t.Context(), goneCfg); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.RevokeCluster("edge-9", "admin", "stolen", time.Now()); err != nil {
		t.Fatal(err)
	}
	with := func(id, secret string, change func(*enrol.JoinConfig)) enrol.JoinConfig {
		cfg := b.joiner(id, secret)
		if change != nil {
			change(&cfg)
		}
		return cfg
	}
	const make1 = "make a new one with culvert token create --cluster edge-1"
	for _, c := range []struct {
		title  string
		cfg    enrol.JoinConfig
		reason culvertv1.EnrolmentReason
		says   []string // the agent's error
		log    []string // the hub's line, besides what it told the agent
	}{
		{
			"K6: token reused", with(used.ID, usedSecret, nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED,
			[]string{"join token " + used.ID + " was used at ", " by 127.0.0.1:", "is good for one use", make1},
			[]string{used.ID},
		},
		{
			"K6: token expired", with(old.ID, oldSecret, nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_EXPIRED,
			[]string{"join token " + old.ID + " expired at ", make1},
			[]string{old.ID},
		},
		{
			"K6: token revoked", with(taken.ID, takenSecret, nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_REVOKED,
			[]string{"join token " + taken.ID + " was revoked at ", make1},
			[]string{taken.ID},
		},
		{
			"K6: token for another cluster", with(fresh.ID, freshSecret, func(c *enrol.JoinConfig) { c.Cluster = "edge-2" }),
			culvertv1.EnrolmentReason_ENROLMENT_REASON_WRONG_CLUSTER,
			[]string{"join token " + fresh.ID + ` is for cluster edge-1 and not for "edge-2"`},
			[]string{"cluster=edge-2"},
		},
		{
			"K6: secret cut by one character", with(fresh.ID, freshSecret[:len(freshSecret)-1], nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_UNKNOWN,
			[]string{"no such join token, or one that was cut off or changed", "culvert token create"},
			[]string{fresh.ID},
		},
		{
			"K6: token that never was", with("0000000000000000", freshSecret, nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_UNKNOWN,
			[]string{"no such join token"},
			[]string{"join token 0000000000000000"},
		},
		{
			"K6: token id that forges a line of the log", with("x\nlevel=INFO msg=enrolled", freshSecret, nil), culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_UNKNOWN,
			[]string{"no such join token"},
			nil,
		},
		{
			"N7: the used token of a cluster that was revoked since", goneCfg, culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED,
			[]string{"culvert token create --cluster edge-9"},
			[]string{"cluster=edge-9", gone.ID},
		},
		{
			"K6: service account where there are no rules", with("", "", func(c *enrol.JoinConfig) { c.ServiceAccountToken = "PLANTED.account.token" }),
			culvertv1.EnrolmentReason_ENROLMENT_REASON_ACCOUNT_REFUSED,
			[]string{"this hub has no rules for service accounts: use a join token"},
			nil,
		},
		{
			"K6: impossible cluster", with(fresh.ID, freshSecret, func(c *enrol.JoinConfig) { c.Cluster = "../x" }), culvertv1.EnrolmentReason_ENROLMENT_REASON_BAD_REQUEST,
			[]string{"impossible cluster"},
			nil,
		},
	} {
		t.Run(c.title, func(t *testing.T) {
			before := len(b.log.with("enrolment refused"))
			_, err := enrol.Join(t.Context(), c.cfg)
			var refused *enrol.Error
			if !errors.As(err, &refused) || refused.Reason != c.reason {
				t.Fatalf("%v, want %v", err, c.reason)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the agent's error lacks %q: %v", part, err)
				}
			}
			said := b.log.with("enrolment refused")
			if len(said) != before+1 {
				t.Fatalf("%d lines about it: %q", len(said)-before, said[before:])
			}
			line := said[before]
			t.Logf("agent: %v", err)
			t.Logf("hub: %s", line)
			for _, part := range append(c.log, "level=WARN", "remote=127.0.0.1:", "reason=") {
				if !strings.Contains(line, part) {
					t.Errorf("the hub's line lacks %q: %s", part, line)
				}
			}
		})
	}
	t.Run("K6: no refusal spends the token, and no secret is in the log", func(t *testing.T) {
		if _, err := enrol.Join(t.Context(), b.joiner(fresh.ID, freshSecret)); err != nil {
			t.Error(err)
		}
		for _, secret := range []string{oldSecret, takenSecret, usedSecret, freshSecret, freshSecret[:len(freshSecret)-1], goneSecret, "PLANTED"} {
			if strings.Contains(b.log.String(), secret) {
				t.Errorf("the log has %s", secret)
			}
		}
	})
}

// client calls the hub without a look at its certificate.
func (b *bed) client(t *testing.T) culvertv1.EnrolmentServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+b.enrol, grpc.WithTransportCredentials(tunnel.Credentials(enrol.Protocol)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{enrol.Protocol}, MinVersion: tls.VersionTLS13}}
			return d.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return culvertv1.NewEnrolmentServiceClient(cc)
}

// call enrols with a request of one's own.
func (b *bed) call(t *testing.T, req *culvertv1.EnrollRequest) (*culvertv1.EnrollResponse, error) {
	t.Helper()
	return b.client(t).Enroll(t.Context(), req)
}

func TestHubDecidesTheCertificate(t *testing.T) {
	basicConstraints, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	keyUsage := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 1, 6}}
	ca := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basicConstraints}
	for title, c := range map[string]struct {
		template x509.CertificateRequest
		ignored  []string
	}{
		"N7: a request for another cluster's name gets its own": {
			x509.CertificateRequest{Subject: pkix.Name{CommonName: "edge-2"}, URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/cluster/edge-2"}}},
			[]string{"subject", "edge-2", "URI name", "spiffe://culvert.local/cluster/edge-2"},
		},
		"N7: a request for more names gets none of them": {
			x509.CertificateRequest{DNSNames: []string{"hub.example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, EmailAddresses: []string{"a@b.c"}},
			[]string{"DNS name", "hub.example.com", "IP address 10.0.0.1", "email address"},
		},
		"N7: a request to be an authority gets no authority": {
			x509.CertificateRequest{ExtraExtensions: []pkix.Extension{ca, keyUsage}},
			[]string{"basic constraints (CA:true)", "key usage"},
		},
	} {
		t.Run(title, func(t *testing.T) {
			b := newBed(t, nil)
			token, secret := b.token(store.Token{}, 0, time.Hour)
			key, err := pki.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.CreateCertificateRequest(rand.Reader, &c.template, key)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := b.call(t, &culvertv1.EnrollRequest{Csr: csr, Credential: &culvertv1.EnrollRequest_JoinToken{
				JoinToken: &culvertv1.JoinToken{Id: token.ID, Secret: secret},
			}})
			if err != nil {
				t.Fatal(err)
			}
			leaf := parse(t, resp.GetIssued().GetCertificateChain())
			if name, err := pki.ClusterOf(leaf, trustDomain); name != "edge-1" || err != nil {
				t.Errorf("cluster %q, %v", name, err)
			}
			if leaf.Subject.CommonName != "edge-1" || len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
				t.Errorf("names: %v %v %v %v %v", leaf.Subject, leaf.URIs, leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses)
			}
			if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
				t.Errorf("CA %v, usages %v %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
			}
			said := b.log.with("which is ignored")
			if len(said) != 1 {
				t.Fatalf("%d lines about it: %q", len(said), said)
			}
			t.Logf("hub: %s", said[0])
			for _, part := range append(c.ignored, "cluster=edge-1") {
				if !strings.Contains(said[0], part) {
					t.Errorf("the hub's line lacks %q: %s", part, said[0])
				}
			}
		})
	}
	t.Run("N7: a request that its key has not signed is refused and spends no token", func(t *testing.T) {
		b := newBed(t, nil)
		token, secret := b.token(store.Token{}, 0, time.Hour)
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		csr[len(csr)-1] ^= 1
		credential := &culvertv1.EnrollRequest_JoinToken{JoinToken: &culvertv1.JoinToken{Id: token.ID, Secret: secret}}
		if _, err := b.call(t, &culvertv1.EnrollRequest{Csr: csr, Credential: credential}); err == nil || !strings.Contains(err.Error(), "certificate request") {
			t.Errorf("%v", err)
		}
		if _, err := b.call(t, &culvertv1.EnrollRequest{}); err == nil || !strings.Contains(err.Error(), "certificate request: empty") {
			t.Errorf("%v", err)
		}
		if got, _, err := b.store.Token(token.ID); err != nil || !got.Used.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("a hub without the key of its CA says so and spends no token", func(t *testing.T) {
		b := newBed(t, func(c *service.Config) { c.Issuer = keyless{c.Issuer} })
		token, secret := b.token(store.Token{}, 0, time.Hour)
		_, err := enrol.Join(t.Context(), b.joiner(token.ID, secret))
		var refused *enrol.Error
		if !errors.As(err, &refused) || refused.Reason != culvertv1.EnrolmentReason_ENROLMENT_REASON_NOT_ISSUED_HERE {
			t.Errorf("%v", err)
		}
		if got, _, err := b.store.Token(token.ID); err != nil || !got.Used.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// keyless is an authority of which the hub has the certificate alone.
type keyless struct{ service.Issuer }

func (keyless) CanSign() bool { return false }

func parse(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatalf("no certificate in %q", chain)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
