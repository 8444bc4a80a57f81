package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/wire"
)

// kube, service, tcp and as are requests of alice, who is in dev, to edge-1, which
// has env=prod.
func kube(method, path string) func(testing.TB) policy.Request {
	return func(t testing.TB) policy.Request {
		path, query, _ := strings.Cut(path, "?")
		return sent(t, method, path, query)
	}
}

func base() policy.Request {
	return policy.Request{User: who("alice", "dev"), Cluster: policy.Cluster{Name: "edge-1", Labels: map[string]string{"env": "prod"}}}
}

func service(namespace, name, port, scheme string, number uint16) func(testing.TB) policy.Request {
	return func(testing.TB) policy.Request {
		r := base()
		r.Service = &policy.ServiceTarget{Namespace: namespace, Name: name, Port: port, Scheme: scheme, Number: number}
		return r
	}
}

func tcp(host string, port uint16, addresses ...string) func(testing.TB) policy.Request {
	return func(testing.TB) policy.Request {
		r := base()
		r.TCP = &policy.TCPTarget{Host: host, Port: port}
		for _, a := range addresses {
			r.TCP.Addresses = append(r.TCP.Addresses, netip.MustParseAddr(a))
		}
		return r
	}
}

func as(i policy.Impersonation) func(testing.TB) policy.Request {
	return func(testing.TB) policy.Request {
		r := base()
		r.Impersonate = &i
		return r
	}
}

func sealed(testing.TB) policy.Request {
	r := base()
	r.KubernetesTLS = true
	return r
}

func anything(testing.TB) policy.Request {
	r := base()
	r.Anything = true
	return r
}

func early(of func(testing.TB) policy.Request) func(testing.TB) policy.Request {
	return func(t testing.TB) policy.Request {
		r := of(t)
		r.Early = true
		return r
	}
}

func by(u user.Info, of func(testing.TB) policy.Request) func(testing.TB) policy.Request {
	return func(t testing.TB) policy.Request {
		r := of(t)
		r.User, r.UserUnknown = u, u == nil
		return r
	}
}

func at(c policy.Cluster, of func(testing.TB) policy.Request) func(testing.TB) policy.Request {
	return func(t testing.TB) policy.Request {
		r := of(t)
		r.Cluster = c
		return r
	}
}

// one is a policy of one rule with the rest of its fields.
func one(effect, fields string) string {
	return "rules:\n- {name: one, effect: " + effect + ", " + fields + "}\n"
}

func TestDecide(t *testing.T) {
	const (
		rule    = "one"
		def     = policy.RuleDefault
		invalid = policy.RuleInvalid
	)
	openAll := "- {name: open, effect: allow, tcp: [{hosts: ['*']}, {cidrs: [0.0.0.0/0, '::/0']}], services: [{namespace: '*', name: '*'}]}\n"
	tests := []struct {
		name, policy string
		request      func(testing.TB) policy.Request
		allowed      bool
		rule         string
	}{
		{"V20: without rules the Kubernetes API is left to RBAC", "", kube("GET", "/api/v1/pods"), true, def},
		{"V20: without rules services are denied", "", service("default", "web", "443", "https", 0), false, def},
		{"V20: without rules TCP is denied", "", tcp("db.prod", 5432), false, def},
		{"N9: without rules nobody impersonates", "", as(policy.Impersonation{User: "bob"}), false, def},
		{"V20: default deny denies the Kubernetes API too", "default: deny\n", kube("GET", "/api/v1/pods"), false, def},

		{"users", one("allow", "users: [alice], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"other users", one("allow", "users: [bob], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"case counts", one("allow", "users: [Alice], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"a glob of users", one("allow", "users: ['al*e'], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"groups", one("allow", "groups: [ops, dev], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"a glob of groups", one("allow", "groups: ['d*'], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"users or groups", one("allow", "users: [bob], groups: [dev], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"a user is no group", one("allow", "groups: [alice], services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"no user", one("allow", "services: [{namespace: '*', name: '*'}]"), by(who(""), service("a", "b", "", "", 0)), false, invalid},
		{"anonymous is not everybody", one("allow", "services: [{namespace: '*', name: '*'}]"), by(who(user.Anonymous, user.AllUnauthenticated), service("a", "b", "", "", 0)), false, def},
		{"anonymous is not matched by a glob", one("allow", "users: ['*'], services: [{namespace: '*', name: '*'}]"), by(who(user.Anonymous, user.AllUnauthenticated), service("a", "b", "", "", 0)), false, def},
		{"anonymous has to be named", one("allow", "users: ['system:anonymous'], services: [{namespace: '*', name: '*'}]"), by(who(user.Anonymous, user.AllUnauthenticated), service("a", "b", "", "", 0)), true, rule},
		{"the default is not for anonymous", "", by(who(user.Anonymous, user.AllUnauthenticated), kube("GET", "/api")), false, def},
		{"who is unknown is allowed by rules for all", one("allow", "services: [{namespace: '*', name: '*'}]"), by(nil, service("a", "b", "", "", 0)), true, rule},
		{"who is unknown is not allowed by rules for some", one("allow", "users: ['*'], services: [{namespace: '*', name: '*'}]"), by(nil, service("a", "b", "", "", 0)), false, def},
		{"who is unknown is denied by rules for some", one("deny", "users: [bob], kubernetes: [{}]"), by(nil, kube("GET", "/api")), false, rule},

		{"TLS to the API server is left to the cluster", "", sealed, true, def},
		{"TLS to the API server: default deny", "default: deny\n", sealed, false, def},
		{"TLS to the API server: an entry for everything", "default: deny\n" + one("allow", "kubernetes: [{}]"), sealed, true, rule},
		{"TLS to the API server: all verbs of all resources are not everything", "default: deny\n" + one("allow", "kubernetes: [{verbs: ['*'], resources: ['*']}]"), sealed, false, def},
		{"TLS to the API server: some verbs are not everything", "default: deny\n" + one("allow", "kubernetes: [{verbs: [get]}]"), sealed, false, def},
		{"TLS to the API server: what is denied in part is denied", one("deny", "kubernetes: [{resources: [secrets], namespaces: [kube-system]}]"), sealed, false, rule},
		{"TLS to the API server: denied to others", one("deny", "users: [bob], kubernetes: [{}]"), sealed, true, def},
		{"TLS to the API server: denied on other clusters", one("deny", "clusters: {names: [edge-2]}, kubernetes: [{}]"), sealed, true, def},
		{"TLS to the API server: who is unknown is denied by rules for some", one("deny", "users: [bob], kubernetes: [{verbs: [delete]}]"), by(nil, sealed), false, rule},
		{"TLS to the API server is not for anonymous", "", by(who(user.Anonymous, user.AllUnauthenticated), sealed), false, def},
		{"TLS to the API server and a request are two targets", "", func(t testing.TB) policy.Request {
			r := kube("GET", "/api")(t)
			r.KubernetesTLS = true
			return r
		}, false, invalid},

		{"anything: without rules the Kubernetes API is something", "", anything, true, def},
		{"anything: without rules nothing is for anonymous", "", by(who(user.Anonymous, user.AllUnauthenticated), anything), false, def},
		{"anything: default deny leaves nothing", "default: deny\n", anything, false, def},
		{"anything: a part of the Kubernetes API", "default: deny\n" + one("allow", "kubernetes: [{verbs: [get], resources: [pods], namespaces: [a], names: [b]}]"), anything, true, rule},
		{"anything: one service", "default: deny\n" + one("allow", "services: [{namespace: a, name: b, port: '1', scheme: https}]"), anything, true, rule},
		{"anything: one address", "default: deny\n" + one("allow", "tcp: [{cidrs: [10.0.0.1], ports: ['1']}]"), anything, true, rule},
		{"anything: to impersonate is no target", "default: deny\n" + one("allow", "impersonate: [{users: [bob]}]"), anything, false, def},
		{"anything: for others", "default: deny\n" + one("allow", "users: [bob], tcp: [{hosts: ['*']}]"), anything, false, def},
		{"anything: of other clusters", "default: deny\n" + one("allow", "clusters: {labels: {env: test}}, tcp: [{hosts: ['*']}]"), anything, false, def},
		{"anything: all of the Kubernetes API is denied", one("deny", "kubernetes: [{}]"), anything, false, rule},
		{"anything: a deny that is for all, in part", one("deny", "kubernetes: [{resources: ['*'], verbs: ['*']}]"), anything, true, def},
		{"anything: where the Kubernetes API is denied an address is left", one("deny", "kubernetes: [{}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, true, "two"},
		{"anything: every address is denied", "default: deny\n" + one("deny", "tcp: [{hosts: ['*']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, false, def},
		{"anything: every address is denied by all ports", "default: deny\n" + one("deny", "tcp: [{hosts: ['*'], ports: ['*']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, false, def},
		{"anything: every address is denied by parts of all ports", "default: deny\n" + one("deny", "tcp: [{hosts: ['*'], ports: ['1000-65535', '1-500', '400-999']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, false, def},
		{"anything: one port is left", "default: deny\n" + one("deny", "tcp: [{hosts: ['*'], ports: ['1000-65535', '1-998']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, true, "two"},
		{"anything: every address is denied by its network", "default: deny\n" + one("deny", "tcp: [{cidrs: [0.0.0.0/0, '::/0']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, false, def},
		{"anything: IPv6 is left", "default: deny\n" + one("deny", "tcp: [{cidrs: [0.0.0.0/0]}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, true, "two"},
		{"anything: some addresses are denied", "default: deny\n" + one("deny", "tcp: [{hosts: ['*'], ports: ['22']}]") + "- {name: two, effect: allow, tcp: [{hosts: [db]}]}\n", anything, true, "two"},
		{"anything: every service is denied", "default: deny\n" + one("deny", "services: [{namespace: '*', name: '*'}]") + "- {name: two, effect: allow, services: [{namespace: a, name: b}]}\n", anything, false, def},
		{"anything: one scheme is denied", "default: deny\n" + one("deny", "services: [{namespace: '*', name: '*', scheme: http}]") + "- {name: two, effect: allow, services: [{namespace: a, name: b}]}\n", anything, true, "two"},
		{"anything: who is unknown reaches nothing", "", by(nil, anything), false, invalid},
		{"anything and an address are two targets", "", func(t testing.TB) policy.Request {
			r := tcp("db.prod", 5432)(t)
			r.Anything = true
			return r
		}, false, invalid},

		{"clusters by name", one("allow", "clusters: {names: ['edge-*']}, services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"other clusters", one("allow", "clusters: {names: [edge-2]}, services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"clusters by label", one("allow", "clusters: {labels: {env: 'p*'}}, services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), true, rule},
		{"all labels are wanted", one("allow", "clusters: {labels: {env: prod, region: '*'}}, services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"an absent label is not an empty one", one("allow", "clusters: {labels: {x: ''}}, services: [{namespace: '*', name: '*'}]"), service("a", "b", "", "", 0), false, def},
		{"an empty label", one("allow", "clusters: {labels: {x: ''}}, services: [{namespace: '*', name: '*'}]"), at(policy.Cluster{Name: "e", Labels: map[string]string{"x": ""}}, service("a", "b", "", "", 0)), true, rule},

		{"verbs", one("deny", "kubernetes: [{verbs: [delete]}]"), kube("DELETE", "/api/v1/namespaces/a/pods/b"), false, rule},
		{"other verbs", one("deny", "kubernetes: [{verbs: [delete]}]"), kube("GET", "/api/v1/namespaces/a/pods/b"), true, def},
		{"a collection has a verb of its own", one("deny", "kubernetes: [{verbs: [delete]}]"), kube("DELETE", "/api/v1/namespaces/a/pods"), true, def},
		{"watch by query", one("deny", "kubernetes: [{verbs: [watch]}]"), kube("GET", "/api/v1/pods?x=1&watch=true"), false, rule},
		{"watch by path", one("deny", "kubernetes: [{verbs: [watch]}]"), kube("GET", "/api/v1/watch/pods"), false, rule},
		{"resources", one("deny", "kubernetes: [{resources: [secrets]}]"), kube("GET", "/api/v1/namespaces/a/secrets/b"), false, rule},
		{"the escaped path is the same", one("deny", "kubernetes: [{resources: [secrets]}]"), kube("GET", "/api/v1/namespaces/a/%73ecrets/b"), false, rule},
		{"slashes at the start are the same", one("deny", "kubernetes: [{resources: [secrets]}]"), kube("GET", "//api/v1/secrets"), false, rule},
		{"an escaped slash is one", one("deny", "kubernetes: [{resources: [secrets]}]"), kube("GET", "/api/v1%2Fsecrets"), false, rule},
		{"other groups", one("deny", "kubernetes: [{apiGroups: [apps], resources: [secrets]}]"), kube("GET", "/api/v1/namespaces/a/secrets/b"), true, def},
		{"the core group", one("deny", "kubernetes: [{apiGroups: [''], resources: [secrets]}]"), kube("GET", "/api/v1/namespaces/a/secrets/b"), false, rule},
		{"a named group", one("deny", "kubernetes: [{apiGroups: [apps]}]"), kube("GET", "/apis/apps/v1/deployments"), false, rule},
		{"a subresource", one("deny", "kubernetes: [{resources: [pods/exec]}]"), kube("POST", "/api/v1/namespaces/a/pods/b/exec"), false, rule},
		{"a subresource of all", one("deny", "kubernetes: [{resources: ['*/scale']}]"), kube("PUT", "/apis/apps/v1/namespaces/a/deployments/b/scale"), false, rule},
		{"every subresource", one("deny", "kubernetes: [{resources: ['pods/*']}]"), kube("GET", "/api/v1/namespaces/a/pods/b/log"), false, rule},
		{"every subresource is not the resource", one("deny", "kubernetes: [{resources: ['pods/*']}]"), kube("GET", "/api/v1/namespaces/a/pods/b"), true, def},
		{"all resources", one("deny", "kubernetes: [{resources: ['*']}]"), kube("GET", "/api/v1/namespaces/a/pods/b/log"), false, rule},
		{"all resources are not other paths", one("deny", "kubernetes: [{resources: ['*']}]"), kube("GET", "/metrics"), true, def},
		{"other paths", one("deny", "kubernetes: [{nonResourceURLs: [/metrics, '/debug/*']}]"), kube("GET", "/debug/pprof/heap"), false, rule},
		{"other paths are not resources", one("deny", "kubernetes: [{nonResourceURLs: ['*']}]"), kube("GET", "/api/v1/pods"), true, def},
		{"everything", one("deny", "kubernetes: [{}]"), kube("OPTIONS", "/api/v1/pods"), false, rule},
		{"one entry of several", one("deny", "kubernetes: [{verbs: [get], resources: [pods]}, {verbs: [list], resources: [secrets]}]"), kube("GET", "/api/v1/secrets"), false, rule},
		{"entries are not mixed", one("deny", "kubernetes: [{verbs: [get], resources: [pods]}, {verbs: [list], resources: [secrets]}]"), kube("GET", "/api/v1/namespaces/a/secrets/b"), true, def},

		{"an allow of a resource is not of its subresources", "default: deny\n" + one("allow", "kubernetes: [{resources: [pods]}]"), kube("GET", "/api/v1/namespaces/a/pods/b/log"), false, def},
		{"an allow of a namespace is not of all", "default: deny\n" + one("allow", "kubernetes: [{namespaces: [a]}]"), kube("GET", "/api/v1/pods"), false, def},
		{"an allow of a name is not of a list", "default: deny\n" + one("allow", "kubernetes: [{names: [b]}]"), kube("GET", "/api/v1/namespaces/a/pods"), false, def},
		{"an allow of a name is of a list of it", "default: deny\n" + one("allow", "kubernetes: [{names: [b]}]"), kube("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db"), true, rule},
		{"an allow of a namespace", "default: deny\n" + one("allow", "kubernetes: [{namespaces: [a]}]"), kube("GET", "/api/v1/namespaces/a/pods"), true, rule},
		{"a deny of a resource is of its subresources", one("deny", "kubernetes: [{resources: [pods]}]"), kube("GET", "/api/v1/namespaces/a/pods/b/status"), false, rule},
		{"a deny of a namespace is of all", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/api/v1/secrets"), false, rule},
		{"a deny of a namespace is of all by selector", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/api/v1/secrets?fieldSelector=metadata.name%3Db"), false, rule},
		{"a deny of a namespace is of no other", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/api/v1/namespaces/a/secrets"), true, def},
		{"a deny of a namespace is not of nodes", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/api/v1/nodes"), true, def},
		{"a deny of a namespace is not of clusterroles", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"), true, def},
		{"a deny of a namespace is of all of what is not known", one("deny", "kubernetes: [{namespaces: [kube-system]}]"), kube("GET", "/apis/example.com/v1/things"), false, rule},
		{"a deny of a name is of a list", one("deny", "kubernetes: [{resources: [secrets], names: [root]}]"), kube("GET", "/api/v1/namespaces/a/secrets"), false, rule},
		{"a deny of a name is of no other", one("deny", "kubernetes: [{resources: [secrets], names: [root]}]"), kube("GET", "/api/v1/namespaces/a/secrets/b"), true, def},

		{"K8: a service", one("allow", "services: [{namespace: default, name: web, port: 8443, scheme: https}]"), service("default", "web", "8443", "https", 0), true, rule},
		{"K8: another port", one("allow", "services: [{namespace: default, name: web, port: 8443}]"), service("default", "web", "443", "https", 0), false, def},
		{"K8: another scheme", one("allow", "services: [{namespace: default, name: web, scheme: https}]"), service("default", "web", "443", "http", 0), false, def},
		{"K8: another namespace", one("allow", "services: [{namespace: default, name: web}]"), service("kube-system", "web", "443", "https", 0), false, def},
		{"K8: globs", one("allow", "services: [{namespace: 'team-*', name: '*-web'}]"), service("team-a", "the-web", "443", "https", 0), true, rule},
		{"K8: a name of a port", one("allow", "services: [{namespace: '*', name: '*', port: metrics}]"), service("a", "b", "metrics", "http", 0), true, rule},
		{"K8: the number of a named port, not known", one("allow", "services: [{namespace: '*', name: '*', port: 9090}]"), service("a", "b", "metrics", "http", 0), false, def},
		{"K8: the number of a named port, known", one("allow", "services: [{namespace: '*', name: '*', port: 9090}]"), service("a", "b", "metrics", "http", 9090), true, rule},
		{"K8: the number of a named port, another", one("allow", "services: [{namespace: '*', name: '*', port: 9090}]"), service("a", "b", "metrics", "http", 9091), false, def},
		{"K8: the number of a named port, early", one("allow", "services: [{namespace: '*', name: '*', port: 9090}]"), early(service("a", "b", "metrics", "http", 0)), true, rule},
		{"K8: a port that may be the denied one", "rules:\n- {name: one, effect: deny, services: [{namespace: '*', name: '*', port: 9090}]}\n" + openAll, service("a", "b", "", "http", 0), false, rule},
		{"K8: a port that is not the denied one", "rules:\n- {name: one, effect: deny, services: [{namespace: '*', name: '*', port: 9090}]}\n" + openAll, service("a", "b", "x", "http", 9091), true, "open"},
		{"K8: a port that may be the denied one, early", "rules:\n- {name: one, effect: deny, services: [{namespace: '*', name: '*', port: 9090}]}\n" + openAll, early(service("a", "b", "", "http", 0)), true, "open"},
		{"another spelling of a port", one("allow", "services: [{namespace: '*', name: '*'}]"), service("a", "b", "0443", "https", 0), false, invalid},
		{"another spelling of a name", one("allow", "services: [{namespace: '*', name: '*'}]"), service("a", "B", "443", "https", 0), false, invalid},
		{"two numbers of a port", one("allow", "services: [{namespace: '*', name: '*'}]"), service("a", "b", "443", "https", 80), false, invalid},

		{"N8: a host", one("allow", "tcp: [{hosts: [db.prod], ports: [5432]}]"), tcp("db.prod", 5432, "10.0.0.5"), true, rule},
		{"N8: another port", one("allow", "tcp: [{hosts: [db.prod], ports: [5432]}]"), tcp("db.prod", 22, "10.0.0.5"), false, def},
		{"N8: a range of ports", one("allow", "tcp: [{hosts: ['*'], ports: [5900-6923]}]"), tcp("db.prod", 6000), true, rule},
		{"N8: a set of ports", one("allow", "tcp: [{hosts: ['*'], ports: [safe]}]"), tcp("db.prod", 22), false, def},
		{"N8: a glob of hosts", one("allow", "tcp: [{hosts: ['*.prod']}]"), tcp("db.prod", 22), true, rule},
		{"N8: a glob of hosts is for names", one("allow", "tcp: [{hosts: ['*a*']}]"), tcp("fd00::a", 22), false, def},
		{"N8: all hosts are addresses too", one("allow", "tcp: [{hosts: ['*']}]"), tcp("fd00::a", 22), true, rule},
		{"N8: a network", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), tcp("10.1.2.3", 22), true, rule},
		{"N8: a name in a network", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), tcp("db", 22, "10.1.2.3"), true, rule},
		{"N8: a name with one address outside", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), tcp("db", 22, "10.1.2.3", "11.1.2.3"), false, def},
		{"N8: a name that the hub does not resolve", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), tcp("db", 22), false, def},
		{"N8: a name, early", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), early(tcp("db", 22)), true, rule},
		{"N8: host and network", one("allow", "tcp: [{hosts: [db], cidrs: [10.0.0.0/8]}]"), tcp("web", 22, "10.1.2.3"), false, def},
		{"N8: mapped IPv4 is IPv4", one("allow", "tcp: [{cidrs: [10.0.0.0/8]}]"), tcp("db", 22, "::ffff:10.1.2.3"), true, rule},
		{"N8: a denied network", "rules:\n- {name: one, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n" + openAll, tcp("db", 22, "11.0.0.1", "10.1.2.3"), false, rule},
		{"N8: a denied network through NAT64", "rules:\n- {name: one, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n" + openAll, tcp("db", 22, "64:ff9b::10.1.2.3"), false, rule},
		{"N8: a denied network through 6to4", "rules:\n- {name: one, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n" + openAll, tcp("db", 22, "2002:a01:203::1"), false, rule},
		{"N8: a name that may be in a denied network", "rules:\n- {name: one, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n" + openAll, tcp("db", 22), false, rule},
		{"N8: a name that may be in a denied network, early", "rules:\n- {name: one, effect: deny, tcp: [{cidrs: [10.0.0.0/8]}]}\n" + openAll, early(tcp("db", 22)), true, "open"},
		{"N8: loopback is not in everything", "rules:\n" + openAll, tcp("127.0.0.1", 22), false, def},
		{"N8: a name that leads to loopback", "rules:\n" + openAll, tcp("db", 22, "127.0.0.1"), false, def},
		{"N8: a name that leads to loopback beside", "rules:\n" + openAll, tcp("db", 22, "10.0.0.1", "::1"), false, def},
		{"N8: a name that is listed and leads to metadata", one("allow", "tcp: [{hosts: [db]}]"), tcp("db", 22, "169.254.169.254"), false, def},
		{"N8: metadata is listed by its address", one("allow", "tcp: [{cidrs: [169.254.169.254]}]"), tcp("169.254.169.254", 80), true, rule},
		{"N8: metadata is not listed by link-local", one("allow", "tcp: [{cidrs: [169.254.0.0/16]}]"), tcp("169.254.169.254", 80), false, def},
		{"N8: link-local is listed by its range", one("allow", "tcp: [{cidrs: [169.254.0.0/16]}]"), tcp("169.254.1.1", 80), true, rule},
		{"N8: loopback is listed within its range", one("allow", "tcp: [{cidrs: [127.0.0.0/30]}]"), tcp("127.0.0.1", 80), true, rule},
		{"N8: metadata through NAT64", "rules:\n" + openAll, tcp("64:ff9b::a9fe:a9fe", 80), false, def},
		{"N8: localhost", "rules:\n" + openAll, tcp("localhost", 80), false, def},
		{"N8: localhost that is listed", one("allow", "tcp: [{hosts: [localhost]}]"), tcp("localhost", 80, "127.0.0.1", "::1"), true, rule},
		{"N8: localhost that is listed and leads elsewhere", one("allow", "tcp: [{hosts: [localhost]}]"), tcp("localhost", 80, "169.254.169.254"), false, def},
		{"N8: another spelling of an address", "rules:\n" + openAll, tcp("::ffff:10.0.0.1", 80), false, invalid},
		{"N8: another spelling of a name", "rules:\n" + openAll, tcp("DB.", 80), false, invalid},
		{"N8: no port", "rules:\n" + openAll, tcp("db", 0), false, invalid},

		{"N9: a user", one("allow", "impersonate: [{users: [bob]}]"), as(policy.Impersonation{User: "bob"}), true, rule},
		{"N9: another user", one("allow", "impersonate: [{users: [bob]}]"), as(policy.Impersonation{User: "root"}), false, def},
		{"N9: a user with a group that is not allowed", one("allow", "impersonate: [{users: [bob]}]"), as(policy.Impersonation{User: "bob", Groups: []string{"ops"}}), false, def},
		{"N9: a user with a group", one("allow", "impersonate: [{users: [bob]}, {groups: ['o*']}]"), as(policy.Impersonation{User: "bob", Groups: []string{"ops"}}), true, rule},
		{"N9: two groups, one of them allowed", one("allow", "impersonate: [{users: [bob], groups: [ops]}]"), as(policy.Impersonation{User: "bob", Groups: []string{"ops", "root"}}), false, def},
		{"N9: UID and extra", one("allow", "impersonate: [{users: [bob], uids: ['*'], extraKeys: [scopes]}]"), as(policy.Impersonation{User: "bob", UID: "7", ExtraKeys: []string{"scopes"}}), true, rule},
		{"N9: UID is not a user", one("allow", "impersonate: [{users: ['*']}]"), as(policy.Impersonation{User: "bob", UID: "7"}), false, def},
		{"N9: a denied group denies the whole", "rules:\n- {name: open, effect: allow, impersonate: [{users: ['*'], groups: ['*']}]}\n- {name: one, effect: deny, impersonate: [{groups: ['system:*']}]}\n", as(policy.Impersonation{User: "bob", Groups: []string{"ops", "system:masters"}}), false, rule},
		{"N9: nobody", one("allow", "impersonate: [{users: ['*']}]"), as(policy.Impersonation{}), false, invalid},
		{"N9: by who is unknown", one("allow", "impersonate: [{users: ['*']}]"), by(nil, as(policy.Impersonation{User: "bob"})), false, invalid},

		{"a deny wins", "rules:\n- {name: a, effect: allow, services: [{namespace: '*', name: '*'}]}\n- {name: one, effect: deny, users: [alice], services: [{namespace: a, name: b}]}\n", service("a", "b", "", "", 0), false, rule},
		{"nothing asked", "", func(testing.TB) policy.Request { return base() }, false, invalid},
		{"two things asked", "rules:\n" + openAll, func(t testing.TB) policy.Request {
			r := service("a", "b", "", "", 0)(t)
			r.TCP = tcp("db", 1)(t).TCP
			return r
		}, false, invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parse(t, tt.policy)
			r := tt.request(t)
			got := p.Decide(r)
			if got.Allowed != tt.allowed || got.Rule != tt.rule || got.Reason == "" {
				t.Errorf("got %+v, want allowed %v by %s\n%+v", got, tt.allowed, tt.rule, p.Explain(r).Rules)
			}
		})
	}
}

func TestZero(t *testing.T) {
	t.Run("no policy denies", func(t *testing.T) {
		if d := (*policy.Policy)(nil).Decide(base()); d.Allowed || d.Rule != policy.RuleInvalid {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a request without a user is denied", func(t *testing.T) {
		r := kube("GET", "/api")(t)
		r.User = nil
		if d := parse(t, "").Decide(r); d.Allowed {
			t.Errorf("%+v", d)
		}
	})
	t.Run("targets become requests", func(t *testing.T) {
		var r policy.Request
		if err := r.SetTarget(wire.Service("a", "b", "1", "http")); err != nil || *r.Service != (policy.ServiceTarget{Namespace: "a", Name: "b", Port: "1", Scheme: "http"}) {
			t.Error(r.Service, err)
		}
		if err := r.SetTarget(wire.Address("db", 1)); err != nil || r.TCP.Host != "db" || r.TCP.Port != 1 {
			t.Error(r.TCP, err)
		}
		if err := r.SetTarget(wire.KubernetesAPI()); err == nil {
			t.Error("the Kubernetes API became one without a path")
		}
	})
}

func TestReasons(t *testing.T) {
	p := parse(t, "rules:\n- {name: keep-out, effect: deny, kubernetes: [{namespaces: [kube-system]}]}\n")
	t.Run("a denied caller is told the rule and what is not obvious", func(t *testing.T) {
		got := p.Decide(kube("GET", "/api/v1/secrets")(t)).Reason
		if want := `rule "keep-out" of the policy denies it: a request for all namespaces includes those that it names`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("and not more", func(t *testing.T) {
		got := p.Decide(kube("GET", "/api/v1/namespaces/kube-system/secrets")(t)).Reason
		if want := `rule "keep-out" of the policy denies it`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("N9: of several parts always the same", func(t *testing.T) {
		p := parse(t, one("allow", "impersonate: [{users: [bob]}]"))
		a := p.Decide(as(policy.Impersonation{User: "bob", ExtraKeys: []string{"y", "x"}})(t))
		if b := p.Decide(as(policy.Impersonation{User: "bob", ExtraKeys: []string{"x", "y"}})(t)); a != b {
			t.Errorf("%+v and %+v", a, b)
		}
	})
	t.Run("N9: of an impersonation, the part", func(t *testing.T) {
		got := p.Decide(as(policy.Impersonation{User: "bob\n"})(t)).Reason
		if want := `no rule of the policy allows this impersonation: user "bob\n"`; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
