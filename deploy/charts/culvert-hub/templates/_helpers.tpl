{{/* Whether anything is rendered: hub.enabled, or frps.frps.enabled where it is said. */}}
{{- define "culvert-hub.enabled" -}}
{{- $frps := (.Values.frps).frps | default dict -}}
{{- if hasKey $frps "enabled" -}}
{{- if and $frps.enabled .Values.hub.enabled }}true{{ end -}}
{{- else if .Values.hub.enabled -}}
true
{{- end -}}
{{- end -}}

{{- define "culvert-hub.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "culvert-hub" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-culvert-hub" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "culvert-hub.serviceName" -}}
{{- .Values.service.name | default (include "culvert-hub.fullname" .) -}}
{{- end -}}

{{- define "culvert-hub.serviceAccountName" -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: required when serviceAccount.create is false: the name of the account that is there already" -}}
{{- end -}}
{{- .Values.serviceAccount.name | default (include "culvert-hub.fullname" .) -}}
{{- end -}}

{{- define "culvert-hub.selectorLabels" -}}
app.kubernetes.io/name: culvert-hub
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of an object, as YAML. What selects pods is nobody's to change. */}}
{{- define "culvert-hub.labels" -}}
{{- $root := .root -}}
{{- $labels := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/part-of" "culvert" "app.kubernetes.io/managed-by" $root.Release.Service "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- toYaml (mergeOverwrite $labels ($root.Values.commonLabels | default dict) (.labels | default dict) (include "culvert-hub.selectorLabels" $root | fromYaml)) -}}
{{- end -}}

{{/* Labels and annotations of an object's metadata. Call it with root and, where it has some of its own, labels and annotations. */}}
{{- define "culvert-hub.meta" -}}
labels:
  {{- include "culvert-hub.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: without the chart's version, so that a chart that changes nothing of the pod does not replace it. */}}
{{- define "culvert-hub.podLabels" -}}
{{- $labels := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "culvert" -}}
{{- toYaml (mergeOverwrite $labels (.Values.commonLabels | default dict) (.Values.podLabels | default dict) (include "culvert-hub.selectorLabels" . | fromYaml)) -}}
{{- end -}}

{{/* Further fields of a pod. Those that the chart sets are refused: they would be there twice. */}}
{{- define "culvert-hub.podSpec" -}}
{{- range $field := list "affinity" "automountServiceAccountToken" "containers" "enableServiceLinks" "imagePullSecrets" "nodeSelector" "priorityClassName" "securityContext" "serviceAccountName" "terminationGracePeriodSeconds" "tolerations" "topologySpreadConstraints" "volumes" -}}
{{- if hasKey ($.Values.podSpec | default dict) $field -}}
{{- fail (printf "podSpec.%s: the chart sets this field: there is a value for it" $field) -}}
{{- end -}}
{{- end -}}
{{- with .Values.podSpec }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "culvert-hub.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The public name, from hub.publicHost or the frps block. */}}
{{- define "culvert-hub.publicHost" -}}
{{- $frps := ((.Values.frps).frps).frpHostURL | default "" -}}
{{- $host := .Values.hub.publicHost | default $frps -}}
{{- $field := ternary "hub.publicHost" "frps.frps.frpHostURL" (ne .Values.hub.publicHost "") -}}
{{- if not $host -}}
{{- fail "hub.publicHost: required: the host name or IP address under which callers and agents reach the hub, such as hub.example.com" -}}
{{- end -}}
{{- if and $frps (ne $frps $host) -}}
{{- fail (printf "hub.publicHost, frps.frps.frpHostURL: %q and %q differ: give one of them" .Values.hub.publicHost $frps) -}}
{{- end -}}
{{- if contains "://" $host -}}
{{- fail (printf "%s: %q has a scheme: give the host alone, %q. It goes into certificates, DNS and join tokens, which know no schemes; callers always use https" $field $host (regexReplaceAll "^[^:]*://([^/:]*).*$" $host "${1}")) -}}
{{- end -}}
{{- if regexMatch "[/?#@]" $host -}}
{{- fail (printf "%s: %q has more than a host: give the host name or IP address alone, such as hub.example.com" $field $host) -}}
{{- end -}}
{{- if regexMatch "^[^:]*:[0-9]+$" $host -}}
{{- fail (printf "%s: %q has a port: give the host alone, and the port as service.port, or what agents dial as hub.publicAddress" $field $host) -}}
{{- end -}}
{{- if not (regexMatch "^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*|[0-9a-fA-F:.]+)$" $host) -}}
{{- fail (printf "%s: %q is no host name or IP address, such as hub.example.com" $field $host) -}}
{{- end -}}
{{- $host -}}
{{- end -}}

{{/* Whether a text is an IP address and no name. */}}
{{- define "culvert-hub.isAddress" -}}
{{- if regexMatch "^([0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)$" . }}true{{ end -}}
{{- end -}}

{{/* host:port with brackets around an IPv6 address. */}}
{{- define "culvert-hub.hostPort" -}}
{{- if contains ":" .host }}[{{ .host }}]:{{ .port }}{{ else }}{{ .host }}:{{ .port }}{{ end -}}
{{- end -}}

{{/* The port at which callers reach the hub from outside. */}}
{{- define "culvert-hub.publicPort" -}}
{{- if and (eq .Values.service.type "NodePort") .Values.service.nodePort -}}
{{- .Values.service.nodePort -}}
{{- else if and .Values.service.ingress.enabled (eq .Values.service.type "ClusterIP") -}}
443
{{- else -}}
{{- .Values.service.port -}}
{{- end -}}
{{- end -}}

{{- define "culvert-hub.advertise" -}}
{{- $host := include "culvert-hub.publicHost" . -}}
{{- $agent := .Values.service.agent -}}
{{- if .Values.hub.publicAddress -}}
{{- if contains "://" .Values.hub.publicAddress -}}
{{- fail (printf "hub.publicAddress: %q has a scheme: give host:port alone, which agents dial" .Values.hub.publicAddress) -}}
{{- end -}}
{{- if not (regexMatch ":[0-9]+$" .Values.hub.publicAddress) -}}
{{- fail (printf "hub.publicAddress: %q has no port: give host:port, which agents dial" .Values.hub.publicAddress) -}}
{{- end -}}
{{- .Values.hub.publicAddress -}}
{{- else if eq $agent.type "None" -}}
{{- include "culvert-hub.hostPort" (dict "host" $host "port" (include "culvert-hub.publicPort" .)) -}}
{{- else if and (eq $agent.type "NodePort") $agent.nodePort -}}
{{- include "culvert-hub.hostPort" (dict "host" $host "port" $agent.nodePort) -}}
{{- else -}}
{{- include "culvert-hub.hostPort" (dict "host" $host "port" $agent.port) -}}
{{- end -}}
{{- end -}}

{{/* A text that is PEM or base64 of PEM, as base64 of PEM for a Secret. Call it with the field's name and value. */}}
{{- define "culvert-hub.pem" -}}
{{- if contains "-----BEGIN" .value -}}
{{- .value | b64enc -}}
{{- else -}}
{{- $text := regexReplaceAll "\\s" .value "" -}}
{{- if not (contains "-----BEGIN" ($text | b64dec)) -}}
{{- fail (printf "%s: neither PEM nor base64 of PEM" .field) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
{{- end -}}

{{/* The certificate that values give as text, as JSON: crt, key, ca with the fields' names. */}}
{{- define "culvert-hub.inline" -}}
{{- $frps := (.Values.frps).frps | default dict -}}
{{- $crt := .Values.hub.tls.crt | default (($frps).server).crt | default "" -}}
{{- $key := .Values.hub.tls.key | default (($frps).server).key | default "" -}}
{{- $ca := .Values.hub.ca.crt | default (($frps).ca).crt | default "" -}}
{{- if and (or $crt $key) (not (and $crt $key)) -}}
{{- fail "hub.tls.crt, hub.tls.key: give both, or neither" -}}
{{- end -}}
{{- if and $ca (not $crt) -}}
{{- fail "hub.ca.crt: without hub.tls.crt and hub.tls.key there is no certificate that it could have issued" -}}
{{- end -}}
{{- dict "crt" $crt "key" $key "ca" $ca | toJson -}}
{{- end -}}

{{/* The Secret of the serving certificate; empty where the hub issues its own. */}}
{{- define "culvert-hub.tlsSecret" -}}
{{- $inline := (include "culvert-hub.inline" . | fromJson).crt -}}
{{- $ways := 0 -}}
{{- range list $inline .Values.tls.secretName .Values.tls.certManager.enabled }}{{ if . }}{{ $ways = add1 $ways }}{{ end }}{{ end -}}
{{- if gt (int $ways) 1 -}}
{{- fail "hub.tls, tls.secretName, tls.certManager.enabled: the serving certificate comes from one place: give one of them" -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- .Values.tls.secretName -}}
{{- else if or $inline .Values.tls.certManager.enabled -}}
{{- printf "%s-tls" (include "culvert-hub.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Names for certificates: the public one, further ones and the Service's four. */}}
{{- define "culvert-hub.serviceNames" -}}
{{- $service := include "culvert-hub.serviceName" . -}}
- {{ $service }}
- {{ $service }}.{{ .Release.Namespace }}
- {{ $service }}.{{ .Release.Namespace }}.svc
- {{ $service }}.{{ .Release.Namespace }}.svc.cluster.local
{{- end -}}

{{/* Whether the hub talks to its own cluster. */}}
{{- define "culvert-hub.inCluster" -}}
{{- if or .Values.callers.tokenReview.enabled .Values.policy.subjectAccessReview }}true{{ end -}}
{{- end -}}

{{/* The policy, with what serviceProxy.enabled adds; empty without one. */}}
{{- define "culvert-hub.policy" -}}
{{- $document := deepCopy .Values.policy.document -}}
{{- if and $document .Values.policy.configMapName -}}
{{- fail "policy.document, policy.configMapName: give one of them" -}}
{{- end -}}
{{- if not .Values.serviceProxy.enabled -}}
{{- if .Values.policy.configMapName -}}
{{- fail "serviceProxy.enabled: false cannot be added to the policy of policy.configMapName: give a rule there that denies all services" -}}
{{- end -}}
{{- $document = $document | default (dict "apiVersion" "policy.culvert.dev/v1" "kind" "Policy") -}}
{{- $deny := dict "name" "service-proxy-is-off" "effect" "deny" "services" (list (dict "namespace" "*" "name" "*")) -}}
{{- $_ := set $document "rules" (append ($document.rules | default list) $deny) -}}
{{- end -}}
{{- with $document }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* How a Service is reached: call it with field, its path in the values, and service. What Kubernetes would refuse of a type is refused here by the value's name. */}}
{{- define "culvert-hub.exposure" -}}
{{- $field := .field -}}
{{- $type := .service.type -}}
{{- if and .service.nodePort (not (has $type (list "NodePort" "LoadBalancer"))) -}}
{{- fail (printf "%s.nodePort: only with %s.type NodePort or LoadBalancer" $field $field) -}}
{{- end -}}
{{- if and .service.externalTrafficPolicy (not (has $type (list "NodePort" "LoadBalancer"))) -}}
{{- fail (printf "%s.externalTrafficPolicy: only with %s.type NodePort or LoadBalancer" $field $field) -}}
{{- end -}}
{{- range $key := list "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" -}}
{{- if and (index $.service $key) (ne $type "LoadBalancer") -}}
{{- fail (printf "%s.%s: only with %s.type LoadBalancer" $field $key $field) -}}
{{- end -}}
{{- end -}}
type: {{ $type }}
# There is one pod: where it is not ready, nobody else answers in its place.
publishNotReadyAddresses: true
{{- with .service.loadBalancerClass }}
loadBalancerClass: {{ . }}
{{- end }}
{{- with .service.loadBalancerIP }}
loadBalancerIP: {{ . | quote }}
{{- end }}
{{- with .service.loadBalancerSourceRanges }}
loadBalancerSourceRanges:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .service.externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- with .ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
