//! A stream inside TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream as Inner;

use super::error::TlsError;

/// The label by which both sides derive the same bytes from the channel's secrets.
// RFC 9266 §2
const BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A stream whose bytes are private and cannot be changed on the way.
///
/// - `write` takes bytes into the TLS layer, which may hold them back until the stream below takes
///   more; `flush` waits until all of them are in the stream below.
/// - `shutdown` says that nothing follows (a `close_notify`), and shuts the stream below down. Without
///   it the reader gets an error of kind `UnexpectedEof` at the end, never `Ok(0)`: so a stream that was
///   cut by somebody on the way does not look complete (RFC 8446 §6.1).
/// - A record that was tampered with is an error of kind `InvalidData` for the reader, for good.
///
/// # Cancel safety
/// Reading, writing, flushing and shutting down are as cancel safe as tokio's own: a cancelled read
/// has taken nothing; a cancelled `write` has written nothing; `write_all` and `read_exact` are not.
pub struct TlsStream<S> {
    pub(super) inner: Inner<S>,
    binding: [u8; 32],
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("stream", self.get_ref())
            .finish_non_exhaustive()
    }
}

impl<S> TlsStream<S> {
    pub(super) fn new(inner: Inner<S>) -> Result<Self, TlsError> {
        let output = [0; 32];
        // RFC 9266 §2: no context value, 32 bytes.
        let exported = match &inner {
            Inner::Client(stream) => {
                let (_, connection) = stream.get_ref();
                connection.export_keying_material(output, BINDING_LABEL, None)
            }
            Inner::Server(stream) => {
                let (_, connection) = stream.get_ref();
                connection.export_keying_material(output, BINDING_LABEL, None)
            }
        };
        Ok(Self {
            binding: exported.map_err(|error| TlsError::Handshake(error.to_string()))?,
            inner,
        })
    }

    /// What only the two ends of this very channel know: a proof on top that covers it cannot be
    /// carried over from another channel by somebody in the middle (`tls-exporter`, RFC 9266).
    pub fn binding(&self) -> [u8; 32] {
        self.binding
    }

    /// The application protocol that both sides named (ALPN), if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        let (_, connection) = self.inner.get_ref();
        connection.alpn_protocol()
    }

    /// The stream below, for example to ask for its statistics.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref().0
    }

    /// The stream below. Reading from it or writing to it breaks the TLS on top.
    pub fn get_mut(&mut self) -> &mut S {
        self.inner.get_mut().0
    }

    /// Leaves the TLS and returns the stream below. Bytes that the TLS layer still holds are lost: first
    /// `shutdown`, and read up to the end.
    pub fn into_inner(self) -> S {
        match self.inner {
            Inner::Client(stream) => stream.into_inner().0,
            Inner::Server(stream) => stream.into_inner().0,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
