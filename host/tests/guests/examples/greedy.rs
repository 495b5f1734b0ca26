//! Wants more of the host than it may have: handles at `/handles`, one huge call at `/call`, one with a huge
//! answer at `/random`; `/` is fine.

use guests::bindings::wasi::config::store;
use guests::bindings::wasi::random::random::get_random_bytes;
use guests::{Fields, IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match target(&request).as_str() {
        "/handles" => {
            let held: Vec<Fields> = (0..1_000_000).map(|_| Fields::new()).collect();
            reply(out, 200, &held.len().to_string());
        }
        "/call" => {
            let key = "k".repeat(16 * 1024 * 1024);
            reply(out, 200, &format!("{:?}", store::get(&key)));
        }
        "/random" => reply(out, 200, &get_random_bytes(16 * 1024 * 1024).len().to_string()),
        _ => reply(out, 200, "fine"),
    }
}
