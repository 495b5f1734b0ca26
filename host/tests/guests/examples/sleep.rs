//! Is blocked in a host call for an hour at `/sleep`; `/` is fine.

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) != "/" {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    reply(out, 200, "fine");
}
