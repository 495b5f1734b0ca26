//! Greets who asks, and echoes what is posted. Written as one did in 2024.

use std::io::{Write as _, copy};

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasi::http::proxy::export!(Service);

struct Service;

impl Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the first body");
        ResponseOutparam::set(out, Ok(response));
        let mut stream = body.write().expect("the first stream");
        if let Method::Post = request.method() {
            let posted = request.consume().expect("the first reader");
            copy(&mut posted.stream().expect("the first stream"), &mut stream).expect("a whole body");
        } else {
            let name = request.headers().get(&"x-name".to_owned()).pop().unwrap_or_default();
            let name = String::from_utf8_lossy(&name);
            write!(stream, "Hello {name}, here is an older Rust").expect("a client that reads");
        }
        stream.flush().expect("a client that reads");
        drop(stream);
        OutgoingBody::finish(body, None).expect("a body of any length");
    }
}
