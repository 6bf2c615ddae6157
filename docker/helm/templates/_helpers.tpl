{{- /* Each takes a dict: root, part (server, worker or saas). */ -}}

{{- define "fishserve.name" -}}
{{- printf "%s-%s" (.root.Release.Name | trunc 50 | trimSuffix "-") .part }}
{{- end }}

{{- define "fishserve.selector" -}}
app.kubernetes.io/name: fishserve
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "fishserve.metadata" -}}
name: {{ include "fishserve.name" . }}
labels:
  {{- include "fishserve.selector" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "fishserve.pod" -}}
{{- $values := index .root.Values .part -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false # a Service `fishserve-saas` would set FISHSERVE_SAAS_PORT
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fishserve.container" -}}
{{- $values := index .root.Values .part -}}
name: {{ .part }}
image: {{ $values.image }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  {{- if eq .part "saas" }}
  readOnlyRootFilesystem: true
  {{- end }}
resources:
  requests:
    {{- toYaml $values.resources.requests | nindent 4 }}
    {{- if $values.gpus }}
    nvidia.com/gpu: {{ $values.gpus }}
    {{- end }}
  limits:
    {{- toYaml $values.resources.limits | nindent 4 }}
    {{- if $values.gpus }}
    nvidia.com/gpu: {{ $values.gpus }}
    {{- end }}
{{- with $values.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "fishserve.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}

{{- define "fishserve.models" -}}
{{- $values := index .root.Values .part -}}
- name: models
  {{- if $values.modelsClaim }}
  persistentVolumeClaim: {claimName: {{ $values.modelsClaim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
