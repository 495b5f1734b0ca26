//! The traffic listener: accepts connections, and closes them so that no request is lost.

mod connection;
mod protocol;
mod room;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::request::Requests;
use crate::transport::unsent::Unsent;
use connection::{Connection, Shared};

/// Connections that the kernel completes for us before we accept them. Linux cuts it to `net.core.somaxconn` (4096).
const BACKLOG: u32 = 4096;

/// How often a connection that found no room looks again for one that has waited for long by now.
const ROOM_RETRY: Duration = Duration::from_millis(100);

/// How long to wait after accept() failed for want of descriptors or memory, which only others can give back.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts connections on a listener until it is told to stop.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    connections: TaskTracker,
}

/// Ends a running [`Server`].
#[derive(Debug, Clone)]
pub(crate) struct ServerHandle {
    unsent: Arc<Unsent>,
    connections: TaskTracker,
    closing: CancellationToken,
}

/// Binds the traffic port.
///
/// # Errors
/// When the address is taken, not ours or not allowed.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a restart must not wait for the old process's closed connections
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Server {
    /// A server with at most so many connections, and answers of so many bytes that wait for their clients.
    pub(crate) fn new(requests: Arc<Requests>, limits: Limits, connections: u32, unsent: u64) -> (Self, ServerHandle) {
        let (unsent, closing) = (Unsent::new(usize::try_from(unsent).unwrap_or(usize::MAX)), CancellationToken::new());
        let permits = Arc::new(Semaphore::new(connections as usize));
        let connections = TaskTracker::new();
        let handle =
            ServerHandle { unsent: unsent.clone(), connections: connections.clone(), closing: closing.clone() };
        let shared = Arc::new(Shared { requests, limits, unsent, room: Arc::default(), closing });
        (Self { shared, permits, connections }, handle)
    }

    /// Accepts until closing, then takes the connections that the kernel has already completed: their clients have sent
    /// their requests and would see a reset.
    pub(crate) async fn run(self, listener: TcpListener) {
        let mut last = None;
        while last.is_none() {
            let accepted = tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => match self.permit().await {
                    Some(permit) => self.serve(stream, client, permit),
                    None => last = Some((stream, client)),
                },
                Err(error) => back_off(&error).await,
            }
        }
        if let Some((stream, client)) = last
            && let Ok(permit) = self.permits.clone().acquire_owned().await
        {
            self.serve(stream, client, permit); // those that are idle go now, so that there is room before long
        }
        if let Err(error) = self.accept_backlog(listener) {
            tracing::warn!(%error, "could not take the last connections");
        }
        self.connections.close();
    }

    /// A place for a connection. Where all are taken, one that has waited for its client for long makes room; where there is none,
    /// this waits, and whoever comes next waits in the kernel's backlog. `None` at closing time.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        let mut permit = pin!(self.permits.clone().acquire_owned());
        loop {
            self.shared.room.make();
            tokio::select! {
                biased;
                permit = &mut permit => return permit.ok(),
                () = self.shared.closing.cancelled() => return None,
                () = sleep(ROOM_RETRY) => {}
            }
        }
    }

    fn accept_backlog(&self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok(permit) = self.permits.clone().try_acquire_owned() {
            match listener.accept() {
                Ok((stream, client)) => {
                    stream.set_nonblocking(true)?;
                    self.serve(TcpStream::from_std(stream)?, client, permit);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn serve(&self, stream: TcpStream, client: SocketAddr, permit: OwnedSemaphorePermit) {
        let connection = Connection::new(client, self.shared.clone(), permit);
        self.connections.spawn(connection.serve(stream));
    }
}

impl ServerHandle {
    /// Stops accepting, closes idle connections, and lets the others finish what is in flight.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        self.unsent.close();
    }

    /// How many answers wait for their clients, without a slot.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.count()
    }

    /// Waits until every connection is closed.
    pub(crate) async fn closed(&self) {
        self.connections.wait().await;
    }
}

/// accept() fails for a connection that is already gone (nothing to do), or because the process is out of something.
async fn back_off(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
        _ => {
            tracing::error!(%error, "cannot accept connections; trying again");
            sleep(ACCEPT_BACK_OFF).await;
        }
    }
}
