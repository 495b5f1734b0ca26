// Greets who asks, and echoes what is posted. `service.h` comes from wit-bindgen; so do its long names.
#include "service.h"

#include <stdio.h>
#include <stdlib.h>

typedef wasi_http_types_borrow_incoming_request_t request_t;
typedef wasi_io_streams_borrow_output_stream_t output_t;

static void must(bool done, const char *what) {
  if (done) return;
  fprintf(stderr, "cannot %s\n", what);
  abort();
}

static void write_all(output_t out, service_list_u8_t *bytes) {
  wasi_io_streams_stream_error_t error;
  must(wasi_io_streams_method_output_stream_blocking_write_and_flush(out, bytes, &error), "write");
}

static void greet(request_t request, output_t out) {
  service_string_t header = {(uint8_t *)"x-name", 6};
  wasi_http_types_own_headers_t headers = wasi_http_types_method_incoming_request_headers(request);
  wasi_http_types_list_field_value_t names;
  wasi_http_types_method_fields_get(wasi_http_types_borrow_fields(headers), &header, &names);

  wasi_http_types_field_value_t name = {0};
  if (names.len > 0) name = names.ptr[0];
  char text[256];
  int length = snprintf(text, sizeof text, "Hello %.*s, here is C", (int)(name.len < 200 ? name.len : 200), (char *)name.ptr);
  write_all(out, &(service_list_u8_t){(uint8_t *)text, length});
  fprintf(stderr, "greeted\n"); // takes the way through the C library, which knows WASI 0.1 alone, and the linker's adapter
  wasi_http_types_list_field_value_free(&names);
  wasi_http_types_fields_drop_own(headers);
}

static void echo(request_t request, output_t out) {
  wasi_http_types_own_incoming_body_t body;
  wasi_io_streams_own_input_stream_t stream;
  must(wasi_http_types_method_incoming_request_consume(request, &body), "take the body");
  must(wasi_http_types_method_incoming_body_stream(wasi_http_types_borrow_incoming_body(body), &stream), "take the stream");

  service_list_u8_t chunk;
  wasi_io_streams_stream_error_t error;
  wasi_io_streams_borrow_input_stream_t in = wasi_io_streams_borrow_input_stream(stream);
  while (wasi_io_streams_method_input_stream_blocking_read(in, 4096, &chunk, &error)) { // the most that one write takes
    write_all(out, &chunk);
    service_list_u8_free(&chunk);
  }
  must(error.tag == WASI_IO_STREAMS_STREAM_ERROR_CLOSED, "read");
  wasi_io_streams_input_stream_drop_own(stream);
  wasi_http_types_incoming_body_drop_own(body);
}

void exports_wasi_http_incoming_handler_handle(
    exports_wasi_http_incoming_handler_own_incoming_request_t owned_request,
    exports_wasi_http_incoming_handler_own_response_outparam_t response_out) {
  request_t request = wasi_http_types_borrow_incoming_request(owned_request);
  wasi_http_types_own_outgoing_response_t response =
      wasi_http_types_constructor_outgoing_response(wasi_http_types_constructor_fields());
  wasi_http_types_own_outgoing_body_t body;
  wasi_io_streams_own_output_stream_t stream;
  must(wasi_http_types_method_outgoing_response_body(wasi_http_types_borrow_outgoing_response(response), &body), "answer");
  must(wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream), "answer");
  wasi_http_types_result_own_outgoing_response_error_code_t answer = {.is_err = false, .val.ok = response};
  wasi_http_types_static_response_outparam_set(response_out, &answer);

  wasi_http_types_method_t method;
  wasi_http_types_method_incoming_request_method(request, &method);
  output_t out = wasi_io_streams_borrow_output_stream(stream);
  if (method.tag == WASI_HTTP_TYPES_METHOD_POST) {
    echo(request, out);
  } else {
    greet(request, out);
  }

  wasi_http_types_error_code_t error;
  wasi_http_types_method_free(&method);
  wasi_io_streams_output_stream_drop_own(stream);
  must(wasi_http_types_static_outgoing_body_finish(body, NULL, &error), "finish the body");
  wasi_http_types_incoming_request_drop_own(owned_request);
}
