{{/* Leaves room for the longest suffix within the 63 characters of a name. */}}
{{- define "hello.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* No version among the labels: a new component changes the image line and nothing else. */}}
{{- define "hello.labels" -}}
{{ include "hello.selector" . }}
app.kubernetes.io/part-of: taffrail
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The serving pods, and no pod of helm test. */}}
{{- define "hello.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hello.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "hello.componentImage" -}}
{{- with .Values.component.volume -}}
{{ .repository }}{{ with .tag }}:{{ . }}{{ end }}@{{ .digest }}
{{- end -}}
{{- end }}

{{- define "hello.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "hello.fullname" .) }}
{{- end }}

{{/* From Deployment to Rollout and back: Argo CD takes what serves now away when its successor serves. */}}
{{- define "hello.prunedLast" -}}
argocd.argoproj.io/sync-options: PruneLast=true
{{- end }}

{{/* One token a line. */}}
{{- define "hello.tokens" -}}
{{ join "\n" .Values.auth.tokens }}
{{- end }}

{{/* Named by its content: pods of two versions keep each their own tokens while a canary runs. */}}
{{- define "hello.tokenSecret" -}}
{{- if .Values.auth.existingSecret -}}
{{ .Values.auth.existingSecret }}
{{- else -}}
{{ include "hello.fullname" . }}-tokens-{{ include "hello.tokens" . | sha256sum | trunc 10 }}
{{- end -}}
{{- end }}

{{- define "hello.tokenVolume" -}}
- name: config
  secret:
    secretName: {{ include "hello.tokenSecret" . }}
    defaultMode: 0440
    items:
      - key: auth-tokens
        path: auth-tokens
{{- end }}

{{- define "hello.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "hello.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The kind that owns the pods, for everything that refers to it. */}}
{{- define "hello.workload" -}}
{{- if .Values.rollout.enabled -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end }}
name: {{ include "hello.fullname" . }}
{{- end }}

{{/* "true" where something in front of the Services splits the traffic; else the number of pods does. */}}
{{- define "hello.splitsTraffic" -}}
{{- if and .Values.rollout.enabled (ne .Values.rollout.trafficRouting "none") }}true{{ end -}}
{{- end }}

{{/* The Service that stands for the whole: where the traffic is split, the controller adds the canary to the stable one. */}}
{{- define "hello.frontService" -}}
{{ include "hello.fullname" . }}{{ if include "hello.splitsTraffic" . }}-stable{{ end }}
{{- end }}

{{/* An analysis by the template for `purpose`, of the canary's pods and the stable ones. */}}
{{- define "hello.analysis" -}}
templates:
  - templateName: {{ include "hello.fullname" .with }}-{{ .purpose }}
args:
  - name: canary-hash
    valueFrom: { podTemplateHashValue: Latest }
  - name: stable-hash
    valueFrom: { podTemplateHashValue: Stable }
{{- end }}
