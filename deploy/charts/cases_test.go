package charts

// valueCase shows what one value does: with it, the objects of a kind have a text
// that they do not have without it; or the reverse, where it takes something away.
type valueCase struct {
	path   string
	values string // YAML
	kind   string
	has    string
	gone   bool
	needs  string // YAML of what else has to be set
}

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// What both charts have.
var commonCases = []valueCase{
	{path: "commonLabels", values: "commonLabels: {team: edge}", kind: "ServiceAccount", has: "    team: edge\n"},
	{path: "image.repository", values: "image: {repository: mirror.example.com/culvert}", has: `image: "mirror.example.com/culvert:0.1.0"`},
	{path: "image.tag", values: "image: {tag: v9}", has: `:v9"`},
	{path: "image.digest", values: "image: {tag: v9, digest: " + digest + "}", has: "@" + digest + `"`},
	{path: "image.pullPolicy", values: "image: {pullPolicy: Always}", has: "imagePullPolicy: Always"},
	{path: "imagePullSecrets", values: "imagePullSecrets: [{name: registry}]", has: "imagePullSecrets:\n        - name: registry\n"},
	{path: "serviceAccount.create", values: "serviceAccount: {create: false}", kind: "ServiceAccount", has: "kind: ServiceAccount", gone: true, needs: "serviceAccount: {name: mine}"},
	{path: "serviceAccount.name", values: "serviceAccount: {name: mine}", has: "serviceAccountName: mine\n"},
	{path: "serviceAccount.annotations", values: "serviceAccount: {annotations: {a/b: c}}", kind: "ServiceAccount", has: "  annotations:\n    a/b: c\n"},
	{path: "rbac.create", values: "rbac: {create: false}", kind: "ClusterRole", has: "kind: ClusterRole", gone: true},
	{path: "metrics.port", values: "metrics: {port: 9191}", kind: "ConfigMap", has: "metricsListen: :9191\n"},
	{path: "metrics.port", values: "metrics: {port: 9191}", has: "containerPort: 9191\n"},
	{path: "metrics.serviceMonitor.enabled", values: "metrics: {serviceMonitor: {enabled: true}}", kind: "ServiceMonitor", has: "path: /metrics"},
	{path: "metrics.serviceMonitor.enabled", values: "metrics: {serviceMonitor: {enabled: true}}", kind: "Service", has: "culvert.dev/metrics: \"true\"\n"},
	{path: "metrics.serviceMonitor.interval", values: "metrics: {serviceMonitor: {interval: 7s}}", kind: "ServiceMonitor", has: "interval: 7s", needs: "metrics: {serviceMonitor: {enabled: true}}"},
	{path: "metrics.serviceMonitor.labels", values: "metrics: {serviceMonitor: {labels: {release: prometheus}}}", kind: "ServiceMonitor", has: "    release: prometheus\n", needs: "metrics: {serviceMonitor: {enabled: true}}"},
	{path: "networkPolicy.enabled", values: "networkPolicy: {enabled: false}", kind: "NetworkPolicy", has: "kind: NetworkPolicy", gone: true},
	{path: "networkPolicy.metricsFrom", values: "networkPolicy: {metricsFrom: [{namespaceSelector: {}}]}", kind: "NetworkPolicy", has: "  - ports:\n    - port: metrics\n    from:\n      - namespaceSelector: {}\n"},
	{path: "networkPolicy.egress", values: "networkPolicy: {egress: [{ports: [{port: 443}]}]}", kind: "NetworkPolicy", has: "  - Egress\n"},
	{path: "networkPolicy.egress", values: "networkPolicy: {egress: [{ports: [{port: 443}]}]}", kind: "NetworkPolicy", has: "  egress:\n    - ports:\n      - port: 443"},
	{path: "resources", values: "resources: {requests: {cpu: 3}}", has: "cpu: 3\n"},
	{path: "podSecurityContext", values: "podSecurityContext: {runAsUser: 1234}", has: "runAsUser: 1234\n"},
	{path: "podLabels", values: "podLabels: {a: b}", has: "        a: b\n"},
	{path: "podAnnotations", values: "podAnnotations: {a: b}", has: "        a: b\n"},
	{path: "priorityClassName", values: "priorityClassName: system-cluster-critical", has: "priorityClassName: system-cluster-critical\n"},
	{path: "nodeSelector", values: "nodeSelector: {a: b}", has: "nodeSelector:\n        a: b\n"},
	{path: "tolerations", values: "tolerations: [{operator: Exists}]", has: "tolerations:\n        - operator: Exists\n"},
	{path: "affinity", values: "affinity: {nodeAffinity: {}}", has: "affinity:\n        nodeAffinity: {}\n"},
	{path: "topologySpreadConstraints", values: "topologySpreadConstraints: [{topologyKey: rack}]", has: "topologySpreadConstraints:\n        - topologyKey: rack"},
	{path: "extraArgs", values: "extraArgs: [--name=x]", has: "        - --name=x\n"},
	{path: "extraEnv", values: "extraEnv: [{name: OTEL_SDK_DISABLED, value: \"true\"}]", has: "env:\n          - name: OTEL_SDK_DISABLED\n"},
	{path: "extraVolumes", values: "extraVolumes: [{name: more, emptyDir: {}}]", has: "      - emptyDir: {}\n        name: more\n"},
	{path: "extraVolumeMounts", values: "extraVolumeMounts: [{name: more, mountPath: /more}]", has: "        - mountPath: /more\n          name: more\n"},
}

// with puts what both charts have before further cases; pods says in which kind
// the pod is.
func with(pods string, further ...valueCase) []valueCase {
	var all []valueCase
	for _, c := range append(append([]valueCase{}, commonCases...), further...) {
		if c.kind == "" {
			c.kind = pods
		}
		all = append(all, c)
	}
	return all
}

const (
	certManager = "tls: {certManager: {enabled: true}}"
	ingress     = "service: {ingress: {enabled: true}}"
	inlineTLS   = "hub: {tls: {crt: LS0tLS1CRUdJTg==, key: LS0tLS1CRUdJTg==}}"
)

var hubCases = with("StatefulSet",
	valueCase{path: "fullnameOverride", values: "fullnameOverride: gate", has: "\n  name: gate\n"},
	valueCase{path: "hub.enabled", values: "hub: {enabled: false}", has: "kind: StatefulSet", gone: true},
	valueCase{path: "hub.publicHost", values: "hub: {publicHost: other.example.com}", kind: "ConfigMap", has: "advertise: other.example.com:443\n"},
	valueCase{path: "hub.publicHost", values: `hub: {publicHost: "2001:db8::1"}`, kind: "ConfigMap", has: "advertise: '[2001:db8::1]:443'\n"},
	valueCase{path: "hub.publicAddress", values: "hub: {publicAddress: \"agents.example.com:8091\"}", kind: "ConfigMap", has: "advertise: agents.example.com:8091\n"},
	valueCase{path: "hub.agentPort", values: "hub: {agentPort: 8091}", kind: "ConfigMap", has: "agentListen:\n    - :8091\n"},
	valueCase{path: "hub.agentPort", values: "hub: {agentPort: 8091}", kind: "Service", has: "port: 8091\n    targetPort: agents\n"},
	valueCase{path: "hub.agentPort", values: "hub: {agentPort: 8091}", kind: "NetworkPolicy", has: "- port: agents\n"},
	valueCase{path: "hub.aliasPort", values: "hub: {aliasPort: 9092}", kind: "Service", has: "port: 9092\n    targetPort: https\n"},
	valueCase{path: "hub.tls.crt", values: inlineTLS, kind: "Secret", has: "tls.crt: LS0tLS1CRUdJTg==\n"},
	valueCase{path: "hub.tls.key", values: inlineTLS, kind: "Secret", has: "tls.key: LS0tLS1CRUdJTg==\n"},
	valueCase{path: "hub.tls.crt", values: inlineTLS, kind: "ConfigMap", has: "certificates:\n      - dir: /etc/culvert/serving\n"},
	valueCase{path: "hub.ca.crt", values: "hub: {ca: {crt: LS0tLS1CRUdJTg==}}", kind: "Secret", has: "ca.crt: LS0tLS1CRUdJTg==", needs: inlineTLS},
	valueCase{path: "hub.names", values: "hub: {names: [hub.internal]}", kind: "ConfigMap", has: "tlsNames:\n    - hub.example.com\n    - hub.internal\n"},
	valueCase{path: "hub.drainSeconds", values: "hub: {drainSeconds: 60}", kind: "ConfigMap", has: "drainTimeout: 60s\n"},
	valueCase{path: "hub.drainSeconds", values: "hub: {drainSeconds: 60}", has: "terminationGracePeriodSeconds: 75\n"},
	valueCase{path: "hub.memory", values: "hub: {memory: 1Gi}", kind: "ConfigMap", has: "memory: 1Gi\n"},
	valueCase{path: "hub.logFormat", values: "hub: {logFormat: text}", has: "--log-format=text\n"},
	valueCase{path: "hub.logLevel", values: "hub: {logLevel: debug}", has: "--log-level=debug\n"},
	valueCase{path: "hub.config", values: "hub: {config: {limits: {user: {burst: 5}}, drainTimeout: 9s}}", kind: "ConfigMap", has: "limits:\n      user:\n        burst: 5\n"},
	valueCase{path: "hub.config", values: "hub: {config: {drainTimeout: 9s}}", kind: "ConfigMap", has: "drainTimeout: 9s\n"},
	valueCase{path: "callers.tokenReview.enabled", values: "callers: {tokenReview: {enabled: false}}", kind: "ConfigMap", has: "tokenReview:\n      inCluster: true\n", gone: true, needs: "callers: {tokenFile: {secretName: tokens}}"},
	valueCase{path: "callers.tokenReview.enabled", values: "callers: {tokenReview: {enabled: false}}", has: "automountServiceAccountToken: false\n", needs: "callers: {tokenFile: {secretName: tokens}}"},
	valueCase{path: "callers.tokenReview.enabled", values: "callers: {tokenReview: {enabled: false}}", kind: "ClusterRole", has: "tokenreviews", gone: true, needs: "callers: {tokenFile: {secretName: tokens}}"},
	valueCase{path: "callers.tokenReview.audiences", values: "callers: {tokenReview: {audiences: [culvert]}}", kind: "ConfigMap", has: "audiences:\n      - culvert\n"},
	valueCase{path: "callers.tokenFile.secretName", values: "callers: {tokenFile: {secretName: tokens}}", has: "secretName: tokens\n"},
	valueCase{path: "callers.tokenFile.key", values: "callers: {tokenFile: {key: people.csv}}", kind: "ConfigMap", has: "tokenFile: /etc/culvert/callers/people.csv\n", needs: "callers: {tokenFile: {secretName: tokens}}"},
	valueCase{path: "callers.authenticationConfig", values: "callers: {authenticationConfig: {kind: AuthenticationConfiguration}}", kind: "ConfigMap", has: "authentication.yaml: |\n    kind: AuthenticationConfiguration\n"},
	valueCase{path: "callers.authenticationConfig", values: "callers: {authenticationConfig: {kind: AuthenticationConfiguration}}", has: "mountPath: /etc/culvert/access\n"},
	valueCase{path: "callers.clientCA.configMapName", values: "callers: {clientCA: {configMapName: people}}", has: "configMap:\n          name: people\n"},
	valueCase{path: "callers.clientCA.key", values: "callers: {clientCA: {key: people.crt}}", kind: "ConfigMap", has: "clientCA: /etc/culvert/client-ca/people.crt\n", needs: "callers: {clientCA: {configMapName: people}}"},
	valueCase{path: "admins.users", values: "admins: {users: [alice]}", kind: "ConfigMap", has: "users:\n      - alice\n"},
	valueCase{path: "admins.groups", values: "admins: {groups: [ops]}", kind: "ConfigMap", has: "groups:\n      - ops\n"},
	valueCase{path: "enrolment.approval", values: "enrolment: {approval: manual}", kind: "ConfigMap", has: "approval: manual\n"},
	valueCase{path: "enrolment.tokenTTL", values: "enrolment: {tokenTTL: 5m}", kind: "ConfigMap", has: "tokenTTL: 5m\n"},
	valueCase{path: "enrolment.serviceAccounts", values: "enrolment: {serviceAccounts: [{audience: a, namespace: agents, name: m, cluster: c}]}", kind: "ConfigMap", has: "serviceAccounts:\n      - audience: a\n        cluster: c\n        name: m\n        namespace: agents\n"},
	valueCase{path: "policy.document", values: "policy: {document: {kind: Policy, default: deny}}", kind: "ConfigMap", has: "policy.yaml: |\n    default: deny\n    kind: Policy\n"},
	valueCase{path: "policy.document", values: "policy: {document: {kind: Policy}}", kind: "ConfigMap", has: "file: /etc/culvert/access/policy.yaml\n"},
	valueCase{path: "policy.configMapName", values: "policy: {configMapName: rules}", has: "configMap:\n          name: rules\n"},
	valueCase{path: "policy.key", values: "policy: {key: p.yaml}", kind: "ConfigMap", has: "file: /etc/culvert/policy/p.yaml\n", needs: "policy: {configMapName: rules}"},
	valueCase{path: "policy.subjectAccessReview", values: "policy: {subjectAccessReview: true}", kind: "ConfigMap", has: "subjectAccessReview:\n        inCluster: true\n"},
	valueCase{path: "policy.subjectAccessReview", values: "policy: {subjectAccessReview: true}", kind: "ClusterRole", has: "resources: [subjectaccessreviews]\n  verbs: [create]\n"},
	valueCase{path: "serviceProxy.enabled", values: "serviceProxy: {enabled: false}", kind: "ConfigMap", has: "- effect: deny\n      name: service-proxy-is-off\n"},
	valueCase{path: "hosts.domain", values: "hosts: {domain: edge.example.com}", kind: "ConfigMap", has: "domain: edge.example.com\n"},
	valueCase{path: "hosts.domain", values: "hosts: {domain: edge.example.com}", kind: "Ingress", has: "host: \"*.edge.example.com\"\n", needs: ingress},
	valueCase{path: "hosts.domain", values: "hosts: {domain: edge.example.com}", kind: "Certificate", has: "- \"*.edge.example.com\"\n", needs: certManager},
	valueCase{path: "hosts.mode", values: "hosts: {mode: passthrough}", kind: "ConfigMap", has: "mode: passthrough\n", needs: "hosts: {domain: edge.example.com}"},
	valueCase{path: "hosts.names", values: "hosts: {names: [{name: kube.example.com, cluster: edge-1}]}", kind: "ConfigMap", has: "names:\n      - cluster: edge-1\n        name: kube.example.com\n"},
	valueCase{path: "audit.stdout", values: "audit: {stdout: true}", kind: "ConfigMap", has: "audit:\n      stdout: {}\n"},
	valueCase{path: "tls.secretName", values: "tls: {secretName: mine}", has: "secretName: mine\n"},
	valueCase{path: "tls.secretName", values: "tls: {secretName: mine}", has: "mountPath: /etc/culvert/serving\n"},
	valueCase{path: "tls.certManager.enabled", values: certManager, kind: "Certificate", has: "- culvert-hub.there.svc.cluster.local\n"},
	valueCase{path: "tls.certManager.enabled", values: certManager, kind: "Issuer", has: "selfSigned: {}"},
	valueCase{path: "tls.certManager.enabled", values: certManager, has: "secretName: culvert-hub-tls\n"},
	valueCase{path: "tls.certManager.issuerRef.name", values: "tls: {certManager: {issuerRef: {name: corp}}}", kind: "Certificate", has: "issuerRef:\n    name: corp\n", needs: certManager},
	valueCase{path: "tls.certManager.issuerRef.name", values: "tls: {certManager: {issuerRef: {name: corp}}}", kind: "Issuer", has: "selfSigned: {}", gone: true, needs: certManager},
	valueCase{path: "tls.certManager.issuerRef.kind", values: "tls: {certManager: {issuerRef: {kind: ClusterIssuer}}}", kind: "Certificate", has: "kind: ClusterIssuer\n", needs: "tls: {certManager: {enabled: true, issuerRef: {name: corp}}}"},
	valueCase{path: "tls.certManager.issuerRef.group", values: "tls: {certManager: {issuerRef: {group: issuers.example.com}}}", kind: "Certificate", has: "group: issuers.example.com", needs: "tls: {certManager: {enabled: true, issuerRef: {name: corp}}}"},
	valueCase{path: "tls.certManager.duration", values: "tls: {certManager: {duration: 24h}}", kind: "Certificate", has: "duration: 24h\n", needs: certManager},
	valueCase{path: "tls.certManager.renewBefore", values: "tls: {certManager: {renewBefore: 8h}}", kind: "Certificate", has: "renewBefore: 8h\n", needs: certManager},
	valueCase{path: "tls.certManager.caDuration", values: "tls: {certManager: {caDuration: 99h}}", kind: "Certificate", has: "duration: 99h\n", needs: certManager},
	valueCase{path: "agentCA.secretName", values: "agentCA: {secretName: ca}", kind: "ConfigMap", has: "cert: /etc/culvert/agent-ca/tls.crt\n        key: /etc/culvert/agent-ca/tls.key\n"},
	valueCase{path: "agentCA.secretName", values: "agentCA: {secretName: ca}", has: "secretName: ca\n"},
	valueCase{path: "agentCA.sign", values: "agentCA: {sign: false}", kind: "ConfigMap", has: "key: /etc/culvert/agent-ca/tls.key", gone: true, needs: "agentCA: {secretName: ca}"},
	valueCase{path: "persistence.enabled", values: "persistence: {enabled: false}", has: "- name: state\n        emptyDir: {}\n"},
	valueCase{path: "persistence.enabled", values: "persistence: {enabled: false}", kind: "PersistentVolumeClaim", has: "kind:", gone: true},
	valueCase{path: "persistence.existingClaim", values: "persistence: {existingClaim: disk}", has: "claimName: disk\n"},
	valueCase{path: "persistence.existingClaim", values: "persistence: {existingClaim: disk}", kind: "PersistentVolumeClaim", has: "kind:", gone: true},
	valueCase{path: "persistence.size", values: "persistence: {size: 3Gi}", kind: "PersistentVolumeClaim", has: "storage: 3Gi"},
	valueCase{path: "persistence.storageClassName", values: "persistence: {storageClassName: fast}", kind: "PersistentVolumeClaim", has: "storageClassName: fast\n"},
	valueCase{path: "persistence.accessModes", values: "persistence: {accessModes: [ReadWriteOncePod]}", kind: "PersistentVolumeClaim", has: "- ReadWriteOncePod\n"},
	valueCase{path: "persistence.annotations", values: "persistence: {annotations: {a/b: c}}", kind: "PersistentVolumeClaim", has: "    a/b: c\n"},
	valueCase{path: "service.name", values: "service: {name: spectro-proxy-svc}", kind: "Service", has: "name: spectro-proxy-svc\n"},
	valueCase{path: "service.name", values: "service: {name: spectro-proxy-svc}", kind: "ConfigMap", has: "service: there/spectro-proxy-svc\n"},
	valueCase{path: "service.type", values: "service: {type: NodePort}", kind: "Service", has: "type: NodePort\n"},
	valueCase{path: "service.port", values: "service: {port: 8443}", kind: "Service", has: "port: 8443\n    targetPort: https"},
	valueCase{path: "service.port", values: "service: {port: 8443}", kind: "ConfigMap", has: "advertise: hub.example.com:8443\n"},
	valueCase{path: "service.nodePort", values: "service: {nodePort: 30443}", kind: "Service", has: "nodePort: 30443"},
	valueCase{path: "service.nodePort", values: "service: {nodePort: 30443}", kind: "ConfigMap", has: "advertise: hub.example.com:30443\n", needs: "service: {type: NodePort}"},
	valueCase{path: "service.annotations", values: "service: {annotations: {a/b: c}}", kind: "Service", has: "annotations:\n    a/b: c\n"},
	valueCase{path: "service.loadBalancerClass", values: "service: {loadBalancerClass: example.com/lb}", kind: "Service", has: "loadBalancerClass: example.com/lb\n"},
	valueCase{path: "service.loadBalancerIP", values: "service: {loadBalancerIP: 192.0.2.7}", kind: "Service", has: "loadBalancerIP: \"192.0.2.7\"\n"},
	valueCase{path: "service.loadBalancerSourceRanges", values: "service: {loadBalancerSourceRanges: [192.0.2.0/24]}", kind: "Service", has: "loadBalancerSourceRanges:\n    - 192.0.2.0/24\n"},
	valueCase{path: "service.externalTrafficPolicy", values: "service: {externalTrafficPolicy: Local}", kind: "Service", has: "externalTrafficPolicy: Local\n"},
	valueCase{path: "service.agent.type", values: "service: {agent: {type: NodePort}}", kind: "Service", has: "port: 8091\n    targetPort: https"},
	valueCase{path: "service.agent.type", values: "service: {agent: {type: NodePort}}", kind: "Service", has: "port: 8091\n    targetPort: agents", needs: "hub: {agentPort: 8092}"},
	valueCase{path: "service.agent.port", values: "service: {agent: {port: 7000}}", kind: "ConfigMap", has: "advertise: hub.example.com:7000\n", needs: "service: {agent: {type: LoadBalancer}}"},
	valueCase{path: "service.agent.nodePort", values: "service: {agent: {nodePort: 30091}}", kind: "Service", has: "nodePort: 30091", needs: "service: {agent: {type: NodePort}}"},
	valueCase{path: "service.agent.nodePort", values: "service: {agent: {nodePort: 30091}}", kind: "ConfigMap", has: "advertise: hub.example.com:30091\n", needs: "service: {agent: {type: NodePort}}"},
	valueCase{path: "service.agent.annotations", values: "service: {agent: {annotations: {a/b: c}}}", kind: "Service", has: "annotations:\n    a/b: c\n", needs: "service: {agent: {type: NodePort}}"},
	valueCase{path: "service.ingress.enabled", values: ingress, kind: "Ingress", has: "host: \"hub.example.com\"\n"},
	valueCase{path: "service.ingress.className", values: "service: {ingress: {className: nginx}}", kind: "Ingress", has: "ingressClassName: nginx\n", needs: ingress},
	valueCase{path: "service.ingress.annotations", values: "service: {ingress: {annotations: {a/b: c}}}", kind: "Ingress", has: "    a/b: c\n", needs: ingress},
	valueCase{path: "networkPolicy.from", values: "networkPolicy: {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}", kind: "NetworkPolicy", has: "from:\n      - ipBlock:\n          cidr: 192.0.2.0/24"},
	valueCase{path: "podDisruptionBudget.enabled", values: "podDisruptionBudget: {enabled: true}", kind: "PodDisruptionBudget", has: "maxUnavailable: 1\n"},
	valueCase{path: "podDisruptionBudget.maxUnavailable", values: "podDisruptionBudget: {maxUnavailable: 0}", kind: "PodDisruptionBudget", has: "maxUnavailable: 0\n", needs: "podDisruptionBudget: {enabled: true}"},
	valueCase{path: "frps", values: "{hub: {publicHost: \"\"}, frps: {frps: {frpHostURL: frps.example.com}}}", kind: "ConfigMap", has: "advertise: frps.example.com:443\n"},
)

const (
	byAccount   = `{join: {token: "", serviceAccount: {enabled: true}}, hub: {address: "hub.example.com:443", ca: system}, cluster: {uid: edge-1}}`
	otherSecret = `join: {token: "", tokenSecret: {name: mine}}`
)

var agentCases = with("Deployment",
	valueCase{path: "fullnameOverride", values: "fullnameOverride: gate", has: "\n  name: gate\n"},
	valueCase{path: "replicas", values: "replicas: 3", has: "replicas: 3\n"},
	valueCase{path: "cluster.uid", values: "cluster: {uid: edge-1}", has: "- --cluster=edge-1\n"},
	// It changes nothing: a wrong one is refused, see TestRefused.
	valueCase{path: "cluster.subdomain", values: "cluster: {uid: edge-1, subdomain: cluster-edge-1}", has: "- --cluster=edge-1\n"},
	valueCase{path: "hub.address", values: "hub: {address: \"hub.example.com:443\"}", kind: "ConfigMap", has: "hub: hub.example.com:443\n"},
	valueCase{path: "hub.name", values: "hub: {name: hub.internal}", kind: "ConfigMap", has: "hubName: hub.internal\n"},
	valueCase{path: "hub.ca", values: "hub: {ca: system}", kind: "ConfigMap", has: "hubCA: system\n"},
	valueCase{path: "hub.ca", values: "hub: {ca: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURQ==}", kind: "ConfigMap", has: "hub-ca.crt: |\n    -----BEGIN CERTIFICATE"},
	valueCase{path: "hub.ca", values: "hub: {ca: \"-----BEGIN CERTIFICATE-----\"}", kind: "ConfigMap", has: "hubCA: /etc/culvert/trust/hub-ca.crt\n"},
	valueCase{path: "hub.ca", values: "hub: {ca: \"-----BEGIN CERTIFICATE-----\"}", has: "mountPath: /etc/culvert/trust\n"},
	valueCase{path: "join.token", values: "join: {token: culvert-agent join --token culvert-join.abc.def}", kind: "Secret", has: "token: Y3VsdmVydC1qb2luLmFiYy5kZWY=\n"},
	valueCase{path: "join.tokenSecret.name", values: otherSecret, has: "secretName: mine\n"},
	valueCase{path: "join.tokenSecret.name", values: otherSecret, kind: "Secret", has: "name: culvert-agent-join\n", gone: true},
	valueCase{path: "join.tokenSecret.key", values: "join: {tokenSecret: {key: t}}", has: "- --token-file=/etc/culvert/join/t\n", needs: otherSecret},
	valueCase{path: "join.serviceAccount.enabled", values: "join: {token: \"\", serviceAccount: {enabled: true}}", has: "- --service-account-token-file=/var/run/secrets/culvert/token\n", needs: "{hub: {address: \"h:1\", ca: system}, cluster: {uid: edge-1}}"},
	valueCase{path: "join.serviceAccount.enabled", values: "join: {token: \"\", serviceAccount: {enabled: true}}", kind: "ConfigMap", has: "state: /var/lib/culvert-agent\n", needs: "{hub: {address: \"h:1\", ca: system}, cluster: {uid: edge-1}}"},
	valueCase{path: "join.serviceAccount.audience", values: "join: {serviceAccount: {audience: tunnel}}", has: "audience: \"tunnel\"\n", needs: byAccount},
	valueCase{path: "join.acceptSeconds", values: "join: {acceptSeconds: 60}", has: "- --accept-timeout=60s\n"},
	valueCase{path: "join.acceptSeconds", values: "join: {acceptSeconds: 60}", has: "failureThreshold: 24\n"},
	valueCase{path: "certificate.secretName", values: `{join: {token: ""}, certificate: {secretName: mine}}`, kind: "ConfigMap", has: "certDir: /etc/culvert/certificate\n", needs: "hub: {address: \"h:1\"}"},
	valueCase{path: "certificate.secretName", values: `{join: {token: ""}, certificate: {secretName: mine}}`, has: "secretName: mine\n", needs: "hub: {address: \"h:1\"}"},
	valueCase{path: "certificate.secretName", values: `{join: {token: ""}, certificate: {secretName: mine}}`, kind: "Role", has: "secrets", gone: true, needs: "hub: {address: \"h:1\"}"},
	valueCase{path: "rbac.mode", values: "rbac: {mode: limited, users: [cluster:hub:alice]}", kind: "ClusterRole", has: "resources: [users, groups]", gone: true},
	valueCase{path: "rbac.mode", values: "rbac: {mode: constrained}", kind: "ClusterRole", has: "verbs: [\"impersonate:user-info\"]"},
	valueCase{path: "rbac.users", values: "rbac: {users: [cluster:hub:bob]}", kind: "ClusterRole", has: "- \"cluster:hub:bob\"\n", needs: "rbac: {mode: limited, users: [cluster:hub:alice]}"},
	valueCase{path: "rbac.groups", values: "rbac: {groups: [cluster:hub:dev]}", kind: "ClusterRole", has: "resources: [groups]\n  resourceNames:\n  - \"cluster:hub:dev\"\n", needs: "rbac: {mode: limited, users: [cluster:hub:alice]}"},
	valueCase{path: "rbac.verbs", values: "rbac: {verbs: [get, delete]}", kind: "ClusterRole", has: "- \"impersonate-on:user-info:delete\"\n", needs: "rbac: {mode: constrained}"},
	valueCase{path: "policy.document", values: "policy: {document: {kind: Policy, default: deny}}", kind: "ConfigMap", has: "policy.yaml: |\n    default: deny\n"},
	valueCase{path: "policy.document", values: "policy: {document: {kind: Policy}}", kind: "ConfigMap", has: "policy: /etc/culvert/policy/policy.yaml\n"},
	valueCase{path: "policy.configMapName", values: "policy: {configMapName: rules}", has: "configMap:\n          name: rules\n"},
	valueCase{path: "policy.key", values: "policy: {key: p.yaml}", kind: "ConfigMap", has: "policy: /etc/culvert/policy/p.yaml\n", needs: "policy: {configMapName: rules}"},
	valueCase{path: "allowServices", values: "allowServices: [default/web]", kind: "ConfigMap", has: "allowServices:\n    - default/web\n"},
	valueCase{path: "allowAddresses", values: "allowAddresses: [\"db:5432\"]", kind: "ConfigMap", has: "allowAddresses:\n    - db:5432\n"},
	valueCase{path: "readOnly", values: "readOnly: true", kind: "ConfigMap", has: "readOnly: true"},
	valueCase{path: "passThrough", values: "passThrough: true", kind: "ConfigMap", has: "passThrough: true\n"},
	valueCase{path: "kubernetesEndpoints", values: "kubernetesEndpoints: [\"10.0.0.1:6443\"]", kind: "ConfigMap", has: "kubernetesEndpoints:\n    - 10.0.0.1:6443\n"},
	valueCase{path: "proxy.url", values: "proxy: {url: \"http://proxy:3128\"}", kind: "ConfigMap", has: "url: http://proxy:3128"},
	valueCase{path: "proxy.noProxy", values: "proxy: {noProxy: [.internal]}", kind: "ConfigMap", has: "noProxy:\n      - .internal"},
	valueCase{path: "proxy.ca", values: "proxy: {ca: \"-----BEGIN CERTIFICATE-----\"}", kind: "ConfigMap", has: "ca: /etc/culvert/trust/proxy-ca.crt"},
	valueCase{path: "proxy.ca", values: "proxy: {ca: \"-----BEGIN CERTIFICATE-----\"}", kind: "ConfigMap", has: "proxy-ca.crt: |\n    -----BEGIN CERTIFICATE"},
	valueCase{path: "proxy.credentialsSecret.name", values: "proxy: {credentialsSecret: {name: p}}", has: "secretName: p\n"},
	valueCase{path: "proxy.credentialsSecret.key", values: "proxy: {credentialsSecret: {key: line}}", kind: "ConfigMap", has: "credentialsFile: /etc/culvert/proxy/line", needs: "proxy: {credentialsSecret: {name: p}}"},
	valueCase{path: "labels", values: "labels: {region: north}", kind: "ConfigMap", has: "labels:\n      region: north\n"},
	valueCase{path: "drainSeconds", values: "drainSeconds: 60", kind: "ConfigMap", has: "drainTimeout: 60s\n"},
	valueCase{path: "drainSeconds", values: "drainSeconds: 60", has: "terminationGracePeriodSeconds: 75\n"},
	valueCase{path: "memory", values: "memory: 1Gi", kind: "ConfigMap", has: "memory: 1Gi\n"},
	valueCase{path: "logFormat", values: "logFormat: text", has: "--log-format=text\n"},
	valueCase{path: "logLevel", values: "logLevel: debug", has: "--log-level=debug\n"},
	valueCase{path: "config", values: "config: {dnsServer: \"10.96.0.10:53\", memory: 99Mi}", kind: "ConfigMap", has: "dnsServer: 10.96.0.10:53\n"},
	valueCase{path: "config", values: "config: {memory: 99Mi}", kind: "ConfigMap", has: "memory: 99Mi\n"},
	valueCase{path: "podDisruptionBudget.enabled", values: "podDisruptionBudget: {enabled: false}", kind: "PodDisruptionBudget", has: "kind:", gone: true},
	valueCase{path: "podDisruptionBudget.maxUnavailable", values: "podDisruptionBudget: {maxUnavailable: 2}", kind: "PodDisruptionBudget", has: "maxUnavailable: 2\n"},
)
