//! `ReliableUdpListener`: accepts connections on a virtual port.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream as FuturesStream;
use tokio::net::ToSocketAddrs;
use tokio::sync::Notify;
use tokio::task::coop::poll_proceed;

use crate::config::DropPolicy;
use crate::driver::{Handle, canonical};
use crate::socket::{Endpoint, ReliableUdpSocket, SERVICE_PORT, Stream};
use crate::{Config, EndpointError};

/// Accepts connections.
///
/// The counterpart of [`tokio::net::TcpListener`]; also a [`Stream`](futures_core::Stream) of what
/// [`accept`](Self::accept) returns, which ends only with an error. Dropping it resets the connections
/// that were not accepted yet; accepted sockets live on.
///
/// ```no_run
/// use reliable_udp::ReliableUdpListener;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let listener = ReliableUdpListener::bind("0.0.0.0:4433").await?;
/// loop {
///     let (mut socket, peer) = listener.accept().await?;
///     tokio::spawn(async move {
///         let (mut reader, mut writer) = socket.split();
///         let _ = tokio::io::copy(&mut reader, &mut writer).await;
///     });
///     # let _ = peer;
/// }
/// # }
/// ```
pub struct ReliableUdpListener {
    handle: Handle,
    port: u16,
    drop_policy: DropPolicy,
    accept: Arc<Notify>,
    /// Whether the stream has ended.
    is_ended: bool,
}

impl ReliableUdpListener {
    pub(crate) fn new(
        handle: Handle,
        port: u16,
        drop_policy: DropPolicy,
        accept: Arc<Notify>,
    ) -> Self {
        Self {
            handle,
            port,
            drop_policy,
            accept,
            is_ended: false,
        }
    }

    /// Binds a UDP socket of its own and listens on its service port (virtual port 1).
    ///
    /// # Errors
    ///
    /// Whatever the system says of the last address that `addr` resolves to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::bind_with(addr, Config::default()).await
    }

    /// Binds with a configuration, which the accepted connections get too.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind).
    ///
    /// # Cancel safety
    ///
    /// As for [`bind`](Self::bind).
    pub async fn bind_with<A: ToSocketAddrs>(addr: A, config: Config) -> io::Result<Self> {
        Endpoint::bind(addr, config).await?.listen(SERVICE_PORT)
    }

    /// Waits for the next connection. Several tasks may wait at once.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint was closed. No peer can
    /// cause an error here.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a connection is taken only when the future is ready.
    pub async fn accept(&self) -> io::Result<(ReliableUdpSocket, SocketAddr)> {
        tokio::task::consume_budget().await;
        loop {
            let mut notified = std::pin::pin!(self.accept.notified());
            notified.as_mut().enable();
            if let Some(accepted) = self.try_accept(None)? {
                return Ok(accepted);
            }
            notified.await;
        }
    }

    /// Takes the next connection; the poll form of [`accept`](Self::accept), of which only the latest
    /// task is woken.
    ///
    /// # Errors
    ///
    /// As for [`accept`](Self::accept).
    pub fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(ReliableUdpSocket, SocketAddr)>> {
        let coop = ready!(poll_proceed(cx));
        match self.try_accept(Some(cx)) {
            Ok(None) => Poll::Pending,
            Ok(Some(accepted)) => {
                coop.made_progress();
                Poll::Ready(Ok(accepted))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    fn try_accept(
        &self,
        cx: Option<&mut Context<'_>>,
    ) -> Result<Option<(ReliableUdpSocket, SocketAddr)>, EndpointError> {
        let accepted = self.handle.update(|core, _, wakeups| {
            let accepted = core.accept(self.port)?;
            if let (None, Some(cx)) = (accepted, cx) {
                core.wait_accept(self.port, cx, wakeups);
            }
            Ok::<_, EndpointError>(accepted)
        })?;
        Ok(accepted.map(|(id, addr)| {
            let stream = Stream::new(self.handle.clone(), id, self.drop_policy);
            (ReliableUdpSocket::new(stream), canonical(addr))
        }))
    }

    /// Returns the UDP address that is listened on.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.transport().local_addr()
    }

    /// Returns the virtual port that is listened on.
    pub fn local_port(&self) -> u16 {
        self.port
    }
}

impl FuturesStream for ReliableUdpListener {
    type Item = io::Result<(ReliableUdpSocket, SocketAddr)>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_ended {
            return Poll::Ready(None);
        }
        let item = ready!(this.poll_accept(cx));
        // An endpoint that was closed stays so.
        this.is_ended = item.is_err();
        Poll::Ready(Some(item))
    }
}

impl fmt::Debug for ReliableUdpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReliableUdpListener")
            .field("local_addr", &self.local_addr().ok())
            .field("local_port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Drop for ReliableUdpListener {
    fn drop(&mut self) {
        self.handle
            .enter(|core, now, wakeups| core.unlisten(now, self.port, wakeups));
    }
}
