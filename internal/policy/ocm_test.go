package policy_test

import (
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/policy"
)

const configMap = `apiVersion: v1
kind: ConfigMap
metadata:
  name: cluster-proxy-exposed-services
  namespace: open-cluster-management-addon
  labels: {a: b}
data:
  services.yaml: |
    - namespace: monitoring
      service: prometheus-k8s
      port: "9091"
      protocol: https
    - namespace: default
      service: web
  more: |
    - {namespace: default, service: web}
    - {namespace: default, service: api, port: 8080, protocol: ""}
  empty: ""
`

func TestImportOCM(t *testing.T) {
	d, err := policy.ImportOCM([]byte(configMap))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(d, policy.Options{Agent: true})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name                          string
		namespace, service, port, via string
		allowed                       bool
	}{
		{"an entry", "monitoring", "prometheus-k8s", "9091", "https", true},
		{"another port", "monitoring", "prometheus-k8s", "9092", "https", false},
		{"another protocol", "monitoring", "prometheus-k8s", "9091", "http", false},
		{"another namespace", "default", "prometheus-k8s", "9091", "https", false},
		{"an entry for all ports and protocols", "default", "web", "1234", "http", true},
		{"an entry of another key", "default", "api", "8080", "http", true},
		{"what is not listed", "default", "db", "5432", "https", false},
	}
	for _, tt := range tests {
		t.Run("K8: "+tt.name, func(t *testing.T) {
			if got := p.Decide(service(tt.namespace, tt.service, tt.port, tt.via, 0)(t)); got.Allowed != tt.allowed {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("K8: the Kubernetes API is not subject to the list", func(t *testing.T) {
		if got := p.Decide(kube("GET", "/api/v1/pods")(t)); !got.Allowed {
			t.Errorf("%+v", got)
		}
	})
	t.Run("K8: the same entry twice is one", func(t *testing.T) {
		if n := len(d.Rules[0].Services); n != 3 {
			t.Errorf("%d: %+v", n, d)
		}
	})
	t.Run("K8: an empty list allows nothing", func(t *testing.T) {
		for _, text := range []string{"[]", "kind: ConfigMap\n", "kind: ConfigMap\ndata: {a: '[]'}\n"} {
			d, err := policy.ImportOCM([]byte(text))
			if err != nil || len(d.Rules) != 0 {
				t.Errorf("%s: %+v, %v", text, d, err)
			}
		}
	})
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "want the ConfigMap cluster-proxy-exposed-services"},
		{"another kind", "kind: Secret\n", `kind: "Secret", want ConfigMap`},
		{"two manifests", configMap + "---\nkind: ConfigMap\n", "a second YAML document"},
		{"no list", "kind: ConfigMap\ndata: {a: 'x: y'}\n", "data.a: want a list"},
		{"broken", "kind: ConfigMap\ndata: {a: '['}\n", "data.a: not valid YAML"},
		{"no namespace", "- {service: web}\n", "entries[0]: namespace and service are required"},
		{"unknown field", "- {namespace: a, service: b, clusters: [c]}\n", "entries[0].clusters: there is no such field, want one of namespace, service, port, protocol"},
		{"a star", "- {namespace: '*', service: b}\n", "entries[0]: has a \"*\", which is no glob in this list"},
		{"another protocol", "- {namespace: a, service: b, protocol: tcp}\n", `scheme: "tcp", want "http" or "https"`},
		{"alias", "- &a {namespace: a, service: b}\n- *a\n", "entries[0]: anchors and aliases are not supported"},
	} {
		t.Run("K8: refused: "+tt.name, func(t *testing.T) {
			if d, err := policy.ImportOCM([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %s", d, err, tt.want)
			}
		})
	}
}
