// Package identity says who calls the hub, and as whom that caller acts on a
// managed cluster.
//
// It has three parts that a front end uses in this order for each request:
//
//  1. [Chain.Authenticate] turns the bearer token of a request into a user. The
//     chain asks a static token file first and the hub cluster's TokenReview API
//     second, with the authenticators of k8s.io/apiserver. A request without a
//     token may be its connection's client certificate's.
//  2. [Strip] takes every credential and every claim of identity that the client
//     sent off the outgoing headers, in every spelling; [StripTrailer] does so
//     for trailers.
//  3. [Mapper.Map] turns the user into an [Impersonation], and
//     [Impersonation.Apply] writes that as the headers which a kube-apiserver
//     reads (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation).
//
// # Errors
//
// What Authenticate and Map return is always a *fault.Error of the hub:
//
//   - unauthenticated (401): no credential, a malformed one, or one that every
//     backend refused.
//   - unavailable (503): a backend could not judge the token. It is never taken
//     for a refusal, is never cached, and never makes anybody anonymous. The
//     error names the backend.
//   - permission denied (403): the user is known but cannot be expressed as an
//     impersonation, for example since the name ends in a space.
//   - canceled, deadline exceeded: the request's own context ended.
//
// # Credentials
//
// A token is held for the time of a request only. Caches and the table of static
// tokens hold digests. Errors and logs never contain a token, not even one that a
// failing backend repeats in its answer.
//
// # Reload
//
// The token file is followed: it is looked at once a second while tokens come in,
// and by [Chain.Reload]. A new file that is bad in any way leaves the tokens
// before it in force, and is logged once and shown by [Chain.Health].
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
// ClusterRole system:auth-delegator has that.
//
// # Limitations
//
// A hub cluster says with the same field,
// TokenReview's status.error, that a token is bad and that it could not be
// checked (by a webhook or OIDC issuer behind that cluster's own API server);
// both count as a refusal.
package identity
