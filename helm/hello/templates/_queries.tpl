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

{{- define "hello.query.forbidden" -}}
{{ include "hello.query.share" (merge (dict "parts" (list `code="403"`) "of" (include "hello.query.notTheClients" .)) .) }}
{{- end }}

{{/* A `quantile` of the histogram `metric`, else the 99th percentile of the whole request; in seconds. */}}
{{- define "hello.query.quantile" -}}
{{- $metric := .metric | default "taffrail_http_request_duration_seconds" -}}
{{- $buckets := dict "metric" (printf "%s_bucket" $metric) "by" (join ", " (compact (list "le" .by))) -}}
histogram_quantile({{ .quantile | default 0.99 }}, {{ include "hello.query.rate" (merge $buckets .) }})
{{- end }}

{{/* That of the fullest pod, over the window. */}}
{{- define "hello.query.saturation" -}}
max{{ include "hello.query.by" . }}(avg_over_time(taffrail_saturation_ratio{ {{- .pods -}} }[{{ .over }}]))
{{- end }}

{{/*
The gate of a canary. PromQL has no variables, hence the length of what is rendered. Each query takes `over`, its window, and the labels
of the pods of the canary, of stable and of `both`.
*/}}

{{/* A duration such as 90s, 5m or 1h, in seconds. */}}
{{- define "hello.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "h" . }}{{ mul $number 3600 }}{{ else if hasSuffix "m" . }}{{ mul $number 60 }}{{ else }}{{ $number }}{{ end -}}
{{- end }}

{{/*
How often `metric` counted within the window, exactly: rate() and increase() extrapolate, and do not see a series' first value. A series
counts by what it has gained; whole where it has just begun (errors before the first scrape are in its first value), or has lost (its
process is a new one). Only pods that are there: those of an earlier attempt have no value any more.
*/}}
{{- define "hello.query.counted" -}}
{{- $series := printf "%s{%s, %s}" .metric .where .pods -}}
sum{{ include "hello.query.by" . }}({{ $series }} - {{ $series }} offset {{ .over }} >= 0 or {{ $series }})
{{- end }}

{{/*
Pods, of the canary or stable, of which Prometheus does not know how they stood when the window began, because it was away or has lost
its data: what they have counted is that of days. A pod that is new has two minutes to its first scrape.
*/}}
{{- define "hello.query.unknown" -}}
{{- $started := printf "process_start_time_seconds{%s}" .both -}}
({{ $started }} < time() - {{ include "hello.seconds" .over | add 120 }} unless {{ $started }} offset {{ .over }})
{{- end }}

{{/* Requests that say something of the version. */}}
{{- define "hello.query.judged" -}}
{{- $count := dict "metric" "taffrail_http_requests_total" "where" (include "hello.query.notTheClients" .) -}}
({{ include "hello.query.counted" (merge $count .) }} or vector(0))
{{- end }}

{{/* Those of them that succeeded: a 5xx of the component's own is a failure too. */}}
{{- define "hello.query.succeeded" -}}
{{- $count := dict "metric" "taffrail_http_requests_total" "where" `reason="ok", code!~"5.."` -}}
({{ include "hello.query.counted" (merge $count .) }} or vector(0))
{{- end }}

{{/* Edges of the buckets of taffrail_http_request_duration_seconds, in seconds (host/src/telemetry/metrics). */}}
{{- define "hello.edges" -}}
0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 20 30
{{- end }}

{{/* Requests with a duration, which all have. */}}
{{- define "hello.query.timed" -}}
{{- include "hello.query.counted" (merge (dict "metric" "taffrail_http_request_duration_seconds_bucket" "where" `le="+Inf"`) .) }}
{{- end }}

{{/*
Those of them that took no longer than the bound: `slowSeconds`, or else the smallest edge from `slowFloorSeconds` on within which stable
has 99 % of its requests, so the edge at or above its p99. A count rises with the edge, so the least of those that qualify is that of
the bound. Where stable's p99 is above the last edge +Inf alone qualifies, and nothing is slow.
*/}}
{{- define "hello.query.quick" -}}
{{- $edges := list -}}
{{- range splitList " " (include "hello.edges" .) -}}
{{- if empty $.slowSeconds | ternary (ge (float64 .) (float64 $.slowFloorSeconds)) (eq (float64 .) (float64 ($.slowSeconds | default 0))) -}}
{{- /* The host writes 1.0; what lies between may keep 1. */ -}}
{{- $edges = append $edges (printf "%s%s" (replace "." "[.]" .) (contains "." . | ternary "" "([.]0)?")) -}}
{{- end -}}
{{- end -}}
{{- if not .slowSeconds }}{{ $edges = append $edges "[+]Inf" }}{{ end -}}
{{- $bucket := dict "metric" "taffrail_http_request_duration_seconds_bucket" "where" (printf "le=~%q" (join "|" $edges)) "over" .over "by" "le" -}}
{{- $own := include "hello.query.counted" (merge (dict "pods" .pods) $bucket) -}}
{{- $ofStable := include "hello.query.counted" (merge (dict "pods" .stable) $bucket) -}}
{{- if .slowSeconds -}}
sum({{ $own }})
{{- else -}}
min({{ $own }} and on (le) {{ $ofStable }} >= 0.99 * scalar({{ include "hello.query.timed" (merge (dict "pods" .stable) .) }}))
{{- end -}}
{{- end }}

{{/*
Where the canary's share of good requests is smaller than stable's, `good` of `all` and `stableGood` of `stableAll`. By
`leastDifference`, below which nobody minds; and by so many `standardErrors` of a difference between two samples of the share of both
together, below which it is chance (two-proportion test, pooled variance). The value is the difference.
*/}}
{{- define "hello.query.worse" -}}
{{ .stableGood }}
/ {{ .stableAll }}
- {{ .good }}
/ {{ .all }}
> clamp_min({{ .standardErrors }} * sqrt(
  {{ .bothGood }}
  / {{ .bothAll }}
  * (1 - {{ .bothGood }}
  / {{ .bothAll }})
  * (1 / {{ .all }}
  + 1 / {{ .stableAll }})
), {{ .leastDifference }})
and {{ .stableAll }} >= {{ int64 .minRequests }}
{{- end }}

{{/*
In how many of the last two measurements `bad` had a value, as share: once decides nothing. Prometheus takes the two at whole multiples
of `interval`.
*/}}
{{- define "hello.query.twice" -}}
{{- $seconds := include "hello.seconds" .interval -}}
avg_over_time((
  (
    {{- .bad | nindent 4 }}
  ) > bool 0
  or vector(0)
)[{{ mul 2 $seconds }}s:{{ $seconds }}s])
{{- end }}

{{/*
1 where the canary fails more than stable, or more than `failureCeiling` while stable has too few requests to compare with; and not for
the sake of a few failures, of which two or three come by chance. 0 where it does not, and has requests enough to say so.
*/}}
{{- define "hello.query.failsMore" -}}
{{- $canary := merge (dict "pods" .canary) . -}}
{{- $stable := merge (dict "pods" .stable) . -}}
{{- $both := merge (dict "pods" .both) . -}}
{{- $all := include "hello.query.judged" $canary -}}
{{- $good := include "hello.query.succeeded" $canary -}}
{{- $stableAll := include "hello.query.judged" $stable -}}
{{- $shares := dict "all" $all "good" $good "stableAll" $stableAll "stableGood" (include "hello.query.succeeded" $stable) -}}
{{- $shares = merge $shares (dict "bothAll" (include "hello.query.judged" $both) "bothGood" (include "hello.query.succeeded" $both)) . -}}
{{- $bad := printf "(\n%s\nor 1 - %s\n/ %s > %v\nand %s < %d\n)" (include "hello.query.worse" $shares) $good $all .failureCeiling $stableAll (int64 .minRequests) -}}
{{- $bad = printf "%s\nand %s\n- %s >= %d" $bad $all $good (int64 .minFailures) -}}
{{- $unknown := include "hello.query.unknown" . -}}
{{- include "hello.query.twice" (merge (dict "bad" (printf "%s\nunless on () %s" $bad $unknown)) .) }} > 0
or 0 * ({{ $all }} >= {{ int64 .minRequests }} unless on () {{ $unknown }})
or vector(NaN)
{{- end }}

{{/*
1 where more of the canary's requests than of stable's are slow. Not while stable fails more, by `failureCeiling`: a failure is soon
answered, and the version that puts it right would be the slower one. 0 where not, and both have requests enough to say so.
*/}}
{{- define "hello.query.slower" -}}
{{- $canary := merge (dict "pods" .canary) . -}}
{{- $stable := merge (dict "pods" .stable) . -}}
{{- $both := merge (dict "pods" .both) . -}}
{{- $all := include "hello.query.timed" $canary -}}
{{- $good := include "hello.query.quick" $canary -}}
{{- $stableAll := include "hello.query.timed" $stable -}}
{{- $shares := dict "all" $all "good" $good "stableAll" $stableAll "stableGood" (include "hello.query.quick" $stable) -}}
{{- $shares = merge $shares (dict "bothAll" (include "hello.query.timed" $both) "bothGood" (include "hello.query.quick" $both)) . -}}
{{- $bad := printf "%s\nand %s\n- %s >= %d" (include "hello.query.worse" $shares) $all $good (int64 .minFailures) -}}
{{- $succeeded := printf "%s\n/ %s" (include "hello.query.succeeded" $canary) (include "hello.query.judged" $canary) -}}
{{- $stableSucceeded := printf "%s\n/ %s" (include "hello.query.succeeded" $stable) (include "hello.query.judged" $stable) -}}
{{- $bad = printf "%s\nunless %s\n- %s > %v" $bad $succeeded $stableSucceeded .failureCeiling -}}
{{- $unknown := include "hello.query.unknown" . -}}
{{- include "hello.query.twice" (merge (dict "bad" (printf "%s\nunless on () %s" $bad $unknown)) .) }} > 0
or 0 * ({{ $all }} >= {{ int64 .minRequests }} and {{ $stableAll }} >= {{ int64 .minRequests }} unless on () {{ $unknown }})
or vector(NaN)
{{- end }}

{{/* 1 where a pod of the canary is fuller than `saturationRatio`, on average over the window; 0 where none is. */}}
{{- define "hello.query.saturated" -}}
{{- $saturation := include "hello.query.saturation" (merge (dict "pods" .canary) .) -}}
{{- include "hello.query.twice" (merge (dict "bad" (printf "%s > %v" $saturation .saturationRatio)) .) }} and {{ $saturation }}
or vector(NaN)
{{- end }}
