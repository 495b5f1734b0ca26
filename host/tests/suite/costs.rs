//! What a limit costs, measured against the number that the host counts with. `RUST_TEST_NOCAPTURE=1` shows the numbers.

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::frames::*;
use crate::support::*;

/// What it is, and what it sends for a buffer of so many bytes.
type Kind = (&'static str, fn(usize) -> Vec<u8>);

/// Clients whose connections hold as much as they can, each in its way.
const KINDS: [Kind; 5] = [
    ("silent", |_| Vec::new()),
    ("idle", |_| b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ("half a head", |buffer| half_a_head("X", buffer)),
    ("half a head in a line that may frame a body", |buffer| half_a_head("Transfer-Encoding", buffer)),
    ("half a head over HTTP/2", |buffer| {
        let block = unfinished_block(buffer - 4096);
        let (first, rest) = block.split_at(100);
        let rest = rest.chunks(16 * 1024).flat_map(|piece| frame(CONTINUATION, 0, 1, piece));
        [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM, 1, first)]
            .concat()
            .into_iter()
            .chain(rest)
            .collect()
    }),
];

fn half_a_head(name: &str, buffer: usize) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{name}: {}", "x".repeat(buffer - 4096)).into_bytes()
}

/// By two sizes of heads: the cost follows from the flag. The dearest kind of client costs what is counted, and none costs more.
#[test]
fn a_connection_costs_what_is_counted() {
    const CONNECTIONS: usize = 200;
    for size in [32_usize << 10, 256 << 10] {
        let mut dearest = 0.0_f64;
        for (kind, says) in KINDS {
            let setup = TestHost::serving("hello").with("--header-timeout", "1h").with("--idle-timeout", "1h");
            let process = setup.with("--max-header-size", &size.to_string()).spawn();
            let (addr, bytes) = (process.addr(), says(2 * size));
            let ready: serde_json::Value =
                serde_json::from_str(&process.wait_for_line("\"ready\"")).expect("a JSON line");
            let counted = ready["connection_cost"].as_u64().expect("a number");
            let ratio = tokio::runtime::Runtime::new().unwrap().block_on(async {
                let open = async || {
                    let mut stream = TcpStream::connect(addr).await.expect("the host accepts");
                    stream.write_all(&bytes).await.expect("the host reads");
                    if kind == "idle" {
                        stream.read_u8().await.expect("an answer");
                    }
                    stream
                };
                let _first = [open().await, open().await]; // what there is once is there
                let before = settled(&process).await;
                let mut clients = Vec::new();
                for _ in 0..CONNECTIONS {
                    clients.push(open().await);
                }
                (settled(&process).await - before) as f64 / CONNECTIONS as f64 / counted as f64
            });
            println!("{kind}, --max-header-size {size}: {ratio:.2} of {counted} bytes");
            assert!(ratio < 1.25, "{kind}, {size}: {ratio}");
            dearest = dearest.max(ratio);
        }
        assert!(dearest > 0.75, "{size}: {dearest}");
    }
}

/// What a burst of guests has taken goes back to the system: all but what the slots of a few keep.
#[test]
fn a_burst_leaves_nothing_behind() {
    const GUESTS: usize = 300;
    let process = TestHost::serving("echo").with("--max-in-flight", "400").spawn();
    let addr = process.addr();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let open = async || {
            let mut client = Client::connect(Protocol::Http1, addr).await;
            let (mut sender, body) = open_body();
            let mut response = client.open(request_with("POST", addr, "/", &[], body)).await.expect("a head");
            sender.send_data("it runs".into()).await.expect("the host reads");
            response.body_mut().frame().await.expect("a frame").expect("no error");
            (client, sender, response)
        };
        drop(open().await);
        let before = settled(&process).await;
        let mut guests = Vec::new();
        for _ in 0..GUESTS {
            guests.push(open().await);
        }
        let height = process.memory();
        assert!(height > before + (8 << 20), "they are there");
        for (client, sender, response) in guests {
            drop(sender);
            whole(response).await.expect("a whole answer");
            drop(client);
        }
        let mut after = 0;
        eventually("the memory is back", async || {
            after = process.memory();
            after < before + (32 << 20)
        })
        .await;
        println!(
            "{GUESTS} guests: {} MiB before, {} MiB at the height, {} MiB after",
            before >> 20,
            height >> 20,
            after >> 20
        );
    });
}

/// Resident memory, once it no longer grows.
async fn settled(process: &Process) -> u64 {
    let mut last = process.memory();
    let mut same = 0;
    while same < 5 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let now = process.memory();
        same = if now.abs_diff(last) < 64 << 10 { same + 1 } else { 0 };
        last = now;
    }
    last
}
