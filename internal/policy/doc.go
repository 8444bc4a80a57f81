// Package policy decides who may do what: at the hub for every request and every
// session, and again at the agent for the cluster's owner.
//
// A policy is one YAML file, [Document], whose format docs/policy.md tells.
// [Parse] refuses whatever it does not know, with the path and line of the field.
// [Open] follows a file: a new one that is bad in any way leaves the one before in
// force.
//
// # A decision
//
// [Policy.Decide] is a function of the policy and the request and of nothing
// else: not of the order of rules, of time or of the network. A rule that denies
// wins over all that allow; what no rule matches is decided by the default, under
// which authenticated callers reach the Kubernetes API of every cluster, whose own
// RBAC decides, and nothing else.
//
// # Allow is narrow, deny is wide
//
// Parts of a request may be unknown where a decision is taken: a list names no
// object, a hub knows neither the number of a named port nor the addresses of a
// name. A rule that allows matches only what is known to be within it. A rule that
// denies matches all that may be. So nothing gets through because something was
// not known.
//
// # The hub and the agent
//
// Both read the same format. The agent's [Options] leave out what is the hub's:
// clusters and impersonation. At the agent, decide with [Request.Early] before
// names are resolved and again with the number and addresses that came of it, and
// dial only these.
//
// # Several authorizers
//
// An [Authorizer] may fail, as one that asks another cluster does (package
// review); it then returns an error, and its caller must refuse the request. [All]
// allows what every one of its authorizers allows.
package policy
