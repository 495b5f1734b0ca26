//! Wants more of the host than it may have: handles at `/handles`, one huge call at `/call`; `/` is fine.

use guests::bindings::wasi::config::store;
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
        _ => reply(out, 200, "fine"),
    }
}
