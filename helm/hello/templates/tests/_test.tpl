{{- define "hello.testSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/*
A pod of the product's own image that asks the Service. `promise` names it; `requests` are its containers, each the arguments of one
`taffrail probe` by its name; `tokens` mounts the clients' tokens; `with` is the root context.
*/}}
{{- define "hello.testPod" -}}
{{- if .with.Values.tests.enabled }}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "hello.fullname" .with }}-test-{{ .promise }}
  labels:
    {{- include "hello.testSelector" .with | nindent 4 }}
    app.kubernetes.io/managed-by: {{ .with.Release.Service }}
  annotations:
    helm.sh/hook: test
    # A failed one stays, for its log.
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "hello.serviceAccount" .with }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "hello.podSecurity" .with | nindent 4 }}
  {{- with .with.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    {{- range $name, $arguments := .requests }}
    - name: {{ $name }}
      image: {{ include "hello.image" $.with }}
      imagePullPolicy: {{ $.with.Values.image.pullPolicy }}
      args:
        - probe
        {{- range $arguments }}
        - {{ . | quote }}
        {{- end }}
      resources:
        requests: { cpu: 10m, memory: 32Mi }
        limits: { cpu: 100m, memory: 64Mi }
      securityContext:
        {{- include "hello.containerSecurity" $.with | nindent 8 }}
      {{- if $.tokens }}
      volumeMounts:
        - name: config
          mountPath: /etc/taffrail
          readOnly: true
      {{- end }}
    {{- end }}
  {{- if .tokens }}
  volumes:
    {{- include "hello.tokenVolume" .with | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where the tests reach the service. */}}
{{- define "hello.testUrl" -}}
http://{{ include "hello.fullname" . }}:{{ .Values.service.port }}
{{- end }}
