{{/*
The panels of the dashboard: title, unit, and queries with their legends. Everything is about the release that the dashboard's
variables name.
*/}}
{{- define "hello.panels" }}
{{- $pods := `namespace="$namespace", service="${release}-metrics"` }}
{{- $all := dict "pods" $pods "over" "$__rate_interval" }}
- title: Requests a second by version
  unit: reqps
  queries:
    - {{ list "{{component}}" (include "hello.query.requests" (merge (dict "by" "component") $all)) | toJson }}
- title: Requests a second by outcome
  unit: reqps
  queries:
    - {{ list "{{reason}} {{code}}" (include "hello.query.requests" (merge (dict "by" "reason, code") $all)) | toJson }}
- title: Whose fault failures are
  unit: percentunit
  queries:
    - {{ list "the component's" (include "hello.query.guestFailures" $all) | toJson }}
    - {{ list "the host's" (include "hello.query.hostFailures" $all) | toJson }}
    - {{ list "the client's" (include "hello.query.clientFailures" $all) | toJson }}
- title: The component's failures by version
  unit: percentunit
  queries:
    - {{ list "{{component}}" (include "hello.query.guestFailures" (merge (dict "by" "component") $all)) | toJson }}
- title: Share of 403 by version
  unit: percentunit
  queries:
    - {{ list "{{component}}" (include "hello.query.forbidden" (merge (dict "by" "component") $all)) | toJson }}
- title: Duration of a request
  unit: s
  queries:
    - {{ list "p99" (include "hello.query.quantile" $all) | toJson }}
    - {{ list "p50" (include "hello.query.quantile" (merge (dict "quantile" 0.5) $all)) | toJson }}
- title: p99 by version
  unit: s
  queries:
    - {{ list "{{component}}" (include "hello.query.quantile" (merge (dict "by" "component") $all)) | toJson }}
{{- $firstByte := merge (dict "metric" "taffrail_time_to_first_byte_seconds") $all }}
- title: Time to the first byte
  unit: s
  queries:
    - {{ list "p99" (include "hello.query.quantile" $firstByte) | toJson }}
    - {{ list "p50" (include "hello.query.quantile" (merge (dict "quantile" 0.5) $firstByte)) | toJson }}
{{- $instantiate := merge (dict "metric" "taffrail_guest_instantiate_seconds") $all }}
- title: Time to a fresh instance
  unit: s
  queries:
    - {{ list "p99" (include "hello.query.quantile" $instantiate) | toJson }}
    - {{ list "p50" (include "hello.query.quantile" (merge (dict "quantile" 0.5) $instantiate)) | toJson }}
- title: Requests in flight, and how many may be
  unit: short
  queries:
    - {{ list "in flight" (printf "sum(taffrail_requests_in_flight{%s})" $pods) | toJson }}
    - {{ list "limit" (printf "sum(taffrail_requests_in_flight_limit{%s})" $pods) | toJson }}
- title: Saturation of the fullest pod
  unit: percentunit
  queries:
    - {{ list "saturation" (include "hello.query.saturation" $all) | toJson }}
- title: Refused requests a second
  unit: reqps
  queries:
    - {{ list "too many in flight" (include "hello.query.rate" (merge (dict "metric" "taffrail_requests_shed_total") $all)) | toJson }}
- title: Pods by version
  unit: short
  queries:
    - {{ list "{{digest}}" (printf "count by (digest) (taffrail_component_info{%s})" $pods) | toJson }}
- title: CPU, in cores
  unit: short
  queries:
    - {{ list "all" (include "hello.query.rate" (merge (dict "metric" "process_cpu_seconds_total") $all)) | toJson }}
    - {{ list "the component {{component}}" (include "hello.query.rate" (merge (dict "metric" "taffrail_guest_cpu_seconds_total" "by" "component") $all)) | toJson }}
- title: Memory of a pod
  unit: bytes
  queries:
    - {{ list "{{pod}}" (printf "process_resident_memory_bytes{%s}" $pods) | toJson }}
- title: Memory of an instance
  unit: bytes
  queries:
    - {{ list "p99" (include "hello.query.quantile" (merge (dict "metric" "taffrail_guest_memory_peak_bytes") $all)) | toJson }}
{{- end }}
