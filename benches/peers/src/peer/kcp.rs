//! tokio_kcp: every connection of a client has a UDP socket of its own, and the server one for all of them.
//!
//! The defaults are for messages on a tick of 40 ms. So that bulk and echo work as well as it can: its fastest mode
//! (a tick of 10 ms, no congestion control), everything flushed at once, a stream in place of messages, windows of
//! 1,024 segments, segments as long as ours.

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio_kcp::{KcpConfig, KcpListener, KcpNoDelayConfig, KcpStream};

use super::{Incoming, Peer, Role, Side};

/// The longest datagram, in bytes.
const DATAGRAM: usize = 1_452;

/// Of both windows, in segments.
const WINDOW: u16 = 1_024;

/// The most that one write takes, in bytes: a longer one is an error, and not a short write.
const WRITE: usize = 64 * 1024;

pub(crate) struct Kcp;

pub(crate) struct Served {
    config: KcpConfig,
    listener: Option<(Mutex<KcpListener>, SocketAddr)>,
}

impl Peer for Kcp {
    type Side = Served;

    async fn bind(&self, role: Role) -> io::Result<Served> {
        let config = KcpConfig {
            mtu: DATAGRAM,
            nodelay: KcpNoDelayConfig::fastest(),
            wnd_size: (WINDOW, WINDOW),
            flush_write: true,
            flush_acks_input: true,
            stream: true,
            ..KcpConfig::default()
        };
        let listener = match role {
            Role::Client => None,
            Role::Server => {
                let listener = KcpListener::bind(config, (Ipv4Addr::LOCALHOST, 0))
                    .await
                    .map_err(io::Error::other)?;
                let addr = listener.local_addr()?;
                Some((Mutex::new(listener), addr))
            }
        };
        Ok(Served { config, listener })
    }
}

impl Side for Served {
    type Stream = Stream;

    fn addr(&self) -> io::Result<SocketAddr> {
        let (_, addr) = self.listener.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(*addr)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let stream = KcpStream::connect_with_socket(&self.config, socket, to).await;
        Ok(Stream(stream.map_err(io::Error::other)?))
    }

    async fn accept(&self) -> io::Result<Incoming<Stream>> {
        let (listener, _) = self.listener.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let accepted = listener.lock().await.accept().await;
        let (stream, _) = accepted.map_err(io::Error::other)?;
        Ok(Box::pin(ready(Ok(Stream(stream)))))
    }
}

/// A stream whose writes are short where they would fail.
pub(crate) struct Stream(KcpStream);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = buf.len().min(WRITE);
        Pin::new(&mut self.0).poll_write(cx, &buf[..taken])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
