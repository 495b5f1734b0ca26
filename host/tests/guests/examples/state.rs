//! Counts its requests in a static, and answers with the count: 1, unless an instance is used twice. `/grow` keeps 8 MiB.

use std::sync::atomic::{AtomicU32, Ordering};

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

static COUNT: AtomicU32 = AtomicU32::new(0);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/grow" {
        std::mem::forget(std::hint::black_box(vec![1_u8; 8 * 1024 * 1024]));
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    reply(out, 200, &count.to_string());
}
