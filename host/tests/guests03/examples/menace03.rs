//! Every broken component in one: what it does is what the path says. `/` is fine.

use guests03::{Answer, Fields, Reply, Request, hoard, leave, read, recurse, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    match target(&request).as_str() {
        "/spin" => loop {
            std::hint::black_box(&request);
        },
        "/sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(3600));
            leave().await
        }
        "/grow" => hoard(),
        "/recurse" => reply(200, &recurse(&[0; 64]).to_string()),
        "/trap" => panic!("trapped"),
        "/unwell" => reply(503, "unwell, in its own words"),
        "/silent" => leave().await,
        "/exit" => std::process::exit(3),
        "/flood" => Reply::start(200, &[], async |mut reply| {
            loop {
                reply.write([b'~'; 4096]).await;
            }
        }),
        "/short" => Reply::start(200, &[("content-length", "100")], async |reply| reply.finish(None).await),
        "/large-header" => {
            let value = "v".repeat(1024);
            let headers: Vec<(&str, &str)> = (0..80).map(|_| ("x-large", value.as_str())).collect();
            Reply::start(200, &headers, async |reply| reply.finish(None).await)
        }
        "/handles" => {
            let held: Vec<Fields> = (0..1_000_000).map(|_| Fields::new()).collect();
            reply(200, &held.len().to_string())
        }
        "/late" => Reply::start(200, &[], async |mut reply| {
            reply.write("answered").await;
            reply.finish(None).await;
            read(request, async |_| ()).await;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }),
        _ => reply(200, "fine"),
    }
}
