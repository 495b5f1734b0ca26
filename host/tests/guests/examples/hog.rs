//! Takes memory without end at `/grow`; `/` is fine.

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/" {
        return reply(out, 200, "fine");
    }
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1024 * 1024]);
        std::hint::black_box(&hoard);
    }
}
