//! Counts its requests in a static, and answers with the count: 1, unless an instance is used twice.

use std::sync::atomic::{AtomicU32, Ordering};

use guests::{IncomingRequest, ResponseOutparam, reply};

guests::serve!(handle);

static COUNT: AtomicU32 = AtomicU32::new(0);

fn handle(_: IncomingRequest, out: ResponseOutparam) {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    reply(out, 200, &count.to_string());
}
