package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// hubPolicy lets boss act as ada in group dev and ada reach one service, and
// denies secrets to everybody and everything to eve.
const hubPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: no-secrets
  effect: deny
  kubernetes: [{resources: [secrets, secrets/*]}]
- name: not-eve
  effect: deny
  users: [eve]
  kubernetes: [{verbs: ["*"]}]
- name: bosses-act
  effect: allow
  groups: [bosses]
  impersonate: [{users: [ada], groups: [dev], uids: [lent-uid]}]
- name: shop
  effect: allow
  users: [ada]
  clusters: {names: [managed]}
  services: [{namespace: shop, name: web, port: "8443"}, {namespace: shop, name: hidden}]
`

// authenticationConfiguration is kube-apiserver's
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration),
// with two providers and, as a third, a real API server as the issuer of its
// service accounts' tokens.
const authenticationConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [culvert]
    certificateAuthority: |
%s
  claimValidationRules:
  - expression: claims.email_verified == true
    message: the address is not verified
  claimMappings:
    username: {expression: '"oidc:" + claims.email'}
    groups: {expression: claims.teams}
    uid: {claim: sub}
    extra: [{key: example.com/subject, valueExpression: claims.sub}]
- issuer:
    url: %s
    audiences: [culvert]
    certificateAuthority: |
%s
  claimMappings:
    username: {claim: sub, prefix: "late:"}
    groups: {claim: teams, prefix: ""}
- issuer:
    url: %s
    discoveryURL: https://%s/.well-known/openid-configuration
    audiences: [culvert-workloads]
    certificateAuthority: |
%s
  claimMappings:
    username: {claim: sub, prefix: "managed:"}
`

// authenticationFile and policyFile are of the hub "main", which follows them.
func authenticationFile() string { return filepath.Join(testbed.Dir(), "authentication.yaml") }
func policyFile() string         { return filepath.Join(testbed.Dir(), "policy.yaml") }

// startHub starts the hub "main" with every source of identity.
func (w *world) startHub(ctx context.Context) error {
	reviewer, err := w.hubCluster.ReviewerKubeconfig(ctx)
	if err != nil {
		return err
	}
	token, err := tokenOf(reviewer)
	if err != nil {
		return err
	}
	w.plant("the hub's own token", token)
	if err := w.startRobot(ctx); err != nil {
		return err
	}
	tokens, users := filepath.Join(testbed.Dir(), "tokens.csv"), filepath.Join(testbed.Dir(), "users.crt")
	err = errors.Join(
		os.WriteFile(tokens, w.tokenFile(), 0o600),
		os.WriteFile(users, w.users.pem, 0o600),
		os.WriteFile(policyFile(), []byte(hubPolicy), 0o600),
		os.WriteFile(authenticationFile(), w.authentication(), 0o600))
	if err != nil {
		return err
	}
	w.hub, err = newHub(ctx, "main", fmt.Sprintf(`tokenFile: %s
tokenReview: {kubeconfig: %s}
authenticationConfig: %s
tls: {clientCA: %s}
passThrough: {clusters: [open, recorder]}
policy: {file: %s}
audit: {interval: 1s, file: {path: %s}}
telemetry: {otlpEndpoint: %s}
`, tokens, reviewer, authenticationFile(), users, policyFile(), auditFile(), w.traces.HTTP))
	return err
}

// tokenFile is the text of the hub's list of static tokens.
func (w *world) tokenFile() []byte {
	return fmt.Appendf(nil, "%s,ada,ada-uid,\"dev\"\n%s,boss,boss-uid,\"bosses\"\n%s,root,root-uid,\"system:masters,ops\"\n%s,eve,eve-uid,\"dev\"\n", w.ada, w.boss, w.root, w.eve)
}

// authentication is the text of authenticationConfiguration.
func (w *world) authentication() []byte {
	indent := func(pem []byte) string {
		return "      " + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n      ")
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(w.managed.URL, "https://"), ":")
	return fmt.Appendf(nil, authenticationConfiguration, w.good.issuer, indent(w.good.ca), w.late.issuer, indent(w.late.ca),
		managedIssuer, issuerAddress.String()+":"+port, indent(w.managed.AdminContext().CA))
}

// startRobot makes a service account of the hub's cluster, with a good token.
func (w *world) startRobot(ctx context.Context) error {
	err := w.hubCluster.Apply(ctx, "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n")
	if err == nil {
		w.robot, err = serviceAccount(ctx, w.hubCluster, "team", "robot")
	}
	return err
}

// agentPolicy is that of the managed cluster's owner.
const agentPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: shop
  effect: allow
  services: [{namespace: shop, name: web, port: "8443"}]
`

// agentPolicyFile is of the agent of cluster managed, which follows it.
func agentPolicyFile() string { return filepath.Join(testbed.Dir(), "agent-policy.yaml") }

// agentConfiguration is the text of an agent's configuration file.
func (w *world) agentConfiguration(cluster string) string {
	text := fmt.Sprintf("telemetry: {otlpEndpoint: %s}\n", w.traces.HTTP)
	switch cluster {
	case "managed":
		return text + fmt.Sprintf("policy: %s\ndnsServer: %s\nserviceCA: %s\nmetricsListen: %s\n", agentPolicyFile(), testbed.DNSAddress, w.shop.caFile, w.agentMetrics.Addr())
	default:
		return text + "passThrough: true\n"
	}
}
