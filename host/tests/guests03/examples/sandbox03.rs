//! Looks for the machine behind its sandbox, and reports each finding on a line: `/` through Rust's standard library, which knows the
//! interfaces of WASI 0.2, `/0.3` through those of 0.3.

use guests03::bindings::wasi::cli::environment;
use guests03::bindings::wasi::config::store;
use guests03::bindings::wasi::filesystem::preopens;
use guests03::bindings::wasi::sockets::ip_name_lookup::resolve_addresses;
use guests03::bindings::wasi::sockets::types::{
    IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket,
};
use guests03::bindings::wit_future;
use guests03::{Answer, Fields, Request, Scheme, client, machine, reply, target};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    if target(&request) == "/0.3" {
        return reply(200, &machine_0_3().await.join("\n"));
    }
    let mut report = machine();
    report.push(format!("outbound: {}", outbound().await));
    for (key, value) in store::get_all().unwrap_or_default() {
        report.push(format!("config {key}: {value:?}"));
    }
    reply(200, &report.join("\n"))
}

async fn outbound() -> String {
    let (request, _sent) = Request::new(Fields::new(), None, wit_future::new(|| Ok(None)).1, None);
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some("127.0.0.1:9")).expect("an authority");
    request.set_path_with_query(Some("/")).expect("a path");
    match client::send(request).await {
        Ok(response) => format!("answered {}", response.get_status_code()),
        Err(code) => format!("Some(Ok(Err({code:?})))"), // as the future of WASI 0.2 has it
    }
}

async fn machine_0_3() -> Vec<String> {
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 9, address: (127, 0, 0, 1) });
    vec![
        format!("environment: {}", environment::get_environment().len()),
        format!("arguments: {}", environment::get_arguments().len()),
        format!("directories: {}", preopens::get_directories().len()),
        match TcpSocket::create(IpAddressFamily::Ipv4) {
            Ok(socket) => format!("tcp: {:?}", socket.connect(address).await),
            Err(code) => format!("no tcp: {code:?}"),
        },
        match UdpSocket::create(IpAddressFamily::Ipv4) {
            Ok(socket) => format!("udp: {:?}", socket.send(b"data".to_vec(), Some(address)).await),
            Err(code) => format!("no udp: {code:?}"),
        },
        format!("dns: {:?}", resolve_addresses("localhost".to_owned()).await),
    ]
}
