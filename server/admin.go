package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/registry"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/wire"
)

// serveAdmin lets the callers that the configuration names administer the hub.
func (s *Server) serveAdmin(w http.ResponseWriter, r *http.Request, caller user.Info) error {
	a := s.cfg.Admins
	if a == nil || !slices.Contains(a.Users, caller.GetName()) && !slices.ContainsFunc(caller.GetGroups(), func(group string) bool {
		return slices.Contains(a.Groups, group)
	}) {
		return &fault.Error{Hop: wire.HopHub, Op: "administer", Code: wire.CodePermissionDenied,
			Err: fmt.Errorf("%q is not an administrator of this hub: add the user or a group to admins in its configuration, "+
				"or call on the hub's machine with --state", caller.GetName())}
	}
	s.admin.ServeHTTP(w, admin.As(r, caller.GetName()))
	return nil
}

// administration implements [admin.Hub] apart from the methods of Server, which
// are for programs that embed a hub.
type administration struct {
	s *Server
}

// ListTokens implements [admin.Hub].
func (a administration) ListTokens(context.Context) ([]admin.Token, error) {
	tokens, err := a.s.store.Tokens()
	out := make([]admin.Token, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, tokenOf(t, time.Now()))
	}
	return out, err
}

func tokenOf(t store.Token, now time.Time) admin.Token {
	out := admin.Token{
		ID: t.ID, Cluster: t.Cluster, Labels: t.Labels, Approval: admin.ApprovalAuto, State: admin.TokenUnused,
		Created: t.Created, CreatedBy: t.CreatedBy, Expires: t.Expires,
		Used: t.Used, UsedBy: t.UsedBy, Revoked: t.Revoked, RevokedBy: t.RevokedBy,
	}
	if t.Approval {
		out.Approval = admin.ApprovalManual
	}
	switch {
	case !t.Revoked.IsZero():
		out.State = admin.TokenRevoked
	case !t.Used.IsZero():
		out.State = admin.TokenUsed
	case !now.Before(t.Expires):
		out.State = admin.TokenExpired
	}
	return out
}

// RevokeToken implements [admin.Hub].
func (a administration) RevokeToken(_ context.Context, who, id string) (admin.Token, error) {
	token, err := a.s.store.RevokeToken(id, who, time.Now())
	if errors.Is(err, store.ErrTokenUnknown) {
		return admin.Token{}, refuse("revoke token", wire.CodeNotFound, "", "no join token has the id %.64q: culvert token list shows them", id)
	}
	return tokenOf(token, time.Now()), err
}

// ListClusters implements [admin.Hub].
func (a administration) ListClusters(context.Context) ([]admin.Cluster, error) {
	known, err := a.s.store.Clusters()
	if err != nil {
		return nil, err
	}
	waiting, err := a.s.store.AllPending()
	if err != nil {
		return nil, err
	}
	revoked, err := a.s.store.Revocations()
	if err != nil {
		return nil, err
	}
	all := map[string]*admin.Cluster{}
	of := func(name string) *admin.Cluster {
		if all[name] == nil {
			all[name] = &admin.Cluster{Name: name}
		}
		return all[name]
	}
	for _, c := range known {
		addKnown(of(c.Name), c)
	}
	for _, p := range waiting {
		of(p.Cluster).Pending = pendingOf(p)
	}
	for _, r := range revoked {
		of(r.Cluster).Revocation = revocationOf(r)
	}
	for _, agent := range a.s.registry.Agents("") {
		addAgent(of(agent.Cluster), agent)
	}
	out := make([]admin.Cluster, 0, len(all))
	for _, c := range all {
		c.State = stateOf(c)
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y admin.Cluster) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func addKnown(to *admin.Cluster, c store.Cluster) {
	to.Version, to.Joined, to.FirstSeen, to.LastSeen = c.Version, c.Joined, c.FirstSeen, c.LastSeen
	if len(c.Labels)+len(c.TokenLabels) > 0 {
		to.Labels = maps.Clone(c.Labels)
		if to.Labels == nil {
			to.Labels = map[string]string{}
		}
		maps.Copy(to.Labels, c.TokenLabels) // what the hub gave goes before what the agent says
	}
	if c.Direct.URL != "" {
		to.Direct = &admin.Direct{URL: c.Direct.URL, CA: c.Direct.CA}
	}
}

func addAgent(to *admin.Cluster, agent registry.Agent) {
	to.Agents = append(to.Agents, admin.Agent{
		Name: agent.Name, Version: agent.Version, Remote: agent.Remote.String(), Since: agent.Since.UTC(),
		RTT: metav1.Duration{Duration: agent.Stats.RTT}, Sessions: agent.Stats.Sessions,
		Draining: agent.Stats.Draining, KubernetesFailure: agent.KubernetesFailure(),
	})
}

func pendingOf(p store.Pending) *admin.Pending {
	return &admin.Pending{Key: p.Key, Token: p.Token, Remote: p.Remote, Asked: p.Asked, Accepted: p.Accepted, AcceptedBy: p.AcceptedBy}
}

func revocationOf(r store.Revocation) *admin.Revocation {
	return &admin.Revocation{At: r.At, By: r.By, Reason: r.Reason, Restored: r.Restored}
}

func stateOf(c *admin.Cluster) string {
	switch {
	case len(c.Agents) > 0:
		return admin.ClusterConnected
	case c.Pending != nil && c.Pending.Accepted.IsZero():
		return admin.ClusterPending
	case c.Revocation != nil && c.Revocation.Restored.IsZero():
		return admin.ClusterRevoked
	}
	return admin.ClusterAway
}

// GetCluster implements [admin.Hub].
func (a administration) GetCluster(_ context.Context, name string) (admin.Cluster, error) {
	if err := checkCluster("get cluster", name); err != nil {
		return admin.Cluster{}, err
	}
	out := admin.Cluster{Name: name}
	known, found, err := a.s.store.Cluster(name)
	if err != nil {
		return out, err
	}
	if found {
		addKnown(&out, known)
	}
	pending, waits, err := a.s.store.Pending(name)
	if err != nil {
		return out, err
	}
	if waits {
		out.Pending = pendingOf(pending)
	}
	revocation, revoked, err := a.s.store.Revocation(name)
	if err != nil {
		return out, err
	}
	if revoked {
		out.Revocation = revocationOf(revocation)
	}
	certificates, err := a.s.store.Certificates(name)
	if err != nil {
		return out, err
	}
	for _, c := range certificates {
		out.Certificates = append(out.Certificates, admin.Certificate{
			Serial: c.Serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Issued: c.Issued, Token: c.Token, Renews: c.Previous,
		})
	}
	for _, agent := range a.s.registry.Agents(name) {
		addAgent(&out, agent)
	}
	if !found && !waits && !revoked && len(certificates) == 0 && len(out.Agents) == 0 {
		return out, refuse("get cluster", wire.CodeNotFound, name, "no cluster of that name has joined or waits: culvert clusters list shows them")
	}
	out.State = stateOf(&out)
	return out, nil
}

// AcceptCluster implements [admin.Hub].
func (a administration) AcceptCluster(ctx context.Context, who, name string, how admin.Acceptance) (admin.Cluster, error) {
	if err := checkCluster("accept cluster", name); err != nil {
		return admin.Cluster{}, err
	}
	_, err := a.s.store.Accept(name, how.Key, who, time.Now())
	if errors.Is(err, store.ErrNotPending) {
		what := "no agent of it waits to be accepted"
		if how.Key != "" {
			what = "no agent of it with that key waits to be accepted"
		}
		return admin.Cluster{}, refuse("accept cluster", wire.CodeNotFound, name, "%s: culvert clusters list shows those that do", what)
	}
	if err != nil {
		return admin.Cluster{}, err
	}
	return a.GetCluster(ctx, name)
}

// RevokeCluster implements [admin.Hub].
func (a administration) RevokeCluster(_ context.Context, who, name string, why admin.RevokeRequest) (admin.Revoked, error) {
	if err := checkCluster("revoke cluster", name); err != nil {
		return admin.Revoked{}, err
	}
	if len(why.Reason) > maxReason {
		return admin.Revoked{}, refuse("revoke cluster", wire.CodeInvalidTarget, name, "reason: longer than %d bytes", maxReason)
	}
	// On the disk before anything is cut: an agent that comes back is judged by it.
	revocation, err := a.s.store.RevokeCluster(name, who, why.Reason, time.Now())
	if err != nil {
		return admin.Revoked{}, err
	}
	cut := a.s.tunnel.Cut(name, wire.CodeUnauthenticated, (&store.RevokedError{Cluster: name, At: revocation.At, Reason: why.Reason}).Error())
	a.s.log.Warn("cluster revoked", "cluster", name, "who", who, "cut", cut, "why", why.Reason)
	return admin.Revoked{Cluster: name, Revocation: *revocationOf(revocation), Cut: cut}, nil
}

// RestoreCluster implements [admin.Hub].
func (a administration) RestoreCluster(ctx context.Context, who, name string) (admin.Cluster, error) {
	if err := checkCluster("restore cluster", name); err != nil {
		return admin.Cluster{}, err
	}
	_, err := a.s.store.RestoreCluster(name, time.Now())
	if errors.Is(err, store.ErrNotRevoked) {
		return admin.Cluster{}, refuse("restore cluster", wire.CodeNotFound, name, "it is not revoked: culvert clusters list shows those that are")
	}
	if err != nil {
		return admin.Cluster{}, err
	}
	a.s.log.Warn("cluster restored", "cluster", name, "who", who)
	return a.GetCluster(ctx, name)
}

// maxReason bounds what is kept of a reason, in bytes.
const maxReason = 256

// ListAuthorities implements [admin.Hub].
func (a administration) ListAuthorities(context.Context) ([]admin.Authority, error) {
	var out []admin.Authority
	for _, role := range pki.Roles() {
		out = append(out, authorityOf(a.s.trust.authorities[role]))
	}
	return out, nil
}

func authorityOf(authority *pki.Authority) admin.Authority {
	out := admin.Authority{Role: authority.Role(), Signs: authority.CanSign()}
	if files := authority.Status().Files; len(files) > 0 {
		out.File = files[0]
	}
	for i, cert := range authority.Certificates() {
		ca := admin.CA{
			Subject: cert.Subject.String(), Fingerprint: pki.Fingerprint(cert),
			NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		}
		if i == 0 {
			out.Active = ca
		} else {
			out.Trusted = append(out.Trusted, ca)
		}
	}
	return out
}

// RotateAuthority implements [admin.Hub].
func (a administration) RotateAuthority(_ context.Context, who, role string) (admin.Authority, error) {
	authority, err := a.s.trust.authority(role)
	if err != nil {
		return admin.Authority{}, refuse("rotate authority", wire.CodeInvalidTarget, "", "role %.32q: %w", role, err)
	}
	if !authority.CanRotate() {
		return admin.Authority{}, refuse("rotate authority", wire.CodePermissionDenied, "",
			"the %s CA is not the hub's own: its owner replaces the files, the new certificate first and the old one after it", role)
	}
	cert, err := authority.Rotate()
	if err != nil {
		return admin.Authority{}, err
	}
	a.s.log.Warn("certificate authority rotated", "role", role, "who", who, "sha256", pki.Fingerprint(cert),
		"expires", cert.NotAfter.UTC().Format(time.RFC3339), "trusted", len(authority.Certificates()))
	return authorityOf(authority), nil
}

func checkCluster(op, name string) error {
	if err := route.CheckCluster(name); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: op, Code: wire.CodeInvalidTarget, Err: err}
	}
	return nil
}

// refuse makes an error that the administrator sees.
func refuse(op string, code wire.Code, cluster, format string, args ...any) *fault.Error {
	return &fault.Error{Hop: wire.HopHub, Op: op, Code: code, Cluster: cluster, Err: fmt.Errorf(format, args...)}
}

// checkLabels holds labels against the rules of Kubernetes.
func checkLabels(labels map[string]string) error {
	var problems []error
	for key, value := range labels {
		for _, reason := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
			problems = append(problems, fmt.Errorf("labels: %.64q=%.64q: %s", key, value, reason))
		}
	}
	return errors.Join(problems...)
}
