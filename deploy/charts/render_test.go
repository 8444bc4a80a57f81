package charts

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// Values that each chart needs.
var base = map[string]string{
	Hub:   "hub: {publicHost: hub.example.com}",
	Agent: "join: {token: culvert-join.eyJ2IjoxfQ.c3Vt}",
}

// merged reads YAML texts of values, of which a later one wins.
func merged(t *testing.T, texts ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, text := range texts {
		values := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(text), &values); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		all = loader.MergeMaps(all, values)
	}
	return all
}

// render renders a chart into the namespace "there".
func render(t *testing.T, chart string, texts ...string) *Rendered {
	t.Helper()
	rendered, err := Render(chart, Options{Namespace: "there", Values: merged(t, texts...)})
	if err != nil {
		t.Fatalf("%s: %q: %v", chart, texts, err)
	}
	return rendered
}

// ofKind joins the objects of one kind.
func ofKind(t *testing.T, r *Rendered, kind string) string {
	t.Helper()
	var all []string
	for _, manifest := range r.Manifests {
		var object struct {
			Kind string `json:"kind"`
		}
		var strict map[string]any
		if err := errors.Join(yaml.UnmarshalStrict([]byte(manifest), &strict), yaml.Unmarshal([]byte(manifest), &object)); err != nil {
			t.Fatalf("%v in:\n%s", err, manifest)
		}
		if object.Kind == kind {
			all = append(all, manifest)
		}
	}
	return strings.Join(all, "\n---\n") + "\n"
}

func TestEveryValue(t *testing.T) {
	for chart, cases := range map[string][]valueCase{Hub: hubCases, Agent: agentCases} {
		t.Run("K12: every value of "+chart+" does what it says", func(t *testing.T) {
			tested := map[string]bool{}
			without := map[string]*Rendered{} // by what is needed
			for _, c := range cases {
				tested[c.path] = true
				if without[c.needs] == nil {
					without[c.needs] = render(t, chart, base[chart], c.needs)
				}
				before := ofKind(t, without[c.needs], c.kind)
				after := ofKind(t, render(t, chart, base[chart], c.needs, c.values), c.kind)
				if c.gone {
					before, after = after, before
				}
				if strings.Contains(before, c.has) || !strings.Contains(after, c.has) {
					t.Errorf("%s: %s: want %q of the value alone in %s:\n%s\nwithout it:\n%s", c.path, c.values, c.has, c.kind, after, before)
				}
			}
			for _, v := range Leaves(valuesOf(t, chart)) {
				if !tested[v.Path] {
					t.Errorf("no case renders %s", v.Path)
				}
				delete(tested, v.Path)
			}
			for path := range tested {
				t.Errorf("there is no value %s", path)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, chart, values string
		says                []string
	}{
		{"nothing", Hub, "hub: {publicHost: null}", []string{"hub.publicHost"}},
		{"no host", Hub, `hub: {publicHost: ""}`, []string{"hub.publicHost: required", "such as hub.example.com"}},
		{"P8: a scheme", Hub, `hub: {publicHost: "https://hub.example.com"}`, []string{`hub.publicHost: "https://hub.example.com" has a scheme`, `"hub.example.com"`, "certificates, DNS and join tokens"}},
		{"P8: a scheme in Palette's block", Hub, `{hub: {publicHost: ""}, frps: {frps: {frpHostURL: "https://frps.example.com"}}}`, []string{`frps.frps.frpHostURL: "https://frps.example.com" has a scheme`}},
		{"a path", Hub, "hub: {publicHost: hub.example.com/x}", []string{"hub.publicHost", "more than a host"}},
		{"a port", Hub, `hub: {publicHost: "hub.example.com:443"}`, []string{"hub.publicHost", "has a port", "service.port"}},
		{"no name", Hub, `hub: {publicHost: "hub_1"}`, []string{"hub.publicHost", "is no host name"}},
		{"two names", Hub, `frps: {frps: {frpHostURL: other.example.com}}`, []string{`"hub.example.com" and "other.example.com" differ`}},
		{"an address with a scheme", Hub, `hub: {publicAddress: "https://hub.example.com:443"}`, []string{"hub.publicAddress", "has a scheme"}},
		{"an address without a port", Hub, `hub: {publicAddress: "hub.example.com"}`, []string{"hub.publicAddress", "has no port"}},
		{"an unknown value", Hub, "persist: {size: 1Gi}", []string{"values", "persist"}},
		{"an unknown value inside", Hub, "service: {typ: NodePort}", []string{"service: additional properties 'typ' not allowed"}},
		{"a type of Service", Hub, "service: {type: Nodeport}", []string{"service.type: value must be one of 'ClusterIP', 'NodePort', 'LoadBalancer'"}},
		{"a text for a number", Hub, "service: {port: https}", []string{"service.port: got string, want integer"}},
		{"a port too far", Hub, "service: {port: 65536}", []string{"service.port: maximum: got 65,536, want 65,535"}},
		{"a text for a list", Hub, "admins: {users: alice}", []string{"admins.users: got string, want array"}},
		{"several at once", Hub, "{image: {pullPolicy: never}, hub: {publicHost: x, logLevel: loud}}", []string{"image.pullPolicy: value must be one of", "hub.logLevel: value must be one of"}},
		{"a digest", Hub, `image: {digest: "sha256:1"}`, []string{"image.digest: 'sha256:1' does not match pattern"}},
		{"an account that is incomplete", Hub, "enrolment: {serviceAccounts: [{audience: a}]}", []string{"enrolment.serviceAccounts.0: missing properties 'namespace', 'name', 'cluster'"}},
		{"accounts without a review", Hub, "{callers: {tokenReview: {enabled: false}, tokenFile: {secretName: t}}, enrolment: {serviceAccounts: [{audience: a, namespace: agents, name: m, cluster: c}]}}", []string{"enrolment.serviceAccounts: needs callers.tokenReview.enabled"}},
		{"no callers", Hub, "callers: {tokenReview: {enabled: false}}", []string{"callers: nobody may call"}},
		{"two certificates", Hub, "tls: {secretName: a, certManager: {enabled: true}}", []string{"tls.secretName, tls.certManager.enabled: the serving certificate comes from one place"}},
		{"a certificate alone", Hub, `hub: {tls: {crt: "-----BEGIN CERTIFICATE-----"}}`, []string{"hub.tls.crt, hub.tls.key: give both"}},
		{"a CA alone", Hub, `hub: {ca: {crt: "-----BEGIN CERTIFICATE-----"}}`, []string{"hub.ca.crt: without hub.tls.crt"}},
		{"a certificate that is none", Hub, "hub: {tls: {crt: aGVsbG8=, key: aGVsbG8=}}", []string{"hub.tls.crt: neither PEM nor base64 of PEM"}},
		{"two policies", Hub, "policy: {document: {kind: Policy}, configMapName: a}", []string{"policy.document, policy.configMapName: give one of them"}},
		{"services that cannot be refused", Hub, "{serviceProxy: {enabled: false}, policy: {configMapName: a}}", []string{"serviceProxy.enabled", "policy.configMapName"}},
		{"a node port of no type", Hub, "service: {type: ClusterIP, nodePort: 30443}", []string{"service.nodePort: only with service.type"}},
		{"a node port for agents of no type", Hub, "service: {agent: {nodePort: 30091}}", []string{"service.agent.nodePort: only with a service.agent.type other than None"}},
		{"a traffic policy of no type", Hub, "service: {type: ClusterIP, externalTrafficPolicy: Local}", []string{"service.externalTrafficPolicy: only with service.type NodePort or LoadBalancer"}},
		{"a load balancer's class without one", Hub, "service: {type: NodePort, loadBalancerClass: x}", []string{"service.loadBalancerClass: only with service.type LoadBalancer"}},
		{"networks of no load balancer", Hub, "service: {agent: {type: NodePort, loadBalancerSourceRanges: [192.0.2.0/24]}}", []string{"service.agent.loadBalancerSourceRanges: only with service.agent.type LoadBalancer"}},
		{"an Ingress for an address", Hub, "{hub: {publicHost: 192.0.2.7}, service: {ingress: {enabled: true}}}", []string{"service.ingress.enabled: 192.0.2.7 is an address", "hub.publicHost"}},
		{"a further port twice", Hub, "hub: {extraPorts: [{name: a, port: 3128}, {name: b, port: 3128}]}", []string{"hub.extraPorts: b: 3128 is another port of the pod"}},
		{"a further port of the hub's name", Hub, "hub: {extraPorts: [{name: metrics, port: 3128}]}", []string{"hub.extraPorts: metrics is the name of a port"}},
		{"a drain that Kubernetes does not wait for", Hub, "hub: {config: {drainTimeout: 60s}}", []string{"hub.config.drainTimeout", "give hub.drainSeconds"}},
		{"a field of the pod twice", Hub, "podSpec: {containers: []}", []string{"podSpec.containers: the chart sets this field"}},
		{"an alias of itself", Hub, "hub: {aliasPort: 443}", []string{"hub.aliasPort: the same as service.port"}},
		{"one port twice", Hub, "hub: {agentPort: 8443}", []string{"hub.agentPort: 8443 is another port of the pod"}},
		{"metrics on the serving port", Hub, "metrics: {port: 8443}", []string{"metrics.port: 8443"}},
		{"an account without a name", Hub, "serviceAccount: {create: false}", []string{"serviceAccount.name: required"}},

		{"no way to join", Agent, `join: {token: ""}`, []string{"join.token: required", "culvert token create"}},
		{"a token that is none", Agent, "join: {token: hello}", []string{"join.token: no join token"}},
		{"two ways to join", Agent, "certificate: {secretName: a}", []string{"join.token, certificate.secretName: the agent's certificate comes from one place"}},
		{"a hub with a scheme", Agent, `hub: {address: "https://hub.example.com:443"}`, []string{"hub.address", "has a scheme"}},
		{"a hub without a port", Agent, "hub: {address: hub.example.com}", []string{"hub.address", "is not host:port"}},
		{"a certificate without a hub", Agent, `{join: {token: ""}, certificate: {secretName: a}}`, []string{"hub.address: required"}},
		{"an account without a CA", Agent, `{join: {token: "", serviceAccount: {enabled: true}}, hub: {address: "h:1"}}`, []string{"hub.ca: required with join.serviceAccount"}},
		{"an account without a cluster", Agent, `{join: {token: "", serviceAccount: {enabled: true}}, hub: {address: "h:1", ca: system}}`, []string{"cluster.uid: required with join.serviceAccount"}},
		{"a CA that is none", Agent, "hub: {ca: aGVsbG8=}", []string{"hub.ca: neither PEM, base64 of PEM nor system"}},
		{"an impossible cluster", Agent, "cluster: {uid: Edge_1}", []string{"cluster.uid: 'Edge_1' does not match pattern"}},
		{"the subdomain of another cluster", Agent, "cluster: {uid: edge-1, subdomain: cluster-edge-2}", []string{"cluster.subdomain", "the hub gives it", "hosts.names"}},
		{"a drain that Kubernetes does not wait for", Agent, "config: {drainTimeout: 60s}", []string{"config.drainTimeout", "give drainSeconds"}},
		{"a field of the pods twice", Agent, "podSpec: {tolerations: []}", []string{"podSpec.tolerations: the chart sets this field"}},
		{"a proxy's password", Agent, `proxy: {url: "http://user:secret@proxy:3128"}`, []string{"proxy.url: has a password", "proxy.credentialsSecret"}},
		{"limited to nobody", Agent, "rbac: {mode: limited}", []string{"rbac.users: required with rbac.mode limited"}},
		{"a mode", Agent, "rbac: {mode: all}", []string{"rbac.mode: value must be one of 'full', 'limited', 'constrained'"}},
		{"two policies", Agent, "policy: {document: {kind: Policy}, configMapName: a}", []string{"policy.document, policy.configMapName"}},
		{"an unknown value", Agent, "replica: 2", []string{"values: additional properties 'replica' not allowed"}},
		{"replicas", Agent, "replicas: -1", []string{"replicas: minimum: got -1, want 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Render(c.chart, Options{Values: merged(t, base[c.chart], c.values)})
			for _, part := range c.says {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v, want %q", c.chart, err, part)
				}
			}
			for _, noise := range []string{"execution error", ".tpl", "template:", "secret@"} {
				if err != nil && strings.Contains(err.Error(), noise) {
					t.Errorf("%s: %v has %q", c.chart, err, noise)
				}
			}
		})
	}
}

func TestPalette(t *testing.T) {
	certificate, key, ca := "-----BEGIN CERTIFICATE-----\nserver\n", "-----BEGIN PRIVATE KEY-----\nkey\n", "-----BEGIN CERTIFICATE-----\nca\n"
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	block := `frps:
  frps:
    enabled: %
    frpHostURL: "frps.palette.example.com"
    server:
      crt: "` + encode(certificate) + `"
      key: "` + encode(key) + `"
    ca:
      crt: "` + encode(ca) + `"
`
	rest := "config: {installationMode: connected}\ningress: {enabled: true}\nreach-system: {enabled: false}\n"
	t.Run("P7: a block frps that is switched off installs nothing", func(t *testing.T) {
		if r := render(t, Hub, strings.Replace(block, "%", "false", 1)); len(r.Manifests) != 0 || !strings.Contains(r.Notes, "switched off") {
			t.Errorf("%s%s", r.Text(), r.Notes)
		}
	})
	t.Run("P8,P9: a values.yaml of Palette works as it is", func(t *testing.T) {
		palette := render(t, Hub, strings.Replace(block, "%", "true", 1)+rest)
		own := render(t, Hub, "hub: {publicHost: frps.palette.example.com, tls: {crt: "+encode(certificate)+", key: "+encode(key)+"}, ca: {crt: "+encode(ca)+"}}")
		if palette.Text() != own.Text() {
			t.Errorf("got:\n%s\nwant:\n%s", palette.Text(), own.Text())
		}
		secret := ofKind(t, palette, "Secret")
		for name, text := range map[string]string{"tls.crt": certificate, "tls.key": key, "ca.crt": ca} {
			if !strings.Contains(secret, name+": "+encode(text)+"\n") {
				t.Errorf("%s is not in:\n%s", name, secret)
			}
		}
	})
	t.Run("P9: certificate, key and CA are PEM or base64 of PEM", func(t *testing.T) {
		pem := render(t, Hub, base[Hub], `hub: {tls: {crt: "-----BEGIN CERTIFICATE-----\nserver\n", key: "-----BEGIN PRIVATE KEY-----\nkey\n"}, ca: {crt: "-----BEGIN CERTIFICATE-----\nca\n"}}`)
		text := render(t, Hub, base[Hub], "hub: {tls: {crt: "+encode(certificate)+", key: "+encode(key)+"}, ca: {crt: "+encode(ca)+"}}")
		if pem.Text() != text.Text() {
			t.Errorf("%s differs from %s", pem.Text(), text.Text())
		}
	})
}

func TestLint(t *testing.T) {
	for _, chart := range []string{Hub, Agent} {
		t.Run("K12: helm lint has nothing to say about "+chart, func(t *testing.T) {
			result := lint.RunAll(chart, merged(t, base[chart]), "there")
			for _, message := range result.Messages {
				// An icon is for catalogues that show pictures.
				if message.Severity > support.InfoSev || !strings.Contains(message.Error(), "icon is recommended") {
					t.Errorf("%v", message)
				}
			}
			wrong := lint.RunAll(chart, merged(t, base[chart], "image: {pullPolicy: x}"), "there")
			if wrong.HighestSeverity < support.ErrorSev {
				t.Errorf("a wrong value passes: %v", wrong.Messages)
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	t.Run("S9: an agent's namespace is made from the cluster's uid, unless one is given", func(t *testing.T) {
		for given, want := range map[string]string{"": "cluster-edge-1", "mine": "mine"} {
			r, err := Render(Agent, Options{Namespace: given, Values: merged(t, base[Agent], "cluster: {uid: edge-1, subdomain: cluster-edge-1}")})
			if err != nil {
				t.Fatal(err)
			}
			if r.Namespace != want || !strings.Contains(ofKind(t, r, "Deployment"), "namespace: "+want+"\n") {
				t.Errorf("%q: %s\n%s", given, r.Namespace, ofKind(t, r, "Deployment"))
			}
		}
	})
	if r, err := Render(Hub, Options{Values: merged(t, base[Hub])}); err != nil || r.Namespace != Hub {
		t.Errorf("%+v, %v", r, err)
	}
	for _, o := range []Options{{Release: "Hub_1"}, {Release: strings.Repeat("x", 54)}, {Release: "1"}} {
		o.Values = merged(t, base[Hub])
		if _, err := Render(Hub, o); err == nil || !strings.Contains(err.Error(), "cannot name a release") {
			t.Errorf("%q: %v", o.Release, err)
		}
	}
	if _, err := Render(Agent, Options{Values: merged(t, base[Agent], "cluster: {uid: "+strings.Repeat("x", 63)+"}")}); err == nil || !strings.Contains(err.Error(), "namespace: ") {
		t.Errorf("a namespace that is too long: %v", err)
	}
	if _, err := Render("other", Options{}); err == nil {
		t.Error("a chart that is not there is rendered")
	}
}

func TestLabels(t *testing.T) {
	for chart, pods := range map[string]string{Hub: "StatefulSet", Agent: "Deployment"} {
		t.Run("K12: labels and annotations that are given win over those of "+chart+", but for what selects its pods", func(t *testing.T) {
			r := render(t, chart, base[chart], `commonLabels: {app.kubernetes.io/part-of: platform, app.kubernetes.io/name: other, team: a}
commonAnnotations: {helm.sh/resource-policy: delete}
podLabels: {team: b, app.kubernetes.io/instance: other}
podAnnotations: {kubectl.kubernetes.io/default-container: mine, culvert.dev/config: mine}
metrics: {serviceMonitor: {enabled: true, labels: {team: c}}}
`)
			for _, kind := range []string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "NetworkPolicy", "Service", "ServiceMonitor", pods} {
				var object struct {
					Metadata struct{ Labels, Annotations map[string]string }
					Spec     struct {
						Template struct {
							Metadata struct{ Labels, Annotations map[string]string }
						}
					}
				}
				text, _, _ := strings.Cut(ofKind(t, r, kind), "\n---\n")
				if err := yaml.Unmarshal([]byte(text), &object); err != nil {
					t.Fatal(err)
				}
				want := map[string]string{"app.kubernetes.io/part-of": "platform", "app.kubernetes.io/name": chart, "team": "a", "app.kubernetes.io/version": "v0.1.0"}
				if kind == "ServiceMonitor" {
					want["team"] = "c"
				}
				for key, value := range want {
					if got := object.Metadata.Labels[key]; got != value {
						t.Errorf("%s: %s is %q, want %q", kind, key, got, value)
					}
				}
				if kind != pods {
					continue
				}
				pod := object.Spec.Template.Metadata
				if pod.Labels["team"] != "b" || pod.Labels["app.kubernetes.io/name"] != chart || pod.Labels["app.kubernetes.io/instance"] != chart || pod.Labels["helm.sh/chart"] != "" {
					t.Errorf("labels of the pod: %v", pod.Labels)
				}
				if pod.Annotations["kubectl.kubernetes.io/default-container"] != "mine" || len(pod.Annotations["culvert.dev/config"]) != 64 {
					t.Errorf("annotations of the pod: %v", pod.Annotations)
				}
			}
		})
		t.Run("K12: what "+chart+" runs is not replaced by labels or annotations of other objects", func(t *testing.T) {
			template := func(r *Rendered) string {
				_, pod, _ := strings.Cut(ofKind(t, r, pods), "  template:\n")
				return pod
			}
			if a, b := template(render(t, chart, base[chart])), template(render(t, chart, base[chart], "commonAnnotations: {a/b: c}")); a != b {
				t.Errorf("%s\n%s", a, b)
			}
		})
	}
}

func TestImages(t *testing.T) {
	for version, want := range map[string]string{
		"": ":v0.1.0\"", "devel": ":v0.1.0\"", "devel-0123": ":v0.1.0\"", "v1.2.3": ":v1.2.3\"",
		"v0.0.0-20260102030405-0123456789ab+dirty": ":v0.0.0-20260102030405-0123456789ab-dirty\"",
	} {
		r, err := Render(Hub, Options{Version: version, Values: merged(t, base[Hub])})
		if err != nil || !strings.Contains(ofKind(t, r, "StatefulSet"), "culvert-hub"+want) {
			t.Errorf("%q: %v", version, err)
		}
		r, err = Render(Hub, Options{Version: version, Values: merged(t, base[Hub], "image: {tag: mine}")})
		if err != nil || !strings.Contains(ofKind(t, r, "StatefulSet"), `culvert-hub:mine"`) {
			t.Errorf("%q with a tag: %v", version, err)
		}
	}
}

func TestOneReplica(t *testing.T) {
	t.Run("K12: callers and agents are led to the one pod of the hub whether it is ready or not", func(t *testing.T) {
		services := ofKind(t, render(t, Hub, base[Hub], "service: {agent: {type: LoadBalancer}}"), "Service")
		if strings.Count(services, "publishNotReadyAddresses: true") != 2 {
			t.Error(services)
		}
	})
	t.Run("K12: the Service's name can be changed later, which the StatefulSet's own cannot", func(t *testing.T) {
		if set := ofKind(t, render(t, Hub, base[Hub], "service: {name: other}"), "StatefulSet"); !strings.Contains(set, "serviceName: culvert-hub\n") {
			t.Error(set)
		}
	})
}

func TestNotes(t *testing.T) {
	notes := render(t, Hub, base[Hub]).Notes
	for _, part := range []string{"kubectl -n there get service culvert-hub", "admins.users={system:serviceaccount:there:culvert-admin}", "culvert token create --hub https://hub.example.com:443"} {
		if !strings.Contains(notes, part) {
			t.Errorf("%q is not in:\n%s", part, notes)
		}
	}
	if notes := render(t, Hub, base[Hub], "{admins: {users: [alice]}, persistence: {enabled: false}}").Notes; strings.Contains(notes, "Nobody may") || !strings.Contains(notes, "WARNING: persistence.enabled") {
		t.Error(notes)
	}
	if notes := render(t, Hub, base[Hub], "{callers: {tokenReview: {enabled: false}, tokenFile: {secretName: t}}}").Notes; strings.Contains(notes, "serviceaccount") || !strings.Contains(notes, "> join.token)") {
		t.Error(notes)
	}
	for chart, values := range map[string]string{Hub: "service: {type: NodePort}\n", Agent: ""} {
		open := render(t, chart, base[chart], values+"metrics: {serviceMonitor: {enabled: true}}\nnetworkPolicy: {metricsFrom: [{namespaceSelector: {}}]}").Notes
		shut := render(t, chart, base[chart], values+"metrics: {serviceMonitor: {enabled: true}}").Notes
		if !strings.Contains(shut, "networkPolicy.metricsFrom lets nobody") || strings.Contains(open, "lets nobody") || strings.Contains(shut, "service.nodePort is 0") != (chart == Hub) {
			t.Errorf("%s\n%s", shut, open)
		}
	}
	notes = render(t, Agent, base[Agent], `{cluster: {uid: edge-1}, hub: {address: "hub.example.com:443"}}`).Notes
	for _, part := range []string{"rollout status deployment/culvert-agent", "culvert kubeconfig --hub https://hub.example.com:443 --token-file alice.token --cluster edge-1"} {
		if !strings.Contains(notes, part) {
			t.Errorf("%q is not in:\n%s", part, notes)
		}
	}
}
