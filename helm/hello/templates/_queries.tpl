{{/*
What is asked of the host's metrics (host/src/telemetry/metrics), once for analysis, rules and dashboard. Each query takes a dict:
`pods`, the labels that pick them; `over`, the window of its rates; `by`, the labels to group by, if any.
*/}}

{{/* The labels that the ServiceMonitor gives every pod of the release. */}}
{{- define "hello.query.pods" -}}
namespace="{{ .Release.Namespace }}", service="{{ include "hello.fullname" . }}-metrics"
{{- end }}

{{- define "hello.query.by" -}}
{{ with .by }} by ({{ . }}) {{ end }}
{{- end }}

{{/* The counter `metric` a second; `where` narrows it. */}}
{{- define "hello.query.rate" -}}
sum{{ include "hello.query.by" . }}(rate({{ .metric }}{ {{- with .where }}{{ . }}, {{ end }}{{ .pods -}} }[{{ .over }}]))
{{- end }}

{{/* Requests a second. */}}
{{- define "hello.query.requests" -}}
{{ include "hello.query.rate" (merge (dict "metric" "taffrail_http_requests_total") .) }}
{{- end }}

{{/* What the client did wrong is neither the component's success nor its failure. */}}
{{- define "hello.query.notTheClients" -}}
reason!~"client_.*"
{{- end }}

{{/* The share of the requests that one of `parts` picks. What never happened has no series, hence the 0. */}}
{{- define "hello.query.share" -}}
{{- $all := include "hello.query.requests" (merge (dict "where" .of) .) -}}
{{- $parts := list -}}
{{- range .parts -}}
{{- $parts = append $parts (printf "rate(taffrail_http_requests_total{%s, %s}[%s])" . $.pods $.over) -}}
{{- end -}}
(
  sum{{ include "hello.query.by" . }}({{ join " or " $parts }})
  or
  0 * {{ $all }}
) / {{ $all }}
{{- end }}

{{/* A component that answers 5xx itself has failed as well; the reason is ok then, because it did answer. */}}
{{- define "hello.query.guestFailures" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `reason=~"guest_.*"` `reason="ok", code=~"5.."`)) .) }}
{{- end }}

{{- define "hello.query.hostFailures" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `reason=~"host_.*"`)) .) }}
{{- end }}

{{- define "hello.query.clientFailures" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `reason=~"client_.*"`)) .) }}
{{- end }}

{{- define "hello.query.successes" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `reason="ok", code!~"5.."`) "of" (include "hello.query.notTheClients" .)) .) }}
{{- end }}

{{- define "hello.query.forbidden" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `code="403"`) "of" (include "hello.query.notTheClients" .)) .) }}
{{- end }}

{{/* A `quantile` of the histogram `metric`, else the 99th percentile of the whole request; in seconds. */}}
{{- define "hello.query.quantile" -}}
{{- $metric := .metric | default "taffrail_http_request_duration_seconds" -}}
{{- $buckets := dict "metric" (printf "%s_bucket" $metric) "by" (join ", " (compact (list "le" .by))) -}}
histogram_quantile({{ .quantile | default 0.99 }}, {{ include "hello.query.rate" (merge $buckets .) }})
{{- end }}

{{/* That of the fullest pod. */}}
{{- define "hello.query.saturation" -}}
max{{ include "hello.query.by" . }}(avg_over_time(taffrail_saturation_ratio{ {{- .pods -}} }[{{ .over }}]))
{{- end }}
