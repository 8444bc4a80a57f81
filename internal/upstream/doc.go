// Package upstream is the agent's side of a request: it decides what the hub may
// reach, dials it, and speaks HTTP to the managed cluster's API server and to
// services.
//
// # Trust
//
// What arrives from the hub is untrusted. Targets are held against the rules of
// package route and the owner's policy, when a session opens and again for each
// request. A rule of the policy that denies wins over all that allow; where no
// rule matches, the allow flags decide, and what they do not have is refused.
//
// The agent's own credential goes to the API server only; with it the API server gets
// no request of the hub's without an identity to impersonate, since that would run as
// the agent itself. The agent's probes ([Probe]) do, and ask for nothing else. Whom the agent acts for is the owner's choice too ([Impersonation]): a
// hub gone bad becomes neither a member of system:masters nor a local
// administrator. The headers that were checked are the ones that are sent.
//
// # Names and addresses
//
// A name is resolved once; what it leads to is decided about, and the connection
// goes to those addresses, so that no later answer of DNS has a part in it.
// Addresses that mean the agent's machine, its neighbours or the cloud's control
// plane ([policy.SpecialAddress], and those that carry IPv4 inside of IPv6) are
// refused unless the owner lists them: for raw addresses by a rule with the
// address or a network inside of their range, for services in
// [Config.SpecialAddresses]. One such address among several refuses the name.
//
// # Usage
//
//	u, err := upstream.New(cfg)
//	err = u.Check(target)             // at OPEN
//	u.Serve(conn, target)             // HTTP: the Kubernetes API or a service
//	conn, err := u.Dial(ctx, target)  // raw bytes: an address
//
// # Limitations
//
// A session with raw bytes does not say who opened it: rules for some users or
// groups allow it to nobody, and deny it to all. It is decided about when it
// opens, and not again.
//
// A rule that allows a port by its name matches requests that use the name, not
// the number. A request by name or without a port is held against rules by number
// with the number that DNS gave, which is asked for every five seconds at most.
//
// A NAT64 prefix of one's own network is not known to be one. Where the DNS of a
// cluster makes such addresses, deny the network in the policy.
package upstream
