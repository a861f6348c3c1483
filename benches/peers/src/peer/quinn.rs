//! quinn: one bidirectional stream per connection. Its defaults; the certificate signs itself, and the client trusts
//! it. Without encryption it is quinn-plaintext, with a checksum in the place of the tag.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Incoming, Peer, Role, Side};

const NAME: &str = "localhost";

pub(crate) struct Quinn {
    server: ServerConfig,
    client: ClientConfig,
}

impl Quinn {
    pub(crate) fn encrypted() -> io::Result<Self> {
        let signed =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
        let certificate = CertificateDer::from(signed.cert);
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(io::Error::other)?;
        Ok(Self {
            server: ServerConfig::with_single_cert(vec![certificate], key.into())
                .map_err(io::Error::other)?,
            client: ClientConfig::with_root_certificates(Arc::new(roots))
                .map_err(io::Error::other)?,
        })
    }

    pub(crate) fn plain() -> Self {
        Self {
            server: quinn_plaintext::server_config(),
            client: quinn_plaintext::client_config(),
        }
    }
}

impl Peer for Quinn {
    type Side = Served;

    async fn bind(&self, role: Role) -> io::Result<Served> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut endpoint = match role {
            Role::Server => Endpoint::server(self.server.clone(), local)?,
            Role::Client => Endpoint::client(local)?,
        };
        endpoint.set_default_client_config(self.client.clone());
        Ok(Served(endpoint))
    }
}

pub(crate) struct Served(Endpoint);

impl Side for Served {
    type Stream = Stream;

    fn addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let connecting = self.0.connect(to, NAME).map_err(io::Error::other)?;
        let connection = connecting.await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(Stream::new(send, recv, connection))
    }

    async fn accept(&self) -> io::Result<Incoming<Stream>> {
        let incoming = self.0.accept().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Box::pin(async move {
            let connection = incoming.await?;
            let (send, recv) = connection.accept_bi().await?;
            Ok(Stream::new(send, recv, connection))
        }))
    }
}

/// Both halves of a stream, and the connection, which lives as long.
pub(crate) struct Stream {
    send: SendStream,
    recv: RecvStream,
    _connection: Connection,
}

impl Stream {
    fn new(send: SendStream, recv: RecvStream, connection: Connection) -> Self {
        Self {
            send,
            recv,
            _connection: connection,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
