//! Answers with a body that has no end at `/flood`; `/` is fine.

use guests::{IncomingRequest, Reply, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/" {
        return reply(out, 200, "fine");
    }
    let reply = Reply::start(out, 200, &[]);
    loop {
        reply.write(&[b'~'; 4096]);
    }
}
