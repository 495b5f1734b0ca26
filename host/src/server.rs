//! The traffic listener: accepts connections, and closes them so that no request is lost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::request::Requests;

/// Connections that the kernel completes for us before we accept them. Linux cuts it to `net.core.somaxconn` (4096).
const BACKLOG: u32 = 4096;

/// How long to wait after accept() failed for want of descriptors or memory, which only others can give back.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts connections until it is told to stop.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    requests: Arc<Requests>,
    connections: TaskTracker,
    closing: CancellationToken,
}

/// Ends a running [`Server`].
#[derive(Debug, Clone)]
pub struct ServerHandle {
    connections: TaskTracker,
    closing: CancellationToken,
}

/// Binds the traffic port.
///
/// # Errors
/// When the address is taken, not ours or not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a restart must not wait for the old process's closed connections
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// A server on a bound port.
    pub fn new(listener: TcpListener, requests: Arc<Requests>) -> (Self, ServerHandle) {
        let handle = ServerHandle { connections: TaskTracker::new(), closing: CancellationToken::new() };
        let server =
            Self { listener, requests, connections: handle.connections.clone(), closing: handle.closing.clone() };
        (server, handle)
    }

    /// Accepts until closing, then takes the connections that the kernel has already completed: their clients have sent
    /// their requests and would see a reset.
    pub async fn run(self) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => self.serve(stream, client),
                Err(error) => self.survive(&error).await,
            }
        }
        let connections = self.connections.clone();
        if let Err(error) = self.take_backlog() {
            tracing::warn!(%error, "could not take the last connections");
        }
        connections.close();
    }

    fn take_backlog(self) -> io::Result<()> {
        let Self { listener, requests, connections, closing } = self;
        let listener = listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((stream, client)) => {
                    stream.set_nonblocking(true)?;
                    let connection = Connection::new(client, requests.clone(), closing.clone());
                    connections.spawn(connection.serve(TcpStream::from_std(stream)?));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&self, stream: TcpStream, client: SocketAddr) {
        let connection = Connection::new(client, self.requests.clone(), self.closing.clone());
        self.connections.spawn(connection.serve(stream));
    }

    /// accept() fails for a connection that is already gone (nothing to do), or because the process is out of something.
    async fn survive(&self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
            _ => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

impl ServerHandle {
    /// Stops accepting, closes idle connections, and lets the others finish what is in flight.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Waits until every connection is closed.
    pub async fn closed(&self) {
        self.connections.wait().await;
    }
}
