//! Answers at once and works on: until the request body ends, then it prints.

use guests03::{Answer, Reply, Request, read};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    Reply::start(200, &[], async |mut reply| {
        reply.write("answered").await;
        reply.finish(None).await;
        read(request, async |_| ()).await;
        println!("worked on after the answer");
    })
}
