//! What guests do without WASI HTTP. Those of WASI 0.3 share this file.

/// Takes memory without end.
pub fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1024 * 1024]);
        std::hint::black_box(&hoard);
    }
}

/// Exhausts the stack.
#[allow(unconditional_recursion, reason = "it is to exhaust the stack")]
pub fn recurse(frame: &[u8; 64]) -> u64 {
    let mut next = *frame;
    next[0] = next[0].wrapping_add(1);
    recurse(std::hint::black_box(&next)) + u64::from(next[1])
}

/// Prints a line in pieces, a line of 20,000 bytes, one on the other stream, and a line without an end.
pub fn print() {
    eprint!("one ");
    eprint!("line ");
    eprintln!("in pieces");
    eprintln!("{}", "x".repeat(20_000));
    println!("on stdout");
    eprint!("without an end");
}

/// Looks for the machine behind the sandbox: a line for each finding.
pub fn machine() -> Vec<String> {
    vec![
        format!("environment: {}", std::env::vars().count()),
        format!("arguments: {}", std::env::args().count()),
        format!("root: {}", std::fs::read_dir("/").is_ok()),
        format!("passwd: {}", std::fs::read("/etc/passwd").is_ok()),
        format!(
            "tcp: {}",
            std::net::TcpStream::connect("127.0.0.1:9").map_or_else(|e| e.kind().to_string(), |_| "connected".into())
        ),
        format!("listen: {}", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        format!("udp: {}", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        format!("dns: {}", std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok()),
    ]
}
