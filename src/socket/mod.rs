//! `ReliableUdpSocket` and `Endpoint`: what applications hold.

mod endpoint;
mod split;
mod stream;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::ToSocketAddrs;

pub use self::endpoint::Endpoint;
pub use self::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub(crate) use self::stream::Stream;

use crate::{Config, ConnectionStats};

/// The virtual port that `connect` and `bind` use when none is named.
pub(crate) const SERVICE_PORT: u16 = 1;

/// A reliable byte stream between two sockets, over UDP.
///
/// The counterpart of [`tokio::net::TcpStream`], and a drop-in for it wherever [`AsyncRead`] and
/// [`AsyncWrite`] are asked for. It differs in what its ends promise:
///
/// - [`shutdown`] returns `Ok` only when the peer's transport has acknowledged every byte and the end of
///   the stream; a process may exit after it and nothing is lost. One exception: once the peer's own end
///   has arrived and all our data is acknowledged, a missing acknowledgment of our end is `Ok` too. If
///   both sides do `write_all; shutdown; read` with more data than the buffers hold and neither reads,
///   both wait; [`finish`] ends the stream without waiting.
/// - [`flush`] sends what Nagle's algorithm holds back and does not wait for acknowledgments.
/// - Dropping the socket goes on delivering in the background as long as the runtime lives, for at most
///   [`linger`](crate::ConfigBuilder::linger); dropping it with unread data resets the connection.
///   [`DropPolicy::Reset`](crate::DropPolicy::Reset) makes every drop without [`shutdown`] or [`finish`] a
///   reset. [`Endpoint::wait_idle`] waits for what is left in the background.
/// - Errors carry a [`ConnectionError`](crate::ConnectionError): see
///   [`ConnectionError::from_io`](crate::ConnectionError::from_io).
///
/// Reading and writing go on at the same time after [`split`](Self::split) or
/// [`into_split`](Self::into_split).
///
/// ```no_run
/// use reliable_udp::ReliableUdpSocket;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let mut socket = ReliableUdpSocket::connect("127.0.0.1:4433").await?;
/// socket.write_all(b"hello").await?;
/// socket.shutdown().await?;
/// let mut answer = Vec::new();
/// socket.read_to_end(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
///
/// [`shutdown`]: AsyncWrite::poll_shutdown
/// [`flush`]: AsyncWrite::poll_flush
/// [`finish`]: Self::finish
pub struct ReliableUdpSocket {
    stream: Arc<Stream>,
}

impl ReliableUdpSocket {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream: Arc::new(stream),
        }
    }

    pub(crate) fn from_shared(stream: Arc<Stream>) -> Self {
        Self { stream }
    }

    /// Connects to a [`ReliableUdpListener`](crate::ReliableUdpListener) from a UDP port of its own.
    ///
    /// All addresses that `addr` resolves to are tried in turn, as by [`tokio::net::TcpStream`]. Many
    /// connections can share one UDP socket: see [`Endpoint::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) if nobody listens there, if the peer or the
    /// system says so; [`TimedOut`](io::ErrorKind::TimedOut) if nobody answers. With several addresses,
    /// the error of the last one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up; nothing else is lost.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::connect_with(addr, Config::default()).await
    }

    /// Connects with a configuration.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As for [`connect`](Self::connect).
    pub async fn connect_with<A: ToSocketAddrs>(addr: A, config: Config) -> io::Result<Self> {
        let mut last = None;
        for remote in tokio::net::lookup_host(addr).await? {
            let any: SocketAddr = match remote {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let attempt = async {
                Endpoint::bind(any, config.clone())
                    .await?
                    .connect(remote)
                    .await
            };
            match attempt.await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(none_worked(last))
    }

    /// Splits the socket into a reader and a writer that borrow it.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(&self.stream)
    }

    /// Splits the socket into a reader and a writer that can be moved into different tasks.
    ///
    /// Dropping the writer ends the stream (FIN); [`OwnedWriteHalf::forget`] does not.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::split_owned(self.stream)
    }

    /// Receives the next bytes without copying them, at most `max`; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: bytes are taken only when the future is ready.
    pub async fn read_chunk(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.stream.poll_read_chunk(cx, max)).await
    }

    /// Receives the next bytes without copying them; the poll form of
    /// [`read_chunk`](Self::read_chunk), of which only the latest task is woken.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        self.stream.poll_read_chunk(cx, max)
    }

    /// Writes a whole chunk without copying it.
    ///
    /// # Errors
    ///
    /// What ended the connection; [`BrokenPipe`](io::ErrorKind::BrokenPipe) after
    /// [`finish`](Self::finish) or shutdown.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: an unknown part of the chunk may have been written. Use
    /// [`poll_write_chunk`](Self::poll_write_chunk), which leaves the rest with the caller.
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> io::Result<()> {
        while !chunk.is_empty() {
            std::future::poll_fn(|cx| self.stream.poll_write_chunk(cx, &mut chunk)).await?;
        }
        Ok(())
    }

    /// Writes a prefix of a chunk without copying it, removes it from `chunk` and returns its length.
    ///
    /// # Errors
    ///
    /// As for [`write_chunk`](Self::write_chunk).
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write_chunk(cx, chunk)
    }

    /// Waits for bytes and copies them without taking them from the stream; 0 at its end.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: nothing is taken.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buf).await
    }

    /// Ends our direction of the stream: everything written so far is sent, then FIN, without waiting.
    ///
    /// [`shutdown`](AsyncWrite::poll_shutdown) does the same and waits for the acknowledgment.
    /// Calling it again does nothing.
    ///
    /// # Errors
    ///
    /// What ended the connection before.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.finish()
    }

    /// Waits until the connection is over: both directions ended and acknowledged, or broken.
    ///
    /// It does not wait for TIME-WAIT, and it does not read: unread data keeps a peer from ending.
    ///
    /// # Errors
    ///
    /// What broke the connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    pub async fn closed(&self) -> io::Result<()> {
        self.stream.closed().await
    }

    /// Breaks the connection: the peer gets [`ConnectionReset`](io::ErrorKind::ConnectionReset), this side
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted).
    pub fn abort(&self) {
        self.stream.abort();
    }

    /// Returns the UDP address of this side.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Returns the UDP address of the peer.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Returns this side's virtual port.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn local_port(&self) -> io::Result<u16> {
        self.stream.local_port()
    }

    /// Returns the peer's virtual port.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn peer_port(&self) -> io::Result<u16> {
        self.stream.peer_port()
    }

    /// Says whether Nagle's algorithm is off.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.stream.nodelay()
    }

    /// Turns Nagle's algorithm off or on (RFC 9293 §3.7.4). Turning it off sends what it held back.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// Returns the limit on bytes that were written and never sent.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn notsent_lowat(&self) -> io::Result<Option<usize>> {
        self.stream.notsent_lowat()
    }

    /// Limits the bytes that were written and never sent, as
    /// [`ConfigBuilder::notsent_lowat`](crate::ConfigBuilder::notsent_lowat) does. Here any number is taken;
    /// at least one segment may always wait. What waits already stays.
    ///
    /// # Errors
    ///
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the endpoint is gone.
    pub fn set_notsent_lowat(&self, bytes: Option<usize>) -> io::Result<()> {
        self.stream.set_notsent_lowat(bytes)
    }

    /// Returns a snapshot of what the connection has counted and measured; after its end, the last one.
    pub fn stats(&self) -> ConnectionStats {
        self.stream.stats()
    }
}

impl AsyncRead for ReliableUdpSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.poll_read(cx, buf)
    }
}

impl AsyncWrite for ReliableUdpSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }
}

impl fmt::Debug for ReliableUdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_stream(&self.stream, f.debug_struct("ReliableUdpSocket"))
    }
}

/// Shows the addresses and ports of a connection.
fn fmt_stream(stream: &Stream, mut debug: fmt::DebugStruct<'_, '_>) -> fmt::Result {
    debug
        .field("local_addr", &stream.local_addr().ok())
        .field("local_port", &stream.local_port().ok())
        .field("peer_addr", &stream.peer_addr().ok())
        .field("peer_port", &stream.peer_port().ok())
        .finish()
}

/// What to report when no address of several worked: the error of the last one.
pub(crate) fn none_worked(last: Option<io::Error>) -> io::Error {
    last.unwrap_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "could not resolve to any address",
        )
    })
}
