//! Fails in the way that the path says; `/` is fine.

use guests03::{Answer, ErrorCode, Reply, Request, leave, read, recurse, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    match target(&request).as_str() {
        "/" => reply(200, "fine"),
        "/trap" => panic!("the guest's secret text"),
        "/silent" => {
            drop(request);
            leave().await
        }
        "/leak" => {
            std::mem::forget(request);
            leave().await
        }
        "/error" => Err(ErrorCode::InternalError(Some("the guest's secret text".into()))),
        "/exit" => std::process::exit(3),
        "/recurse" => reply(200, &recurse(&[0; 64]).to_string()),
        // All that a client of HEAD is told, and a trap once nobody takes the body.
        "/head-trap" => Reply::start(200, &[("content-length", "6")], trap),
        "/204-trap" => Reply::start(204, &[], trap),
        "/304-trap" => Reply::start(304, &[], trap),
        // After the head and a first chunk, on the client's word: traps, or breaks its body off.
        "/late-trap" => Reply::start(200, &[], async |mut reply| {
            reply.write("so far so good").await;
            read(request, async |_| ()).await;
            panic!("the guest's secret text");
        }),
        "/late-drop" => Reply::start(200, &[], async |mut reply| {
            reply.write("so far so good").await;
            read(request, async |_| ()).await;
            drop(reply);
        }),
        other => reply(404, other),
    }
}

async fn trap(mut reply: Reply) {
    reply.stream.write_all("unread".into()).await;
    panic!("the guest's secret text");
}
