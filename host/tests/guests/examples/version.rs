//! One component that stands for many versions of hello: what this one does is what the variable `VERSION` says. Without it, it
//! is a good one. `fails 5` fails 5 of 1000 requests, `slow 500 60` takes 60 ms for 500 of 1000; `traps`, `refuses` and `accepts` do
//! so with every request, or token; `obeys` fails what asks for it (`/ping?fail`), where others do not listen. The header `x-version` says
//! which one answered.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use guests::{IncomingRequest, Reply, ResponseOutparam, target};

guests::serve!(handle);

const TOKEN: &[u8] = b"a-token-of-the-drills";

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let version = std::env::var("VERSION").unwrap_or_default();
    let (status, text) = answer(&version, &request);
    let reply = Reply::start(out, status, &[("x-version", &version)]);
    reply.write(text.as_bytes());
    reply.finish(None);
}

fn answer(version: &str, request: &IncomingRequest) -> (u16, &'static str) {
    let words: Vec<&str> = version.split(' ').collect();
    match words[..] {
        ["traps"] => panic!("this version traps"),
        ["fails", share] if is_one_of(share) => return (500, "this version fails"),
        ["slow", share, time] if is_one_of(share) => std::thread::sleep(Duration::from_millis(number(time))),
        _ => {}
    }
    match target(request).as_str() {
        "/ping?fail" if words == ["obeys"] => (500, "as you wish"),
        "/ping" | "/ping?fail" => (200, "OK"),
        "/app" => {
            let tokens = request.headers().get("x-auth-token");
            let good = tokens.iter().any(|token| token == TOKEN);
            match words[..] {
                ["refuses"] => (403, "refused"),
                ["accepts"] => (200, "accepted"),
                _ if good => (200, r#"{"message":"Hello World"}"#),
                _ => (403, r#"{"error":"Invalid auth token"}"#),
            }
        }
        _ => (404, "Not found"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// Whether this request is one of so many of a thousand.
fn is_one_of(share: &str) -> bool {
    RandomState::new().hash_one(0) % 1000 < number(share)
}
