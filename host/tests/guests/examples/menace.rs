//! Every broken component in one: what it does is what the path says. `/` is fine.

use guests::{Fields, IncomingRequest, Reply, ResponseOutparam, hoard, read, recurse, reply, target};

guests::serve!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match target(&request).as_str() {
        "/spin" => loop {
            std::hint::black_box(&out);
        },
        "/sleep" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "/grow" => hoard(),
        "/recurse" => {
            recurse(&[0; 64]);
        }
        "/trap" => panic!("trapped"),
        "/unwell" => reply(out, 503, "unwell, in its own words"),
        "/silent" => drop(out),
        "/exit" => std::process::exit(3),
        "/flood" => {
            let reply = Reply::start(out, 200, &[]);
            loop {
                reply.write(&[b'~'; 4096]);
            }
        }
        "/short" => std::mem::forget(Reply::start(out, 200, &[("content-length", "100")])),
        "/large-header" => {
            let value = "v".repeat(1024);
            let headers: Vec<(&str, &str)> = (0..80).map(|_| ("x-large", value.as_str())).collect();
            Reply::start(out, 200, &headers).finish(None);
        }
        "/handles" => {
            let held: Vec<Fields> = (0..1_000_000).map(|_| Fields::new()).collect();
            reply(out, 200, &held.len().to_string());
        }
        "/late" => {
            reply(out, 200, "answered");
            read(&request, |_| ());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        _ => reply(out, 200, "fine"),
    }
}
