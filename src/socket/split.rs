//! The read and write halves of a socket, borrowed and owned, as in `tokio::net::tcp`.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;
use super::{ReliableUdpSocket, fmt_stream};
use crate::ConnectionStats;

/// Makes borrowed halves.
pub(super) fn split(stream: &Arc<Stream>) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf { stream }, WriteHalf { stream })
}

/// Makes owned halves.
pub(super) fn split_owned(stream: Arc<Stream>) -> (OwnedReadHalf, OwnedWriteHalf) {
    let read = OwnedReadHalf {
        stream: Arc::clone(&stream),
    };
    (
        read,
        OwnedWriteHalf {
            stream,
            finish_on_drop: true,
        },
    )
}

/// The reading half of a borrowed socket; made by [`ReliableUdpSocket::split`].
pub struct ReadHalf<'a> {
    stream: &'a Arc<Stream>,
}

/// The writing half of a borrowed socket; made by [`ReliableUdpSocket::split`].
///
/// Dropping it does nothing; the socket goes on.
pub struct WriteHalf<'a> {
    stream: &'a Arc<Stream>,
}

/// The reading half of a socket; made by [`ReliableUdpSocket::into_split`].
///
/// Dropping it does nothing while the other half lives.
pub struct OwnedReadHalf {
    stream: Arc<Stream>,
}

/// The writing half of a socket; made by [`ReliableUdpSocket::into_split`].
///
/// Dropping it ends the stream as [`finish`](Self::finish) does: what was written is delivered, then
/// FIN, in the background. With [`DropPolicy::Reset`](crate::DropPolicy::Reset) it breaks the connection
/// instead, unless it was shut down before.
pub struct OwnedWriteHalf {
    stream: Arc<Stream>,
    finish_on_drop: bool,
}

/// The two halves given to [`reunite`](OwnedReadHalf::reunite) belong to different sockets; holds both.
#[derive(Debug, thiserror::Error)]
#[error("the halves belong to different sockets")]
#[non_exhaustive]
pub struct ReuniteError(
    /// The read half.
    pub OwnedReadHalf,
    /// The write half.
    pub OwnedWriteHalf,
);

macro_rules! impl_read_half {
    ($half:ident $(<$life:lifetime>)?) => {
        impl $half $(<$life>)? {
            /// Receives the next bytes without copying them, at most `max`; `None` at the end.
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

            /// Waits for bytes and copies them without taking them from the stream; 0 at its end.
            ///
            /// # Errors
            ///
            /// What ended the connection.
            ///
            /// # Cancel safety
            ///
            /// Cancel-safe: nothing is taken.
            pub async fn peek(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.stream.peek(buf).await
            }
        }

        impl AsyncRead for $half $(<$life>)? {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.stream.poll_read(cx, buf)
            }
        }
    };
}

macro_rules! impl_write_half {
    ($half:ident $(<$life:lifetime>)?) => {
        impl $half $(<$life>)? {
            /// Writes a whole chunk without copying it.
            ///
            /// # Errors
            ///
            /// What ended the connection; [`BrokenPipe`](io::ErrorKind::BrokenPipe) after
            /// [`finish`](Self::finish) or shutdown.
            ///
            /// # Cancel safety
            ///
            /// Not cancel-safe: an unknown part of the chunk may have been written.
            pub async fn write_chunk(&mut self, mut chunk: Bytes) -> io::Result<()> {
                while !chunk.is_empty() {
                    std::future::poll_fn(|cx| self.stream.poll_write_chunk(cx, &mut chunk)).await?;
                }
                Ok(())
            }

            /// Ends our direction of the stream without waiting; see [`ReliableUdpSocket::finish`].
            ///
            /// # Errors
            ///
            /// What ended the connection before.
            pub fn finish(&self) -> io::Result<()> {
                self.stream.finish()
            }
        }

        impl AsyncWrite for $half $(<$life>)? {
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

            fn poll_shutdown(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                self.stream.poll_shutdown(cx)
            }
        }
    };
}

macro_rules! impl_any_half {
    ($half:ident $(<$life:lifetime>)?) => {
        impl $half $(<$life>)? {
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

            /// Returns a snapshot of what the connection has counted and measured; after its end, the last one.
            pub fn stats(&self) -> ConnectionStats {
                self.stream.stats()
            }
        }

        impl fmt::Debug for $half $(<$life>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt_stream(&self.stream, f.debug_struct(stringify!($half)))
            }
        }
    };
}

impl_read_half!(ReadHalf<'_>);
impl_read_half!(OwnedReadHalf);
impl_write_half!(WriteHalf<'_>);
impl_write_half!(OwnedWriteHalf);
impl_any_half!(ReadHalf<'_>);
impl_any_half!(OwnedReadHalf);
impl_any_half!(WriteHalf<'_>);
impl_any_half!(OwnedWriteHalf);

impl OwnedReadHalf {
    /// Puts the two halves of a socket together again.
    ///
    /// # Errors
    ///
    /// [`ReuniteError`], which gives both back, if they belong to different sockets.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<ReliableUdpSocket, ReuniteError> {
        if Arc::ptr_eq(&self.stream, &other.stream) {
            other.forget();
            Ok(ReliableUdpSocket::from_shared(self.stream))
        } else {
            Err(ReuniteError(self, other))
        }
    }
}

impl OwnedWriteHalf {
    /// Puts the two halves of a socket together again.
    ///
    /// # Errors
    ///
    /// [`ReuniteError`], which gives both back, if they belong to different sockets.
    pub fn reunite(self, other: OwnedReadHalf) -> Result<ReliableUdpSocket, ReuniteError> {
        other.reunite(self)
    }

    /// Drops the half without ending the stream; that happens when the read half is dropped too.
    pub fn forget(mut self) {
        self.finish_on_drop = false;
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.finish_on_drop {
            self.stream.drop_write();
        }
    }
}
