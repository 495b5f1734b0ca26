//! Wants more of the host than it may have: handles at `/handles`, large fields at `/fields` and `/append`, requests at `/requests`,
//! one huge call at `/call`, one with a huge answer at `/random`; a huge error at `/error`; `/` is fine.

use guests03::bindings::wasi::config::store;
use guests03::bindings::wasi::random::random::get_random_bytes;
use guests03::{Answer, ErrorCode, Fields, Request, no_trailers, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    match target(&request).as_str() {
        "/handles" => {
            let held: Vec<Fields> = (0..1_000_000).map(|_| Fields::new()).collect();
            reply(200, &held.len().to_string())
        }
        "/fields" => {
            let held: Vec<_> = (0..MANY).map(|_| large_fields(Fields::new())).collect();
            reply(200, &held.len().to_string())
        }
        // The same for fields that are there by then.
        "/append" => {
            let held: Vec<_> = (0..MANY).map(|_| Fields::new()).collect();
            let held: Vec<_> = held.into_iter().map(large_fields).collect();
            reply(200, &held.len().to_string())
        }
        "/requests" => {
            let path = "/".repeat(1 << 15);
            let held: Vec<_> = (0..MANY / 2)
                .map(|_| {
                    let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), None);
                    request.set_path_with_query(Some(&path)).expect("a path");
                    request
                })
                .collect();
            reply(200, &held.len().to_string())
        }
        "/error" => Err(ErrorCode::InternalError(Some("e".repeat(3 << 20)))),
        "/call" => {
            let key = "k".repeat(16 * 1024 * 1024);
            reply(200, &format!("{:?}", store::get(&key)))
        }
        "/random" => reply(200, &get_random_bytes(16 * 1024 * 1024).len().to_string()),
        _ => reply(200, "fine"),
    }
}

/// Fewer handles than there may be.
const MANY: usize = 9_900;

fn large_fields(fields: Fields) -> Fields {
    fields.append("x-large", &[b'x'; 60_000]).expect("fields that are not too large");
    fields
}
