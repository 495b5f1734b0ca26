//! Answers with a body that has no end at `/flood`; `/` is fine.

use guests03::{Answer, Reply, Request, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    if target(&request) == "/" {
        return reply(200, "fine");
    }
    Reply::start(200, &[], async |mut reply| {
        loop {
            reply.write([b'~'; 4096]).await;
        }
    })
}
