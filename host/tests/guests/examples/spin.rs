//! Burns CPU for ever, without ever asking the host for anything; `/` answers at once, `/asked` asks for the request body
//! once before.

use guests::{IncomingRequest, ResponseOutparam, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if target(&request) == "/" {
        return reply(out, 200, "fine");
    }
    let body = request.consume().expect("the first reader");
    let stream = body.stream().expect("the first stream");
    if target(&request) == "/asked" {
        assert!(!stream.subscribe().ready(), "the test sends nothing");
    }
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}
