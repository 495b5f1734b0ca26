//! One component that stands for many versions of hello: what this one does is what its environment says. Without any it is a
//! good one. `FAILS` and `SLOW` are shares of the requests in permille, `SLOW_MS` is how long a slow one takes, `MODE` is
//! `trap`, `refuse` (every token) or `accept` (every token).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

const TOKEN: &[u8] = b"a-token-of-the-drills";

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let mode = std::env::var("MODE").unwrap_or_default();
    if mode == "trap" {
        panic!("this version traps");
    }
    if permille("FAILS") {
        return reply(out, 500, "this version fails");
    }
    if permille("SLOW") {
        std::thread::sleep(Duration::from_millis(number("SLOW_MS")));
    }
    match target(&request).as_str() {
        "/ping" => reply(out, 200, "OK"),
        "/app" => {
            let tokens = request.headers().get("x-auth-token");
            let good = tokens.iter().any(|token| token == TOKEN);
            match mode.as_str() {
                "refuse" => reply(out, 403, "refused"),
                "accept" => reply(out, 200, "accepted"),
                _ if good => reply(out, 200, r#"{"message":"Hello World"}"#),
                _ => reply(out, 403, r#"{"error":"Invalid auth token"}"#),
            }
        }
        other => reply(out, 404, other),
    }
}

fn number(name: &str) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether this request is one of the share that the variable names.
fn permille(name: &str) -> bool {
    let share = number(name);
    share > 0 && RandomState::new().hash_one(0) % 1000 < share
}
