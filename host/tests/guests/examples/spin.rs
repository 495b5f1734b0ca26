//! Burns CPU for ever, without ever asking the host for anything; `/` answers at once.

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/" {
        return reply(out, 200, "fine");
    }
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}
