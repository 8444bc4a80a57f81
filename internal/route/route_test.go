package route_test

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	const svc = "/edge-1/api/v1/namespaces/default/services/"
	kube := wire.KubernetesAPI()
	long := strings.Repeat("a", 63)
	tests := []struct {
		name, path string
		want       route.Route
	}{
		{"O20: an API path is what follows the cluster", "/edge-1/api/v1/namespaces/default/pods",
			route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/api/v1/namespaces/default/pods"}},
		{"O20: escaped bytes stay as they are", "/edge-1/a%2Fb//c%20d+e%3Af%3a%7e|\u00e9",
			route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/a%2Fb//c%20d+e%3Af%3a%7e|\u00e9"}},
		{"O20: a cluster alone is its root", "/edge-1", route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/"}},
		{"O20: a slash after the cluster is kept", "/edge-1/", route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/"}},
		{"O20: two slashes after the cluster are kept", "/edge-1//x", route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "//x"}},
		{"O20: double escapes are data", "/edge-1/%252e%252e/x", route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/%252e%252e/x"}},
		{"O20: dots within a segment are data", "/edge-1/.../a..b/..a/.a", route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/.../a..b/..a/.a"}},
		{"O20: the longest cluster name", "/" + long + "/x", route.Route{Cluster: long, Target: kube, UpstreamPath: "/x"}},
		{"O20: a cluster name of digits", "/007/x", route.Route{Cluster: "007", Target: kube, UpstreamPath: "/x"}},
		{"O3: the proxy subresource of Kubernetes is an API path", svc + "https:web:443/proxy/x",
			route.Route{Cluster: "edge-1", Target: kube, UpstreamPath: "/api/v1/namespaces/default/services/https:web:443/proxy/x"}},
		{"O21: the scheme defaults to https", svc + "web/proxy-service/a%2Fb",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "", "https"), UpstreamPath: "/a%2Fb"}},
		{"O21: a numeric port", svc + "web:8443/proxy-service/x",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "8443", "https"), UpstreamPath: "/x"}},
		{"O21: a named port and http", svc + "http:web:metrics/proxy-service/x",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "metrics", "http"), UpstreamPath: "/x"}},
		{"O21: a scheme without a port", svc + "http:web/proxy-service/",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "", "http"), UpstreamPath: "/"}},
		{"O21: the Kubernetes spelling of no port", svc + "https:web:/proxy-service/",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "", "https"), UpstreamPath: "/"}},
		{"O21: escaped colons of generated clients", svc + "https%3Aweb%3a8443/proxy-service/",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "8443", "https"), UpstreamPath: "/"}},
		{"O21: no path after proxy-service", svc + "web/proxy-service",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "", "https"), UpstreamPath: "/"}},
		{"O21: two slashes after proxy-service are kept", svc + "web/proxy-service//x",
			route.Route{Cluster: "edge-1", Target: wire.Service("default", "web", "", "https"), UpstreamPath: "//x"}},
		{"the hub's own", "/-/healthz", route.Route{IsOwn: true, Own: "healthz", UpstreamPath: "/-/healthz"}},
		{"the hub's own root", "/-", route.Route{IsOwn: true, UpstreamPath: "/-"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := route.Parse(tt.path)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.path, err)
			}
			if got != tt.want {
				t.Errorf("Parse(%q)\n got %+v\nwant %+v", tt.path, got, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const svc = "/edge-1/api/v1/namespaces/default/services/"
	tests := []struct{ name, path string }{
		{"empty", ""}, {"root", "/"}, {"relative", "edge-1/x"}, {"no cluster", "//edge-1/x"},
		{"upper case cluster", "/Edge-1/x"}, {"dotted cluster", "/edge.1/x"}, {"escaped cluster", "/%65dge-1/x"},
		{"star cluster", "/*/x"}, {"hyphen first", "/-edge/x"}, {"hyphen last", "/edge-/x"}, {"underscore", "/edge_1/x"},
		{"long cluster", "/" + strings.Repeat("a", 64) + "/x"},
		{"dot", "/edge-1/./x"}, {"parent", "/edge-1/../x"}, {"parent last", "/edge-1/x/.."}, {"parent as cluster", "/../x"},
		{"escaped", "/edge-1/%2e%2e/x"}, {"escaped upper", "/edge-1/%2E%2E/x"}, {"half escaped", "/edge-1/.%2e/x"},
		{"half escaped first", "/edge-1/%2E./x"}, {"escaped dot", "/edge-1/%2e/x"},
		{"backslash", `/edge-1/..\x`}, {"backslash after", `/edge-1/x\..`}, {"escaped backslash", "/edge-1/x%5c..%5Cy"},
		{"escaped slash", "/edge-1/x%2f..%2Fy"}, {"escaped slash first", "/edge-1/..%2fy"},
		{"path parameter", "/edge-1/..;/x"}, {"escaped path parameter", "/edge-1/..%3bv=1/x"}, {"dots in own", "/-/../edge-1"},
		{"bad escape", "/edge-1/%zz"}, {"short escape", "/edge-1/%4"}, {"lone percent", "/edge-1/%"},
		{"fragment", "/edge-1/x#y"}, {"space", "/edge-1/x y"}, {"control", "/edge-1/x\x00"}, {"newline", "/edge-1/x\r\ny"}, {"delete", "/edge-1/x\x7f"},
		{"O21: port with a leading zero", svc + "https:web:0443/proxy-service/"},
		{"O21: port zero", svc + "web:0/proxy-service/"}, {"O21: port too large", svc + "web:65536/proxy-service/"},
		{"O21: port signed", svc + "web:+443/proxy-service/"}, {"O21: empty port", svc + "web:/proxy-service/"},
		{"O21: empty service", svc + "/proxy-service/"}, {"O21: empty service with scheme", svc + "https:/proxy-service/"},
		{"O21: empty scheme", svc + ":web:443/proxy-service/"}, {"O21: unknown scheme", svc + "ftp:web:21/proxy-service/"},
		{"O21: four parts", svc + "https:web:443:x/proxy-service/"}, {"O21: upper case service", svc + "Web/proxy-service/"},
		{"O21: upper case scheme", svc + "HTTPS:web:443/proxy-service/"}, {"O21: upper case port", svc + "web:HTTPS/proxy-service/"},
		{"O21: escaped service", svc + "%77eb/proxy-service/"}, {"O21: escaped port", svc + "web:%34%343/proxy-service/"},
		{"O21: dotted service", svc + "web.other/proxy-service/"}, {"O21: escaped slash in service", svc + "web%2Fx/proxy-service/"},
		{"O21: upper case namespace", "/edge-1/api/v1/namespaces/Default/services/web/proxy-service/"},
		{"O21: escaped namespace", "/edge-1/api/v1/namespaces/%64efault/services/web/proxy-service/"},
		{"O21: empty namespace", "/edge-1/api/v1/namespaces//services/web/proxy-service/"},
		{"O21: escaped form", "/edge-1/%61pi/v1/namespaces/default/services/web/proxy-service/"},
		{"O21: escaped proxy-service", svc + "web/proxy%2dservice/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := route.Parse(tt.path)
			if err == nil {
				t.Fatalf("Parse(%q) = %+v, want an error", tt.path, got)
			}
			if f := fault.As(err); f == nil || f.Code != wire.CodeInvalidTarget || f.Hop != wire.HopHub {
				t.Errorf("Parse(%q): %v, want invalid target at the hub", tt.path, err)
			}
		})
	}
}

func TestRequestPath(t *testing.T) {
	tests := []struct{ method, uri, want string }{
		{"GET", "/edge-1/a%2Fb?x=%zz", "/edge-1/a%2Fb"},
		{"GET", "https://hub/edge-1//x|y?z", "/edge-1//x|y"},
		{"GET", "http://hub?x", "/"}, {"GET", "http://hub", "/"},
		{"OPTIONS", "*", ""}, {"CONNECT", "hub:443", ""}, {"GET", "/edge-1/?a b", ""}, {"GET", "/edge-1/?a\x00b", ""},
	}
	for _, tt := range tests {
		got, err := route.RequestPath(&http.Request{Method: tt.method, RequestURI: tt.uri}, wire.HopHub)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s %q: got %q, %v, want %q", tt.method, tt.uri, got, err, tt.want)
		}
	}
}

func TestCheckTarget(t *testing.T) {
	good := []wire.Target{
		wire.KubernetesAPI(), wire.KubernetesTLS(), wire.Service("default", "web", "", ""), wire.Service("default", "web", "8443", "http"),
		wire.Service("default", "web", "metrics", "https"), wire.Address("db.prod.svc", 5432), wire.Address("10.0.0.1", 22),
		wire.Address("fd00::1", 22), wire.Address("_sip.example.org", 1), wire.Address("a1.b2", 1),
	}
	for _, target := range good {
		if err := route.CheckTarget(target); err != nil {
			t.Errorf("CheckTarget(%v): %v", target, err)
		}
	}
	bad := []wire.Target{
		{}, {Kind: 9}, {Kind: wire.TargetKubernetesAPI, Name: "x"}, {Kind: wire.TargetService, Namespace: "a", Name: "b", Host: "c"},
		wire.Service("Default", "web", "", ""), wire.Service("", "web", "", ""), wire.Service("default", "", "", ""),
		wire.Service("default", "web", "0443", ""), wire.Service("default", "web", "", "HTTPS"), wire.Service("default", "web.x", "", ""),
		wire.Address("", 1), wire.Address("db", 0), wire.Address("DB", 1), wire.Address("db.", 1), wire.Address("127.1", 1),
		wire.Address("2130706433", 1), wire.Address("0x7f000001", 1), wire.Address("fe80::1%eth0", 1), wire.Address("FD00::1", 1),
		wire.Address("::ffff:10.0.0.1", 1), wire.Address("[fd00::1]", 1), wire.Address("a/b", 1), wire.Address("a b", 1),
		wire.Address(strings.Repeat("a.", 127)+"a", 1), wire.Address("010.0.0.1", 1), {Kind: wire.TargetAddress, Host: "a", PortNumber: 1, Name: "x"},
	}
	for _, target := range bad {
		if f := fault.As(route.CheckTarget(target)); f == nil || f.Code != wire.CodeInvalidTarget || f.Hop != wire.HopAgent {
			t.Errorf("CheckTarget(%#v): got %v, want invalid target at the agent", target, f)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]wire.Target{
		"DB.Prod.svc.:5432": wire.Address("db.prod.svc", 5432), "[FD00::0:1]:22": wire.Address("fd00::1", 22),
		"10.0.0.1:22": wire.Address("10.0.0.1", 22), "[::ffff:10.0.0.1]:22": wire.Address("10.0.0.1", 22),
	} {
		if got, err := route.ParseAddress(in); err != nil || got != want {
			t.Errorf("ParseAddress(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "db", "db:", ":1", "db:0", "db:01", "db:65536", "db:http", "[fe80::1%1]:1", "127.1:1", "a b:1", "db:+1"} {
		if got, err := route.ParseAddress(in); err == nil {
			t.Errorf("ParseAddress(%q) = %v, want an error", in, got)
		}
	}
}
