// Package identity says who calls the hub, and as whom that caller acts on a
// managed cluster.
//
// It has four parts that a front end uses in this order for each request:
//
//  1. [Chain.Identify] says who sent it. The chain asks, of the client certificate,
//     the static token file, the OIDC issuers of an AuthenticationConfiguration and
//     the hub cluster's TokenReview API, those that are configured, in this order and
//     with the authenticators of k8s.io/apiserver. A token that none of them knows
//     may be left to the managed cluster.
//  2. [Assume] honours the request of a caller to act as another user of the hub
//     (`kubectl --as`), where the one who decides about that says yes, and refuses it
//     otherwise. It is never ignored.
//  3. [Strip] takes every credential and every claim of identity that the client
//     sent off the outgoing headers, in every spelling; [StripTrailer] does so
//     for trailers.
//  4. [Mapper.Map] turns the user into an [Impersonation], and
//     [Impersonation.Apply] writes that as the headers which a kube-apiserver
//     reads (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation).
//     For a caller whose token is left to the managed cluster it is
//     [Caller.Authorization] instead, and never both.
//
// # Errors
//
// What Identify, Assume and Map return is always a *fault.Error of the hub:
//
//   - unauthenticated (401): no credential, a malformed one, or one that a backend
//     refused or that none knows.
//   - unavailable (503): a backend could not judge the token. It is never taken
//     for a refusal, is never cached, and never makes anybody anonymous. The
//     error names the backend.
//   - permission denied (403): the user may not act as another one, or is known but
//     cannot be expressed as an impersonation, for example since the name ends in a
//     space.
//   - invalid target (400): Impersonate fields that cannot be followed.
//   - canceled, deadline exceeded: the request's own context ended.
//
// # Who judges a token
//
// A token that names an issuer of the AuthenticationConfiguration (claim iss) is that
// issuer's alone: its refusal is final, and its failure is nobody else's turn. An API
// server that reviews tokens may trust the same issuer with fewer rules, so that
// asking it next would make the rules of the file worth nothing. This holds for the
// issuer of the reviewing cluster's own service accounts too, should the file have it. The
// format and its rules are kube-apiserver's, and so is what they leave open: a name
// that begins with "system:" is the issuer's to give unless a userValidationRule
// forbids it. Anonymous callers and egress selectors are refused in the file. Keys are
// fetched over verified TLS alone, and what comes is bounded.
//
// A token is left to a managed cluster only when every backend that could know it was
// asked and answered. It stays at the hub, with 401, when it names an issuer of the
// hub, is over, or is one of the hub's cluster: the cluster accepts it for its own
// audience, or the token is signed with a key that the cluster publishes at
// /openid/v1/jwks. It stays with 503 when one of these cannot be told, which includes
// a token file or a configuration of issuers whose newest content is bad.
//
// # Credentials
//
// A token is held for the time of a request only. Caches and the table of static
// tokens hold digests, are bounded in number and time, ask once for many callers with
// one token, and do not let one work past its own end. Errors and logs never contain a
// token, not even one that a failing backend repeats in its answer.
//
// # Reload
//
// The token file and the AuthenticationConfiguration are followed: they are looked at
// once a second while tokens come in, and by [Chain.Reload]. A new file that is bad
// in any way leaves what was before it in force, and is logged once and shown by
// [Chain.Health]. An issuer that is taken out is refused at once; one that stays as it
// was keeps its keys.
//
// # Agents
//
// [ServiceAccounts] judges tokens with which an agent joins the hub instead of a
// join token. They are of no use as a caller's, nor the other way round, when
// their audiences differ.
//
// # What a managed cluster must allow
//
// The agent's service account needs the verb impersonate, and nothing else. RBAC
// has no wildcard for the keys of userextras (userextras/* matches nothing), and
// service account tokens of current Kubernetes carry extra keys such as
// authentication.kubernetes.io/credential-id, so the second rule names all of
// that group; impersonate means nothing for its other resources:
//
//	rules:
//	- apiGroups: [""]
//	  resources: ["users", "groups"]
//	  verbs: ["impersonate"]
//	- apiGroups: ["authentication.k8s.io"]
//	  resources: ["*"]   # uids and userextras/<key>
//	  verbs: ["impersonate"]
//
// "serviceaccounts" is not needed: every name is prefixed, so that a
// kube-apiserver never reads one as a service account of its own.
//
// The hub's own credential on the hub cluster needs to create tokenreviews; the
// ClusterRole system:auth-delegator has that. Where tokens are left to managed clusters
// it also reads the keys of the cluster's service accounts; the ClusterRole
// system:service-account-issuer-discovery has that, and service accounts have the role.
//
// # Limitations
//
// A hub cluster says with the same field,
// TokenReview's status.error, that a token is bad and that it could not be
// checked (by a webhook or OIDC issuer behind that cluster's own API server);
// both count as a refusal. Where tokens are left to managed clusters, configure the
// hub cluster's OIDC issuers here too, so that no token of theirs leaves the hub when
// that cluster cannot check it.
//
// An issuer that was unreachable is asked again every 10 s.
package identity
