package route_test

import (
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

func hosts(t testing.TB) *route.Hosts {
	t.Helper()
	h, err := route.NewHosts([]route.HostRule{
		{Name: "kube.example.com", Cluster: "edge-1", Target: wire.KubernetesAPI()},
		{Name: "*.apps.example.com", Cluster: "edge-2", Target: wire.Service("web", "front", "443", "https")},
		{Name: "db.example.com", Cluster: "edge-1", Target: wire.Address("db.prod", 5432), PassThrough: true},
		{Name: "cluster-sealed.edge.example.com", Cluster: "sealed", Target: wire.KubernetesTLS(), PassThrough: true},
	}, route.HostTemplate{Domain: "edge.example.com"}, []string{"hub.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHosts(t *testing.T) {
	h := hosts(t)
	for _, c := range []struct {
		title, name, cluster string
		passThrough          bool
	}{
		{"D19: an exact name", "kube.example.com", "edge-1", false},
		{"D19: in upper case, with the dot of the root", "KUBE.example.COM.", "edge-1", false},
		{"D19: a wildcard", "shop.apps.example.com", "edge-2", false},
		{"D19: a wildcard is one label", "a.b.apps.example.com", "", false},
		{"D19: a wildcard is not its parent", "apps.example.com", "", false},
		{"S3: a name by the template", "cluster-edge-7.edge.example.com", "edge-7", false},
		{"S3: a rule goes before the template", "cluster-sealed.edge.example.com", "sealed", true},
		{"S12: what is no cluster has no name", "cluster--x.edge.example.com", "", false},
		{"S12: another prefix", "node-edge-7.edge.example.com", "", false},
		{"S12: nothing between", "cluster-.edge.example.com", "", false},
		{"S12: another domain", "cluster-edge-7.edge.example.org", "", false},
		{"S12: a longer domain", "cluster-edge-7.edge.example.com.evil.org", "", false},
		{"D20: an unknown name", "hub.example.com", "", false},
		{"D20: an address", "127.0.0.1", "", false},
		{"D20: no name", "", "", false},
	} {
		t.Run(c.title, func(t *testing.T) {
			host, ok := h.Lookup(c.name)
			if ok != (c.cluster != "") || host.Cluster != c.cluster || host.PassThrough != c.passThrough {
				t.Errorf("got %+v, %v", host, ok)
			}
		})
	}
	t.Run("S3: the name of a cluster leads to it", func(t *testing.T) {
		name, ok := h.NameFor("edge-9", false)
		if !ok || name != "cluster-edge-9.edge.example.com" {
			t.Errorf("got %q, %v", name, ok)
		}
		if name, ok := h.NameFor(strings.Repeat("x", 60), false); ok {
			t.Errorf("a label of more than 63 bytes: %q", name)
		}
	})
	t.Run("S3: without a template the rules name a cluster", func(t *testing.T) {
		h, err := route.NewHosts([]route.HostRule{
			{Name: "z.example.com", Cluster: "edge-1", Target: wire.KubernetesAPI()},
			{Name: "b.example.com", Cluster: "edge-1", Target: wire.KubernetesAPI()},
			{Name: "a.example.com", Cluster: "edge-1", Target: wire.Service("default", "web", "", "https")},
			{Name: "tls.example.com", Cluster: "edge-1", Target: wire.KubernetesTLS(), PassThrough: true},
			{Name: "db.example.com", Cluster: "edge-1", Target: wire.Address("db", 5432), PassThrough: true},
			{Name: "*.two.example.com", Cluster: "edge-2", Target: wire.KubernetesAPI()},
			{Name: "edge-3.three.example.com", Cluster: "edge-1", Target: wire.KubernetesAPI()},
			{Name: "*.three.example.com", Cluster: "edge-3", Target: wire.KubernetesAPI()},
		}, route.HostTemplate{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			cluster     string
			passThrough bool
			want        string
		}{
			{"edge-1", false, "b.example.com"}, {"edge-1", true, "tls.example.com"}, {"edge-2", false, "edge-2.two.example.com"},
			{"edge-2", true, ""}, {"edge-3", false, ""}, {"edge-9", false, ""},
		} {
			if got, ok := h.NameFor(c.cluster, c.passThrough); got != c.want || ok != (c.want != "") {
				t.Errorf("%s, pass through %v: %q, %v", c.cluster, c.passThrough, got, ok)
			}
		}
		if got, ok := (*route.Hosts)(nil).NameFor("edge-1", false); ok {
			t.Errorf("no hosts know %q", got)
		}
	})
	for _, c := range []struct {
		title, host, cluster string
		port                 uint16
		target               wire.Target
	}{
		{"N6: a cluster's plain name", "edge-3.edge.example.com", "edge-3", 443, wire.KubernetesTLS()},
		{"N6: its name by the template", "Cluster-edge-3.edge.example.com", "edge-3", 443, wire.KubernetesTLS()},
		{"N6: a name of a rule", "kube.example.com", "edge-1", 443, wire.KubernetesTLS()},
		{"N6: a pass-through rule keeps its target", "db.example.com", "edge-1", 443, wire.Address("db.prod", 5432)},
		{"N6: a service is not reached that way", "shop.apps.example.com", "", 443, wire.Target{}},
		{"N6: another port", "edge-3.edge.example.com", "", 6443, wire.Target{}},
		{"N6: two labels", "a.edge-3.edge.example.com", "", 443, wire.Target{}},
		{"N6: the domain itself", "edge.example.com", "", 443, wire.Target{}},
		{"N6: an address", "127.0.0.1", "", 443, wire.Target{}},
	} {
		t.Run(c.title, func(t *testing.T) {
			cluster, target, ok := h.Proxied(c.host, c.port)
			if ok != (c.cluster != "") || cluster != c.cluster || target != c.target {
				t.Errorf("got %q, %v, %v", cluster, target, ok)
			}
		})
	}
	if got := strings.Join(h.Names(), " "); got != "*.apps.example.com *.edge.example.com kube.example.com" {
		t.Errorf("names of certificates: %s", got)
	}
	if _, ok := (*route.Hosts)(nil).Lookup("x"); ok {
		t.Error("no hosts know a name")
	}
}

func TestHostProblems(t *testing.T) {
	kube := wire.KubernetesAPI()
	for _, c := range []struct {
		title, want string
		rules       []route.HostRule
		template    route.HostTemplate
	}{
		{"D19: twice", `names[1].name: "a.b" is there twice, for the clusters x and y`,
			[]route.HostRule{{Name: "a.b", Cluster: "x", Target: kube}, {Name: "a.b", Cluster: "y", Target: kube}}, route.HostTemplate{}},
		{"D19: a wildcard twice", "is there twice",
			[]route.HostRule{{Name: "*.b", Cluster: "x", Target: kube}, {Name: "*.b", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"S12: another cluster's name", "is by the template the name of the cluster x",
			[]route.HostRule{{Name: "cluster-x.d.e", Cluster: "y", Target: kube}}, route.HostTemplate{Domain: "d.e"}},
		{"D19: the hub's own", "is a name of the hub itself", []route.HostRule{{Name: "hub.example.com", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"an upper-case name", "lower-case", []route.HostRule{{Name: "A.b", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"a port", "lower-case", []route.HostRule{{Name: "a.b:443", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"an address", "is an address", []route.HostRule{{Name: "10.0.0.1", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"a star within", "lower-case", []route.HostRule{{Name: "a*.b", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"a star alone", "name", []route.HostRule{{Name: "*", Cluster: "x", Target: kube}}, route.HostTemplate{}},
		{"no cluster", "names[0].cluster", []route.HostRule{{Name: "a.b", Target: kube}}, route.HostTemplate{}},
		{"requests in closed TLS", "use terminate",
			[]route.HostRule{{Name: "a.b", Cluster: "x", Target: wire.Service("a", "b", "", ""), PassThrough: true}}, route.HostTemplate{}},
		{"a template without a domain", "domain: required", nil, route.HostTemplate{Template: route.DefaultHostTemplate}},
		{"a template without a cluster", "template", nil, route.HostTemplate{Domain: "d.e", Template: "x.{{server}}"}},
		{"a template for another domain", "template", nil, route.HostTemplate{Domain: "d.e", Template: "{{uid}}.evil"}},
		{"an unknown variable", "template", nil, route.HostTemplate{Domain: "d.e", Template: "{{name}}-{{uid}}.{{server}}"}},
		{"a domain with a scheme", "domain", nil, route.HostTemplate{Domain: "https://d.e"}},
	} {
		t.Run(c.title, func(t *testing.T) {
			_, err := route.NewHosts(c.rules, c.template, []string{"hub.example.com"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if h, err := route.NewHosts(nil, route.HostTemplate{}, nil); h != nil || err != nil {
		t.Errorf("nothing configured: %v, %v", h, err)
	}
}

func TestHostName(t *testing.T) {
	for in, want := range map[string]string{
		"a.b": "a.b", "A.B.:443": "a.b", "a.b:": "a.b", "[::1]:443": "::1", "[::1]": "::1", "10.0.0.1:1": "10.0.0.1", "": "",
	} {
		if got := route.HostName(in); got != want {
			t.Errorf("HostName(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzHosts proves that a name means one cluster at most, whatever its spelling.
func FuzzHosts(f *testing.F) {
	for _, seed := range []string{"cluster-a.edge.example.com", "x.apps.example.com", "KUBE.EXAMPLE.COM.", "cluster-.edge.example.com", "::1", "[::1]:443"} {
		f.Add(seed)
	}
	h := hosts(f)
	f.Fuzz(func(t *testing.T, in string) {
		host, ok := h.Lookup(in)
		again, ok2 := h.Lookup(strings.ToUpper(in))
		if isASCII(in) && (ok != ok2 || host != again) {
			t.Fatalf("%q and its upper case differ: %+v, %+v", in, host, again)
		}
		if ok && (route.CheckCluster(host.Cluster) != nil || route.CheckTarget(host.Target) != nil) {
			t.Fatalf("Lookup(%q) = %+v", in, host)
		}
		if cluster, target, ok := h.Proxied(in, 443); ok && (route.CheckCluster(cluster) != nil || route.CheckTarget(target) != nil) {
			t.Fatalf("Proxied(%q) = %q, %v", in, cluster, target)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e })
}
