//! Fails in the way that the path says; `/` is fine.

use guests::{ErrorCode, IncomingRequest, Reply, ResponseOutparam, read, recurse, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match target(&request).as_str() {
        "/" => reply(out, 200, "fine"),
        "/trap" => panic!("the guest's secret text"),
        "/silent" => drop(out),
        "/leak" => std::mem::forget(out),
        "/error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some("the guest's secret text".into())))),
        "/exit" => std::process::exit(3),
        "/recurse" => reply(out, 200, &recurse(&[0; 64]).to_string()),
        // All that a client of HEAD is told, and then a trap.
        "/head-trap" => {
            let _reply = Reply::start(out, 200, &[("content-length", "6")]);
            panic!("the guest's secret text");
        }
        "/204-trap" | "/304-trap" => {
            let status = if target(&request) == "/204-trap" { 204 } else { 304 };
            let _reply = Reply::start(out, status, &[]);
            panic!("the guest's secret text");
        }
        // After the head and a first chunk, on the client's word: traps, or breaks its body off.
        "/late-trap" => {
            let reply = Reply::start(out, 200, &[]);
            reply.write(b"so far so good");
            read(&request, |_| ());
            panic!("the guest's secret text");
        }
        "/late-drop" => {
            let reply = Reply::start(out, 200, &[]);
            reply.write(b"so far so good");
            read(&request, |_| ());
            drop(reply);
        }
        other => reply(out, 404, other),
    }
}
