{{- define "hello.testSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/*
A pod that runs one script with curl. `promise` names it, `script` is its body, `with` is the root context.
The script has $service, and get: status and body of an answer on one line.
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
  containers:
    - name: test
      image: {{ .with.Values.tests.image }}
      command: [sh, -euc]
      args:
        - |
          service=http://{{ include "hello.fullname" .with }}:{{ .with.Values.service.port }}
          get() { curl --silent --show-error --max-time 10 --retry 3 --write-out ' %{http_code}' "$@"; }
          expect() { echo "$1"; test "$1" = "$2" || { echo "expected: $2" >&2; exit 1; }; }
          {{- .script | nindent 10 }}
      resources:
        requests: { cpu: 10m, memory: 32Mi }
        limits: { cpu: 100m, memory: 64Mi }
      securityContext:
        {{- include "hello.containerSecurity" .with | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/taffrail
          readOnly: true
  volumes:
    {{- include "hello.tokenVolume" .with | nindent 4 }}
{{- end }}
{{- end }}
