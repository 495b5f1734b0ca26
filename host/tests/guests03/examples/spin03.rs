//! Burns CPU for ever, without ever asking the host for anything; `/` answers at once, `/asked` asks for the request body
//! once before.

use futures::FutureExt;
use guests03::{Answer, Body, Request, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    let target = target(&request);
    if target == "/" {
        return reply(200, "fine");
    }
    let mut body = Body::from(request);
    if target == "/asked" {
        let asked = body.stream.read(Vec::with_capacity(1)).now_or_never();
        assert!(asked.is_none(), "the test sends nothing");
    }
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}
