package charts

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const everyHub = `commonLabels: {app.kubernetes.io/part-of: platform, team: a}
commonAnnotations: {example.com/owner: platform}
podLabels: {team: b}
podSpec: {hostAliases: [{ip: 192.0.2.7, hostnames: [issuer.internal]}], dnsConfig: {options: [{name: ndots, value: "1"}]}, schedulerName: mine}
extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-more", namespace: "{{ .Release.Namespace }}"}}]
hub:
  publicHost: Hub.example.com
  agentPort: 8091
  aliasPort: 9092
  names: [hub.internal]
  extraPorts: [{name: connect, port: 3128, servicePort: 8080, nodePort: 30080}, {name: websocket, port: 6100}]
callers:
  tokenFile: {secretName: tokens}
  clientCA: {configMapName: people}
  authenticationConfig: {apiVersion: apiserver.config.k8s.io/v1, kind: AuthenticationConfiguration, jwt: []}
serviceProxy: {enabled: false}
hosts: {domain: edge.example.com, names: [{name: kube.example.com, cluster: edge-1}, {name: "*.db.example.com", cluster: edge-1}]}
agentCA: {secretName: agents}
service: {type: NodePort, nodePort: 30443, ipFamilyPolicy: PreferDualStack, agent: {type: NodePort, nodePort: 30091, externalTrafficPolicy: Local}, ingress: {enabled: true, className: nginx}}
networkPolicy: {from: [{ipBlock: {cidr: 192.0.2.0/24}}], metricsFrom: [{namespaceSelector: {}}], egress: [{ports: [{port: 443}]}]}
podDisruptionBudget: {enabled: true}
policy: {subjectAccessReview: true}
audit: {stdout: true}
`

const everyAgent = `commonLabels: {app.kubernetes.io/part-of: platform, team: a}
commonAnnotations: {example.com/owner: platform}
podLabels: {team: b}
podSpec: {dnsPolicy: Default}
extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: "{{ .Release.Name }}-more", namespace: "{{ .Release.Namespace }}"}}]
hub: {address: "hub.example.com:443", ca: system}
join: {token: culvert-join.a.b}
rbac: {mode: limited, users: [cluster:hub:alice], groups: [cluster:hub:team-a]}
policy: {document: {apiVersion: policy.culvert.dev/v1, kind: Policy}}
proxy: {url: "https://proxy:3128", ca: "-----BEGIN CERTIFICATE-----", credentialsSecret: {name: proxy}}
networkPolicy: {metricsFrom: [{namespaceSelector: {}}], egress: [{ports: [{port: 443}]}]}
`

func TestApply(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	c := the.management
	must(t, restricted(ctx, c, "applied"))
	install := func(chart, values, name string, args ...string) error {
		objects, err := manifests(ctx, chart, values, append([]string{"--namespace", "applied", "--name", name}, args...)...)
		if err != nil {
			return err
		}
		return apply(ctx, c, objects)
	}
	t.Run("K12,P3: all kinds of installations are taken by server-side apply, without a warning", func(t *testing.T) {
		for name, one := range map[string][2]string{
			"hub":            {"hub", "hub: {publicHost: hub.example.com}"},
			"hub-all":        {"hub", everyHub},
			"hub-trial":      {"hub", "{hub: {publicHost: hub.example.com}, persistence: {enabled: false}, service: {type: ClusterIP}}"},
			"agent":          {"agent", "join: {token: culvert-join.a.b}"},
			"agent-all":      {"agent", everyAgent},
			"agent-account":  {"agent", `{join: {serviceAccount: {enabled: true}}, hub: {address: "hub:443", ca: system}, cluster: {uid: edge-1}}`},
			"agent-supplied": {"agent", `{certificate: {secretName: mine}, hub: {address: "hub:443"}, rbac: {mode: constrained}}`},
		} {
			if err := install(one[0], one[1], name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("K12: what is installed takes every later change of its values, and pods are replaced for those of the pod alone", func(t *testing.T) {
		template := func(workload string) string {
			out, err := c.Kubectl(ctx, "-n", "applied", "get", workload, "-o", "jsonpath={.spec.template}")
			must(t, err)
			return out
		}
		for name, steps := range map[string][]string{
			"hub": {"hub: {publicHost: hub.example.com}", everyHub, "{hub: {publicHost: hub.example.com}, service: {name: gate}}", "{hub: {publicHost: hub.example.com}, persistence: {enabled: false}, tls: {secretName: mine}}"},
			"agent": {
				"join: {token: culvert-join.a.b}", everyAgent, `{join: {serviceAccount: {enabled: true}}, hub: {address: "hub:443", ca: system}, cluster: {uid: edge-1}}`,
				`{certificate: {secretName: mine}, hub: {address: "hub:443"}, rbac: {mode: constrained}}`,
			},
		} {
			for i, values := range steps {
				// The ports of the nodes are taken by another hub.
				if err := install(name, strings.NewReplacer("30443", "30444", "30091", "30092", "30080", "30081").Replace(values), "changed"); err != nil {
					t.Errorf("%s, step %d: %v", name, i, err)
				}
			}
		}
		before := template("statefulset/hub-culvert-hub")
		must(t, install("hub", "{hub: {publicHost: hub.example.com}, commonAnnotations: {a/b: c}, service: {annotations: {a/b: d}}, networkPolicy: {enabled: false}}", "hub"))
		if after := template("statefulset/hub-culvert-hub"); before != after {
			t.Errorf("the pod has changed from\n%s\nto\n%s", before, after)
		}
		must(t, install("hub", "hub: {publicHost: hub.example.com}", "hub"))
	})
	t.Run("K12: hubs of the same name in two namespaces share nothing", func(t *testing.T) {
		must(t, restricted(ctx, c, "second"))
		for _, namespace := range []string{"applied", "second"} {
			objects, err := manifests(ctx, "hub", "hub: {publicHost: hub.example.com}", "--namespace", namespace, "--name", "twin")
			must(t, err)
			must(t, apply(ctx, c, objects))
		}
		out, err := c.Kubectl(ctx, "get", "clusterrolebindings", "-o", "jsonpath={range .items[*]}{.metadata.name} {.subjects[0].namespace} {end}")
		if err != nil || !strings.Contains(out, "twin-culvert-hub:applied applied ") || !strings.Contains(out, "twin-culvert-hub:second second ") {
			t.Errorf("%s%v", out, err)
		}
	})
	t.Run("P11: one load balancer's Service has the documented name", func(t *testing.T) {
		out, err := c.Kubectl(ctx, "-n", "applied", "get", "service", "hub-culvert-hub", "-o", "jsonpath={.spec.type} {.spec.ports[*].port}")
		if err != nil || out != "LoadBalancer 443" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("P11: culvert endpoints prints the load balancer's address, once there is one", func(t *testing.T) {
		endpoints := func() string {
			out, err := the.cli(ctx, "endpoints", "--kubeconfig", c.AdminKubeconfig, "--namespace", "applied").Output()
			must(t, err)
			return strings.Join(strings.Fields(string(out)), " ")
		}
		if out := endpoints(); !strings.Contains(out, "hub-culvert-hub LoadBalancer pending") || !strings.Contains(out, "hub-trial-culvert-hub ClusterIP hub-trial-culvert-hub.applied.svc:443") || !strings.Contains(out, "hub-all-culvert-hub NodePort NODE:30443,NODE:") {
			t.Error(out)
		}
		if _, err := c.Kubectl(ctx, "-n", "applied", "patch", "service", "hub-culvert-hub", "--subresource=status", "--type=merge",
			"--patch", `{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}`); err != nil {
			t.Fatal(err)
		}
		if out := endpoints(); !strings.Contains(out, "hub-culvert-hub LoadBalancer 203.0.113.7:443") {
			t.Error(out)
		}
	})
	t.Run("O11,O12,O13: agents have a Service of their own with a node port, and callers a second port", func(t *testing.T) {
		out, err := c.Kubectl(ctx, "-n", "applied", "get", "service", "hub-all-culvert-hub", "hub-all-culvert-hub-agent",
			"-o", "jsonpath={range .items[*].spec.ports[*]}{.port}:{.nodePort}:{.targetPort} {end}")
		if err != nil || !strings.HasPrefix(out, "443:30443:https 9092:") || !strings.HasSuffix(out, " 8091:30091:agents ") {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("K12: the pods are admitted where Pod Security enforces restricted, and one that is not restricted is refused", func(t *testing.T) {
		for _, workload := range []string{"statefulset/hub-culvert-hub", "statefulset/hub-all-culvert-hub", "deployment/agent-culvert-agent", "deployment/agent-all-culvert-agent", "deployment/agent-account-culvert-agent"} {
			if err := admit(ctx, c, workload, func(*corev1.PodSpec) {}); err != nil {
				t.Errorf("%s: %v", workload, err)
			}
		}
		err := admit(ctx, c, "statefulset/hub-culvert-hub", func(spec *corev1.PodSpec) { spec.Containers[0].SecurityContext = nil })
		if err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
			t.Errorf("a pod without a security context: %v", err)
		}
		// The other test looks for warnings, so there has to be one when it should.
		err = install("hub", "{hub: {publicHost: hub.example.com}, podSecurityContext: {runAsNonRoot: false}}", "hub-open")
		if !errors.Is(err, errWarned) || !strings.Contains(err.Error(), "runAsNonRoot") {
			t.Errorf("a workload that is not restricted: %v", err)
		}
	})
	t.Run("K12: without the kinds of cert-manager and Prometheus, what needs them is refused by its name; with them it is taken", func(t *testing.T) {
		const values = "{hub: {publicHost: hub.example.com}, tls: {certManager: {enabled: true}}, metrics: {serviceMonitor: {enabled: true}}}"
		err := install("hub", values, "hub-more")
		for _, kind := range []string{"Certificate", "Issuer", "ServiceMonitor"} {
			if err == nil || !strings.Contains(err.Error(), `no matches for kind "`+kind+`"`) {
				t.Errorf("without %s: %v", kind, err)
			}
		}
		must(t, applyKinds(ctx, c))
		must(t, install("hub", values, "hub-more"))
		must(t, install("hub", `{hub: {publicHost: "192.0.2.7", names: [hub.internal]}, hosts: {domain: edge.example.com}, tls: {certManager: {enabled: true, issuerRef: {name: corp, kind: ClusterIssuer}}}}`, "hub-issued"))
		must(t, install("agent", "{join: {token: culvert-join.a.b}, metrics: {serviceMonitor: {enabled: true}}}", "agent-more"))
		out, err := c.Kubectl(ctx, "-n", "applied", "get", "certificates.cert-manager.io,issuers.cert-manager.io,servicemonitors", "-o", "name")
		if err != nil || strings.Count(out, "\n") != 7 {
			t.Errorf("%s%v", out, err)
		}
	})
}

// admit has the API server judge the pod of a workload, changed by change, and makes
// none.
func admit(ctx context.Context, c *testbed.Cluster, workload string, change func(*corev1.PodSpec)) error {
	text, err := c.Kubectl(ctx, "-n", "applied", "get", workload, "-o", "json")
	if err != nil {
		return err
	}
	var object struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return err
	}
	pod := corev1.Pod{ObjectMeta: object.Spec.Template.ObjectMeta, Spec: object.Spec.Template.Spec}
	pod.APIVersion, pod.Kind, pod.GenerateName = "v1", "Pod", "probe-"
	change(&pod.Spec)
	body, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	_, err = c.Admin().Input(ctx, string(body), "-n", "applied", "create", "--dry-run=server", "-f", "-")
	return err
}
