//! Says what is not so, as the path asks.

use guests::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, Reply, ResponseOutparam, read, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match target(&request).as_str() {
        // A content-length that is too long, and the guest ends as if nothing were wrong.
        "/short" => {
            let reply = Reply::start(out, 200, &[("content-length", "100")]);
            reply.write(b"four");
            std::mem::forget(reply);
        }
        // A content-length that is too short, and the guest writes on.
        "/long" => {
            let headers = Fields::new();
            headers.append("content-length", b"4").expect("allowed");
            let response = OutgoingResponse::new(headers);
            let body = response.body().expect("the first body");
            ResponseOutparam::set(out, Ok(response));
            let stream = body.write().expect("the first stream");
            let _ = stream.blocking_write_and_flush(b"more than four");
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
        }
        // An answer without a byte, and the guest goes on for as long as its client sends.
        "/nothing-yet" => {
            let reply = Reply::start(out, 200, &[("content-length", "0")]);
            read(&request, |_| ());
            reply.finish(None);
        }
        "/status-103" => bodiless(out, 103),
        "/status-204" => {
            let reply = Reply::start(out, 204, &[]);
            reply.write(b"a body that must not be");
            reply.finish(None);
        }
        "/status-304" => bodiless(out, 304),
        "/large-header" => {
            let (name, value) = ("x-large", "v".repeat(1024));
            let headers: Vec<(&str, &str)> = (0..80).map(|_| (name, value.as_str())).collect();
            Reply::start(out, 200, &headers).finish(None);
        }
        // More than Wasmtime's own limit for the fields of a guest.
        "/huge-header" => {
            let value = "v".repeat(5 * 1024);
            let headers: Vec<(&str, &str)> = (0..60).map(|_| ("x-huge", value.as_str())).collect();
            Reply::start(out, 200, &headers).finish(None);
        }
        "/host's-word" => Reply::start(out, 200, &[("taffrail-error", "host_internal")]).finish(None),
        // Every field that is between host and client alone is refused to a guest.
        "/hop-by-hop" => {
            let fields = Fields::new();
            let names = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"];
            let refused = names.iter().filter(|name| fields.append(name, b"close").is_err()).count();
            reply(out, 200, &format!("{refused} of {} refused", names.len()));
        }
        _ => reply(out, 200, "fine"),
    }
}

fn bodiless(out: ResponseOutparam, status: u16) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status");
    ResponseOutparam::set(out, Ok(response));
}
