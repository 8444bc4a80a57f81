package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

func reason(err error) culvertv1.EnrolmentReason {
	if e, ok := errors.AsType[*enrol.Error](err); ok {
		return e.Reason
	}
	return 0
}

func TestJoin(t *testing.T) {
	cfg := config(t)
	h := start(t, cfg)
	var m *member
	t.Run("O6,K6: a token of the hub lets one agent join, and the tunnel is up", func(t *testing.T) {
		made := h.token(admin.TokenRequest{Cluster: "edge-1", Labels: map[string]string{"region": "north"}})
		if !regexp.MustCompile(`^culvert-agent join --token culvert-join\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`).MatchString(made.Command) {
			t.Errorf("command %q", made.Command)
		}
		contains(t, "warnings", strings.Join(made.Warnings, "\n"), "only agents on this machine reach", "--advertise")
		var err error
		if m, err = h.join(made.Text); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(m.enrolment.Leaf.NotAfter); left > server.DefaultAgentLifetime || left < server.DefaultAgentLifetime-time.Hour {
			t.Errorf("valid for %v", left)
		}
		_, _, stop := h.connect(m)
		await(t, "the agent", func() bool { return len(h.server.Agents()) == 1 })
		cluster, err := h.admin.GetCluster(t.Context(), "edge-1")
		if err != nil || cluster.State != admin.ClusterConnected || cluster.Labels["region"] != "north" || len(cluster.Certificates) != 1 || len(cluster.Agents) != 1 {
			t.Errorf("%+v, %v", cluster, err)
		}
		stop()
	})
	t.Run("O6: a token is good once, until it is revoked or expires", func(t *testing.T) {
		used := h.token(admin.TokenRequest{Cluster: "edge-2"})
		if _, err := h.join(used.Text); err != nil {
			t.Fatal(err)
		}
		_, err := h.join(used.Text)
		if reason(err) != culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED {
			t.Errorf("used: %v", err)
		}
		revoked := h.token(admin.TokenRequest{Cluster: "edge-2"})
		if got, err := h.admin.RevokeToken(t.Context(), revoked.ID); err != nil || got.State != admin.TokenRevoked || got.RevokedBy == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := h.join(revoked.Text); reason(err) != culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_REVOKED {
			t.Errorf("revoked: %v", err)
		}
		short := h.token(admin.TokenRequest{Cluster: "edge-2", TTL: metav1.Duration{Duration: time.Millisecond}})
		await(t, "its end", func() bool { return time.Now().After(short.Expires) })
		if _, err := h.join(short.Text); reason(err) != culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_EXPIRED {
			t.Errorf("expired: %v", err)
		}
		tokens, err := h.admin.ListTokens(t.Context())
		states := map[string]string{}
		for _, token := range tokens {
			states[token.ID] = token.State
		}
		if err != nil || states[used.ID] != admin.TokenUsed || states[revoked.ID] != admin.TokenRevoked || states[short.ID] != admin.TokenExpired {
			t.Errorf("%v, %v", states, err)
		}
	})
	t.Run("O6: what a token asks for is checked, and the field is named", func(t *testing.T) {
		for _, c := range []struct {
			want admin.TokenRequest
			says string
		}{
			{admin.TokenRequest{Cluster: "Edge.1"}, "cluster: "},
			{admin.TokenRequest{Cluster: "e", TTL: metav1.Duration{Duration: -time.Hour}}, "ttl: -1h0m0s is negative"},
			{admin.TokenRequest{Cluster: "e", TTL: metav1.Duration{Duration: 1e6 * time.Hour}}, "ttl: "},
			{admin.TokenRequest{Cluster: "e", Approval: "no"}, `approval: "no" is not auto or manual`},
			{admin.TokenRequest{Cluster: "e", Labels: map[string]string{"a b": "c"}}, `labels: "a b"="c"`},
			{admin.TokenRequest{Cluster: "e", Hub: "nowhere"}, "hub: want host:port"},
		} {
			if _, err := h.admin.CreateToken(t.Context(), c.want); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v, want %q", c.want, err, c.says)
			}
		}
		if _, err := h.admin.RevokeToken(t.Context(), "nope"); err == nil || !strings.Contains(err.Error(), `no join token has the id "nope"`) {
			t.Errorf("%v", err)
		}
	})
	t.Run("N7: the secret of a token, and a caller's, are in no log line", func(t *testing.T) {
		made := h.token(admin.TokenRequest{Cluster: "edge-3"})
		token, err := enrol.DecodeToken(made.Text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.join(made.Text); err != nil {
			t.Fatal(err)
		}
		h.get("GET", "/-/v1/tokens", "tok-ada")
		for _, secret := range []string{token.Secret, made.Text, "tok-ada"} {
			if strings.Contains(h.log.String(), secret) {
				t.Errorf("%q is in the log", secret)
			}
		}
		contains(t, "log", h.log.String(), "administrator's change", `what="create token"`, "agent enrolled")
		raw, err := os.ReadFile(filepath.Join(h.state, "hub.db"))
		if err != nil || strings.Contains(string(raw), token.Secret) {
			t.Errorf("the store has the secret, %v", err)
		}
	})
}

func TestApproval(t *testing.T) {
	cfg := config(t)
	cfg.Enrolment = &server.Enrolment{Approval: "manual"}
	h := start(t, cfg)
	t.Run("O6: with manual approval a cluster waits until somebody accepts its key", func(t *testing.T) {
		made := h.token(admin.TokenRequest{Cluster: "edge-1"})
		if made.Approval != admin.ApprovalManual {
			t.Errorf("%+v", made)
		}
		token, err := enrol.DecodeToken(made.Text)
		if err != nil {
			t.Fatal(err)
		}
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		join := enrol.JoinConfig{Hub: token.Hub, Pins: token.Pins, TokenID: token.ID, TokenSecret: token.Secret, AcceptTime: -1}
		if _, err := h.joinAs(join, key); err == nil {
			t.Fatal("joined without being accepted")
		}
		cluster, err := h.admin.GetCluster(t.Context(), "edge-1")
		pin, pinErr := pki.PinKey(key.Public())
		if err != nil || pinErr != nil || cluster.State != admin.ClusterPending || cluster.Pending == nil || cluster.Pending.Key != pin {
			t.Fatalf("%+v, %v, want the key %s", cluster, err, pin)
		}
		if _, err := h.admin.AcceptCluster(t.Context(), "edge-1", admin.Acceptance{Key: "another"}); err == nil || !strings.Contains(err.Error(), "with that key") {
			t.Errorf("another key: %v", err)
		}
		if _, err := h.admin.AcceptCluster(t.Context(), "edge-9", admin.Acceptance{}); err == nil || !strings.Contains(err.Error(), "waits to be accepted") {
			t.Errorf("another cluster: %v", err)
		}
		if got, err := h.admin.AcceptCluster(t.Context(), "edge-1", admin.Acceptance{Key: pin}); err != nil || got.Pending == nil || got.Pending.AcceptedBy == "" {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := h.joinAs(join, key); err != nil {
			t.Errorf("accepted: %v", err)
		}
	})
	t.Run("O6: a token may ask for less than the hub's setting by name", func(t *testing.T) {
		made := h.token(admin.TokenRequest{Cluster: "edge-2", Approval: admin.ApprovalAuto})
		if _, err := h.join(made.Text); err != nil {
			t.Error(err)
		}
	})
}

func TestRevocation(t *testing.T) {
	cfg := config(t)
	h := start(t, cfg)
	m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1"}).Text)
	if err != nil {
		t.Fatal(err)
	}
	_, log, stop := h.connect(m)
	await(t, "the agent", func() bool { return len(h.server.Agents()) == 1 })
	t.Run("N7: a revocation cuts live tunnels within a second and is refused at the next handshake", func(t *testing.T) {
		// What the hub takes for one write and its answer, on a machine as busy as this one.
		began := time.Now()
		h.token(admin.TokenRequest{Cluster: "edge-2"})
		pace := time.Since(began)
		began = time.Now()
		done, err := h.admin.RevokeCluster(t.Context(), "edge-1", admin.RevokeRequest{Reason: "laptop stolen"})
		if err != nil || done.Cut != 1 || done.Revocation.Reason != "laptop stolen" {
			t.Fatalf("%+v, %v", done, err)
		}
		await(t, "the end of the tunnel", func() bool { return len(h.server.Agents()) == 0 })
		if took := time.Since(began); took > time.Second+10*pace {
			t.Errorf("took %v, where a token takes %v", took, pace)
		}
		await(t, "the refusal", func() bool { return strings.Contains(h.log.String(), "tls handshake refused") })
		contains(t, "log", h.log.String(), "edge-1", "revoked", "laptop stolen")
		await(t, "the agent's log", func() bool {
			return strings.Contains(log.String(), "refused this agent's certificate") || strings.Contains(log.String(), "revoked")
		})
		if cluster, err := h.admin.GetCluster(t.Context(), "edge-1"); err != nil || cluster.State != admin.ClusterRevoked {
			t.Errorf("%+v, %v", cluster, err)
		}
	})
	stop()
	h.stop()
	again := start(t, cfg)
	t.Run("N7: a revocation holds after a restart of the hub", func(t *testing.T) {
		_, _, stop := again.connect(m)
		await(t, "the refusal", func() bool { return strings.Contains(again.log.String(), "tls handshake refused") })
		stop()
		if n := len(again.server.Agents()); n != 0 {
			t.Errorf("%d agents", n)
		}
	})
	t.Run("N7: a new token brings a revoked cluster back, and not its old certificate", func(t *testing.T) {
		fresh, err := again.join(again.token(admin.TokenRequest{Cluster: "edge-1"}).Text)
		if err != nil {
			t.Fatal(err)
		}
		_, _, stop := again.connect(fresh)
		await(t, "the agent", func() bool { return len(again.server.Agents()) == 1 })
		stop()
		await(t, "its end", func() bool { return len(again.server.Agents()) == 0 })
		before := strings.Count(again.log.String(), "tls handshake refused")
		_, _, stop = again.connect(m)
		await(t, "the refusal", func() bool { return strings.Count(again.log.String(), "tls handshake refused") > before })
		stop()
	})
}

func TestRenewalAndRotation(t *testing.T) {
	cfg := config(t)
	h := start(t, cfg)
	m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1"}).Text)
	if err != nil {
		t.Fatal(err)
	}
	dialer, _, _ := h.connect(m)
	await(t, "the agent", func() bool { return len(h.server.Agents()) == 1 && dialer.Conn() != nil })
	since := h.server.Agents()[0].Since
	for _, role := range pki.Roles() {
		t.Run("N7: the "+role+" CA is rotated while a tunnel is up, which stays", func(t *testing.T) {
			rotated, err := h.admin.RotateAuthority(t.Context(), role)
			if err != nil || len(rotated.Trusted) != 1 || rotated.Active.Fingerprint == rotated.Trusted[0].Fingerprint || !rotated.Signs {
				t.Fatalf("%+v, %v", rotated, err)
			}
		})
	}
	t.Run("O9: a certificate is renewed over the tunnel from the new CA, and old and new CAs come with it", func(t *testing.T) {
		key, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		got, err := enrol.Renew(t.Context(), dialer.Conn(), key, server.DefaultTrustDomain, "edge-1")
		if err != nil {
			t.Fatal(err)
		}
		if got.Leaf.Issuer.String() == m.enrolment.Leaf.Issuer.String() || strings.Count(string(got.HubCA), "BEGIN CERTIFICATE") != 2 {
			t.Errorf("issuer %s, CAs %s", got.Leaf.Issuer, got.HubCA)
		}
		cluster, err := h.admin.GetCluster(t.Context(), "edge-1")
		if err != nil || len(cluster.Certificates) != 2 || cluster.Certificates[1].Renews != cluster.Certificates[0].Serial {
			t.Errorf("%+v, %v", cluster, err)
		}
	})
	t.Run("N7: who knows the old serving CA only goes on to trust the hub, and an old agent's certificate works", func(t *testing.T) {
		h.connect(m) // the same instance: it takes the place of the one before
		await(t, "the second tunnel", func() bool {
			agents := h.server.Agents()
			return len(agents) == 1 && agents[0].Since.After(since)
		})
	})
	if _, err := h.admin.RotateAuthority(t.Context(), "kings"); err == nil || !strings.Contains(err.Error(), "want agents, serving, users or peers") {
		t.Errorf("%v", err)
	}
}

func TestAdministrators(t *testing.T) {
	cfg := config(t)
	cfg.Admins = &server.Admins{Groups: []string{"admins"}}
	h := start(t, cfg)
	t.Run("D22: callers whom the configuration names administer the hub over HTTPS, and nobody else", func(t *testing.T) {
		if code, body := h.get("GET", "/-/v1/authorities", "tok-ada"); code != 200 || !strings.Contains(body, `"role":"agents"`) {
			t.Errorf("%d %s", code, body)
		}
		code, body := h.get("GET", "/-/v1/authorities", "tok-bob")
		if code != 403 || !strings.Contains(body, "not an administrator of this hub") {
			t.Errorf("%d %s", code, body)
		}
		if code, body := h.get("POST", "/-/v1/clusters/edge-1/revoke", "tok-bob"); code != 403 || strings.Contains(body, "revocation") {
			t.Errorf("%d %s", code, body)
		}
		if code, _ := h.get("GET", "/-/v1/tokens", ""); code != 401 {
			t.Errorf("%d", code)
		}
		if code, _ := h.get("PUT", "/-/v1/tokens", "tok-ada"); code != 404 {
			t.Errorf("%d", code)
		}
	})
	t.Run("D22: a change is logged with who made it", func(t *testing.T) {
		if code, body := h.get("POST", "/-/v1/clusters/edge-7/revoke", "tok-ada"); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		contains(t, "log", h.log.String(), `msg="administrator's change" what="revoke cluster" who=ada`)
	})
	t.Run("D22: the socket is for the hub's own user and goes with the hub", func(t *testing.T) {
		path := filepath.Join(h.state, admin.Socket)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		h.stop()
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is left")
		}
		c := admin.NewSocketClient(h.state)
		defer c.Close()
		_, err = c.ListTokens(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no hub runs with the state folder "+h.state) || !strings.Contains(err.Error(), "culvert-hub --state") {
			t.Errorf("%v", err)
		}
	})
}
