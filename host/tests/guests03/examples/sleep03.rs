//! Is blocked in a host call for an hour at `/sleep`; `/` is fine.

use guests03::{Answer, Request, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    if target(&request) != "/" {
        std::thread::sleep(std::time::Duration::from_secs(3600)); // a call of WASI 0.2, as all of std's
    }
    reply(200, "fine")
}
