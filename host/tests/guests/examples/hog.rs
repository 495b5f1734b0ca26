//! Takes memory without end at `/grow`; `/` is fine.

use guests::{IncomingRequest, ResponseOutparam, hoard, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/" {
        return reply(out, 200, "fine");
    }
    hoard()
}
