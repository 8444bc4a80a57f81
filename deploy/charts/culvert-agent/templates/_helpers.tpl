{{- define "culvert-agent.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "culvert-agent" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-culvert-agent" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "culvert-agent.serviceAccountName" -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.name: required when serviceAccount.create is false: the name of the account that is there already" -}}
{{- end -}}
{{- .Values.serviceAccount.name | default (include "culvert-agent.fullname" .) -}}
{{- end -}}

{{- define "culvert-agent.selectorLabels" -}}
app.kubernetes.io/name: culvert-agent
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of an object, as YAML. What selects pods is nobody's to change. */}}
{{- define "culvert-agent.labels" -}}
{{- $root := .root -}}
{{- $labels := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/part-of" "culvert" "app.kubernetes.io/managed-by" $root.Release.Service "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- toYaml (mergeOverwrite $labels ($root.Values.commonLabels | default dict) (.labels | default dict) (include "culvert-agent.selectorLabels" $root | fromYaml)) -}}
{{- end -}}

{{/* Labels and annotations of an object's metadata. Call it with root and, where it has some of its own, labels and annotations. */}}
{{- define "culvert-agent.meta" -}}
labels:
  {{- include "culvert-agent.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: without the chart's version, so that a chart that changes nothing of the pod does not replace it. */}}
{{- define "culvert-agent.podLabels" -}}
{{- $labels := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "culvert" -}}
{{- toYaml (mergeOverwrite $labels (.Values.commonLabels | default dict) (.Values.podLabels | default dict) (include "culvert-agent.selectorLabels" . | fromYaml)) -}}
{{- end -}}

{{/* Further fields of a pod. Those that the chart sets are refused: they would be there twice. */}}
{{- define "culvert-agent.podSpec" -}}
{{- range $field := list "affinity" "automountServiceAccountToken" "containers" "enableServiceLinks" "imagePullSecrets" "nodeSelector" "priorityClassName" "securityContext" "serviceAccountName" "terminationGracePeriodSeconds" "tolerations" "topologySpreadConstraints" "volumes" -}}
{{- if hasKey ($.Values.podSpec | default dict) $field -}}
{{- fail (printf "podSpec.%s: the chart sets this field: there is a value for it" $field) -}}
{{- end -}}
{{- end -}}
{{- with .Values.podSpec }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "culvert-agent.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* How the agent gets its certificate: token, account or certificate. */}}
{{- define "culvert-agent.way" -}}
{{- $ways := list -}}
{{- if .Values.join.token }}{{ $ways = append $ways "join.token" }}{{ end -}}
{{- if .Values.join.tokenSecret.name }}{{ $ways = append $ways "join.tokenSecret.name" }}{{ end -}}
{{- if .Values.join.serviceAccount.enabled }}{{ $ways = append $ways "join.serviceAccount.enabled" }}{{ end -}}
{{- if .Values.certificate.secretName }}{{ $ways = append $ways "certificate.secretName" }}{{ end -}}
{{- if gt (len $ways) 1 -}}
{{- fail (printf "%s: the agent's certificate comes from one place: give one of them" (join ", " $ways)) -}}
{{- end -}}
{{- if not $ways -}}
{{- fail "join.token: required, unless join.tokenSecret.name, join.serviceAccount.enabled or certificate.secretName is given: make a token with culvert token create --cluster NAME at the hub" -}}
{{- end -}}
{{- if has (first $ways) (list "join.token" "join.tokenSecret.name") -}}
token
{{- else if .Values.join.serviceAccount.enabled -}}
account
{{- else -}}
certificate
{{- end -}}
{{- end -}}

{{/* The join token, from the line that culvert token create prints, or alone. */}}
{{- define "culvert-agent.token" -}}
{{- $token := regexFind "culvert-join\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+" .Values.join.token -}}
{{- if not $token -}}
{{- fail "join.token: no join token: it begins with culvert-join., and culvert token create prints it" -}}
{{- end -}}
{{- $token -}}
{{- end -}}

{{/* The user as whom the agent reads and writes its Secret: no caller of the hub can become one of system:. */}}
{{- define "culvert-agent.stateUser" -}}
{{- printf "system:culvert:agent:%s:%s" .Release.Namespace (include "culvert-agent.fullname" .) -}}
{{- end -}}

{{/* The CA of the hub as PEM; empty without one, or for the system's. */}}
{{- define "culvert-agent.hubCA" -}}
{{- $ca := .Values.hub.ca -}}
{{- if and $ca (ne $ca "system") -}}
{{- if contains "-----BEGIN" $ca -}}
{{- $ca -}}
{{- else -}}
{{- $text := regexReplaceAll "\\s" $ca "" | b64dec -}}
{{- if not (contains "-----BEGIN" $text) -}}
{{- fail "hub.ca: neither PEM, base64 of PEM nor system" -}}
{{- end -}}
{{- $text -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "culvert-agent.policy" -}}
{{- if and .Values.policy.document .Values.policy.configMapName -}}
{{- fail "policy.document, policy.configMapName: give one of them" -}}
{{- end -}}
{{- with .Values.policy.document }}{{ toYaml . }}{{ end -}}
{{- end -}}
