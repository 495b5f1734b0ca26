{{/* The one pod template, for Deployment and Rollout. */}}
{{- define "hello.podTemplate" -}}
{{- $taffrail := .Values.taffrail -}}
{{- $fromVolume := eq .Values.component.source "imageVolume" -}}
metadata:
  labels:
    {{- include "hello.selector" . | nindent 4 }}
    {{- with .Values.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.pod.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "hello.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Delay and timeout of the drain, and 5 s to end in.
  terminationGracePeriodSeconds: {{ add $taffrail.drainDelaySeconds $taffrail.drainTimeoutSeconds 5 }}
  securityContext:
    {{- include "hello.podSecurity" . | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  containers:
    - name: taffrail
      image: {{ include "hello.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        - name: TAFFRAIL_LISTEN
          value: 0.0.0.0:8080
        - name: TAFFRAIL_ADMIN_LISTEN
          value: 0.0.0.0:9090
        - name: TAFFRAIL_COMPONENT
          value: {{ $fromVolume | ternary (printf "/component/%s" .Values.component.volume.file) "/component.wasm" }}
        - name: TAFFRAIL_CONFIG_DIR
          value: /etc/taffrail
        - name: TAFFRAIL_DRAIN_DELAY
          value: {{ $taffrail.drainDelaySeconds }}s
        - name: TAFFRAIL_DRAIN_TIMEOUT
          value: {{ $taffrail.drainTimeoutSeconds }}s
        - name: TAFFRAIL_LOG
          value: {{ $taffrail.log | quote }}
        - name: TAFFRAIL_LOG_FORMAT
          value: json
        - name: TAFFRAIL_HEALTH_PATH
          value: {{ $taffrail.healthPath | quote }}
        - name: TAFFRAIL_APPLICATION
          value: {{ $taffrail.application | quote }}
        {{- with $taffrail.maxInFlight }}
        - name: TAFFRAIL_MAX_IN_FLIGHT
          value: {{ int64 . | quote }}
        {{- end }}
        {{- with $taffrail.maxBody }}
        - name: TAFFRAIL_MAX_BODY
          value: {{ . | quote }}
        {{- end }}
        {{- range $name, $value := $taffrail.more }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      ports:
        - name: http
          containerPort: 8080
        - name: admin
          containerPort: 9090
      # Compiling the component is the slow part of a start: a minute of it is allowed.
      startupProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 5
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 3
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "hello.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/taffrail
          readOnly: true
        {{- if $fromVolume }}
        - name: component
          mountPath: /component
          readOnly: true
        {{- end }}
  volumes:
    {{- include "hello.tokenVolume" . | nindent 4 }}
    {{- if $fromVolume }}
    - name: component
      image:
        reference: {{ include "hello.componentImage" . }}
        pullPolicy: {{ .Values.component.volume.pullPolicy }}
    {{- end }}
  {{- with .Values.scheduling }}
  {{- with .spreadOver }}
  topologySpreadConstraints:
    {{- range . }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "hello.selector" $ | nindent 10 }}
      # Each version is spread for itself: the old one's pods are about to leave.
      matchLabelKeys: [{{ $.Values.rollout.enabled | ternary "rollouts-pod-template-hash" "pod-template-hash" }}]
    {{- end }}
  {{- end }}
  {{- if or .antiAffinity .nodeAffinity }}
  affinity:
    {{- if .antiAffinity }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "hello.selector" $ | nindent 16 }}
    {{- end }}
    {{- with .nodeAffinity }}
    nodeAffinity:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with .nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- end }}
{{- end }}
