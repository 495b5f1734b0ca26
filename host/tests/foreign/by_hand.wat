;; A service of WASI 0.2.0, the first release, written by hand: it answers every request with 200 and a short text.
;;
;; A component in text form has three parts: what it imports (as little as it needs, but every type to the letter), a core
;; module that does the work on plain numbers, and between them the glue that turns numbers into types and back.
(component
  ;; --- What it imports.

  (import "wasi:io/error@0.2.0" (instance $error
    (export "error" (type (sub resource)))))
  (alias export $error "error" (type $io-error))

  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $output-stream (sub resource)))
    (type $failure (variant (case "last-operation-failed" (own $io-error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))

  (import "wasi:http/types@0.2.0" (instance $http
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type $response-outparam (sub resource)))
    (export "fields" (type $fields (sub resource)))
    (export "outgoing-response" (type $outgoing-response (sub resource)))
    (export "outgoing-body" (type $outgoing-body (sub resource)))

    ;; Two functions may be told of an error. This service never tells of one, and yet the type must be there, whole.
    (type $dns (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $DNS-error-payload (eq $dns)))
    (type $tls (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $TLS-alert-received-payload (eq $tls)))
    (type $size (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field-size-payload (eq $size)))
    (type $code (variant
      (case "DNS-timeout") (case "DNS-error" $DNS-error-payload) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited") (case "destination-IP-unroutable")
      (case "connection-refused") (case "connection-terminated") (case "connection-timeout")
      (case "connection-read-timeout") (case "connection-write-timeout") (case "connection-limit-reached")
      (case "TLS-protocol-error") (case "TLS-certificate-error") (case "TLS-alert-received" $TLS-alert-received-payload)
      (case "HTTP-request-denied") (case "HTTP-request-length-required") (case "HTTP-request-body-size" (option u64))
      (case "HTTP-request-method-invalid") (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $field-size-payload))
      (case "HTTP-request-trailer-section-size" (option u32)) (case "HTTP-request-trailer-size" $field-size-payload)
      (case "HTTP-response-incomplete") (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field-size-payload) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32)) (case "HTTP-response-trailer-size" $field-size-payload)
      (case "HTTP-response-transfer-coding" (option string)) (case "HTTP-response-content-coding" (option string))
      (case "HTTP-response-timeout") (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error-code (eq $code)))

    (export "[constructor]fields" (func (result (own $fields))))
    (export "[constructor]outgoing-response" (func (param "headers" (own $fields)) (result (own $outgoing-response))))
    (export "[method]outgoing-response.body" (func
      (param "self" (borrow $outgoing-response)) (result (result (own $outgoing-body)))))
    (export "[method]outgoing-body.write" (func
      (param "self" (borrow $outgoing-body)) (result (result (own $output-stream)))))
    (export "[static]outgoing-body.finish" (func
      (param "this" (own $outgoing-body)) (param "trailers" (option (own $fields))) (result (result (error $error-code)))))
    (export "[static]response-outparam.set" (func
      (param "param" (own $response-outparam)) (param "response" (result (own $outgoing-response) (error $error-code)))))))
  (alias export $http "incoming-request" (type $incoming-request))
  (alias export $http "response-outparam" (type $response-outparam))

  ;; --- The glue inwards: each import as a function of numbers. A handle is a number; what is more lies in memory, which
  ;; must be there before the functions, and so is an instance of its own.

  (core module $store
    (memory (export "memory") 1)
    ;; The host would ask here for room for the texts of an error.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable))
  (core instance $store (instantiate $store))
  (alias core export $store "memory" (core memory $memory))
  (alias core export $store "realloc" (core func $realloc))
  (core func $fields (canon lower (func $http "[constructor]fields")))
  (core func $response (canon lower (func $http "[constructor]outgoing-response")))
  (core func $body (canon lower (func $http "[method]outgoing-response.body") (memory $memory)))
  (core func $stream (canon lower (func $http "[method]outgoing-body.write") (memory $memory)))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
  (core func $close (canon resource.drop $output-stream))
  (core func $finish (canon lower (func $http "[static]outgoing-body.finish") (memory $memory) (realloc $realloc)))
  (core func $answer (canon lower (func $http "[static]response-outparam.set") (memory $memory)))
  (core func $forget (canon resource.drop $incoming-request))

  ;; --- The work.

  (core module $service
    (import "store" "memory" (memory 1))
    (import "wasi" "fields" (func $fields (result i32)))
    (import "wasi" "response" (func $response (param $fields i32) (result i32)))
    (import "wasi" "body" (func $body (param $response i32) (param $result i32)))
    (import "wasi" "stream" (func $stream (param $body i32) (param $result i32)))
    (import "wasi" "write" (func $write (param $stream i32) (param $text i32) (param $length i32) (param $result i32)))
    (import "wasi" "close" (func $close (param $stream i32)))
    (import "wasi" "finish" (func $finish (param $body i32) (param $is-some i32) (param $trailers i32) (param $result i32)))
    ;; After the response, room for the largest of the errors.
    (import "wasi" "answer" (func $answer
      (param $out i32) (param $is-error i32) (param $response i32) (param i32 i64 i32 i32 i32 i32)))
    (import "wasi" "forget" (func $forget (param $request i32)))

    (data (i32.const 0) "written by hand")

    ;; The results lie at 64: first whether it is an error, then, 4 bytes further, the handle.
    (func $handle-of-result (result i32)
      (if (i32.load8_u (i32.const 64)) (then unreachable))
      (i32.load (i32.const 68)))

    (func (export "handle") (param $request i32) (param $out i32)
      (local $response i32) (local $body i32) (local $stream i32)
      (call $forget (local.get $request))
      (local.set $response (call $response (call $fields)))
      (call $body (local.get $response) (i32.const 64))
      (local.set $body (call $handle-of-result))
      (call $answer (local.get $out) (i32.const 0) (local.get $response)
        (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (call $stream (local.get $body) (i32.const 64))
      (local.set $stream (call $handle-of-result))
      (call $write (local.get $stream) (i32.const 0) (i32.const 15) (i32.const 64))
      (call $close (local.get $stream))
      (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))))

  (core instance $service (instantiate $service
    (with "store" (instance $store))
    (with "wasi" (instance
      (export "fields" (func $fields)) (export "response" (func $response)) (export "body" (func $body))
      (export "stream" (func $stream)) (export "write" (func $write)) (export "close" (func $close))
      (export "finish" (func $finish)) (export "answer" (func $answer)) (export "forget" (func $forget))))))

  ;; --- The glue outwards: the handler, a function of numbers, as one of types.

  (func $handle (param "request" (own $incoming-request)) (param "response-out" (own $response-outparam))
    (canon lift (core func $service "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
