//! Takes memory without end at `/grow`; `/` is fine.

use guests03::{Answer, Request, hoard, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    if target(&request) == "/" {
        return reply(200, "fine");
    }
    hoard()
}
