//! s2n-quic: one bidirectional stream per connection. Its defaults (s2n-tls, AES); the certificate signs itself, and
//! the client trusts it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use s2n_quic::client::{Client, Connect};
use s2n_quic::connection::Connection;
use s2n_quic::server::Server;
use s2n_quic::stream::BidirectionalStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;

use super::{Incoming, Peer, Role, Side};

const NAME: &str = "localhost";

pub(crate) struct S2n {
    certificate: String,
    key: String,
}

impl S2n {
    pub(crate) fn new() -> io::Result<Self> {
        let signed =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        Ok(Self {
            certificate: signed.cert.pem(),
            key: signed.signing_key.serialize_pem(),
        })
    }
}

pub(crate) enum Served {
    Server(Mutex<Server>, SocketAddr),
    Client(Client),
}

impl Peer for S2n {
    type Side = Served;

    async fn bind(&self, role: Role) -> io::Result<Served> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        if role == Role::Client {
            let client = Client::builder()
                .with_tls(self.certificate.as_str())
                .map_err(io::Error::other)?
                .with_io(local)?
                .start()
                .map_err(io::Error::other)?;
            return Ok(Served::Client(client));
        }
        let server = Server::builder()
            .with_tls((self.certificate.as_str(), self.key.as_str()))
            .map_err(io::Error::other)?
            .with_io(local)?
            .start()
            .map_err(io::Error::other)?;
        let addr = server.local_addr()?;
        Ok(Served::Server(Mutex::new(server), addr))
    }
}

impl Side for Served {
    type Stream = Stream;

    fn addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Server(_, addr) => Ok(*addr),
            Self::Client(client) => Ok(client.local_addr()?),
        }
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let Self::Client(client) = self else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let connect = Connect::new(to).with_server_name(NAME);
        let mut connection = client.connect(connect).await?;
        let stream = connection.open_bidirectional_stream().await?;
        Ok(Stream {
            stream,
            _connection: connection,
        })
    }

    async fn accept(&self) -> io::Result<Incoming<Stream>> {
        let Self::Server(server, _) = self else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let accepted = server.lock().await.accept().await;
        let mut connection = accepted.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Box::pin(async move {
            let accepted = connection.accept_bidirectional_stream().await?;
            let stream = accepted.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(Stream {
                stream,
                _connection: connection,
            })
        }))
    }
}

/// A stream, and the connection, which lives as long.
pub(crate) struct Stream {
    stream: BidirectionalStream,
    _connection: Connection,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf)
    }

    /// Not the stream's own, which waits until everything is acknowledged: no other peer's does.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}
