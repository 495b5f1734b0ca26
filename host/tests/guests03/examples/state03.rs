//! Counts its requests in a static, and answers with the count: 1, unless an instance is used twice. `/grow` keeps 8 MiB.

use std::sync::atomic::{AtomicU32, Ordering};

use guests03::{Answer, Request, reply, target};

guests03::serve!(handle);

static COUNT: AtomicU32 = AtomicU32::new(0);

async fn handle(request: Request) -> Answer {
    if target(&request) == "/grow" {
        std::mem::forget(std::hint::black_box(vec![1_u8; 8 * 1024 * 1024]));
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    reply(200, &count.to_string())
}
