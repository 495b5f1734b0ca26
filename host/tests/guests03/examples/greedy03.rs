//! Wants more of the host than it may have: handles at `/handles`, one huge call at `/call`; `/` is fine.

use guests03::bindings::wasi::config::store;
use guests03::{Answer, Fields, Request, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    match target(&request).as_str() {
        "/handles" => {
            let held: Vec<Fields> = (0..1_000_000).map(|_| Fields::new()).collect();
            reply(200, &held.len().to_string())
        }
        "/call" => {
            let key = "k".repeat(16 * 1024 * 1024);
            reply(200, &format!("{:?}", store::get(&key)))
        }
        _ => reply(200, "fine"),
    }
}
