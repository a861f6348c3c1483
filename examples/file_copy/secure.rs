//! `--secret-file`, `--tls` and what belongs to them: who may write, and who may read along.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clap::ArgGroup;
use reliable_udp::ReliableUdpSocket;
use reliable_udp::copy::Secret;
#[cfg(feature = "tls")]
use reliable_udp::tls::{Acceptor, Connector, Fingerprint, TlsError, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client proves, and whom it trusts.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(group = ArgGroup::new("trust").args(["pin", "ca"]))]
pub(crate) struct ClientArgs {
    /// File with the secret that client and server prove to each other; `openssl rand -hex 32` makes one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Speak TLS 1.3, with a server that --pin or --ca says is the right one.
    #[arg(long, requires = "trust")]
    tls: bool,
    /// Trust the certificate with this SHA-256, which the server prints; may be repeated for several servers.
    #[arg(long, value_name = "SHA256", requires = "tls")]
    pin: Vec<String>,
    /// Trust the certificates signed by a CA of this PEM file.
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// Name that the server's certificate is for. Default: the HOST that is connected to.
    #[arg(long, value_name = "NAME", requires = "tls")]
    tls_name: Option<String>,
}

/// What a server asks for, and how it shows who it is.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServerArgs {
    /// File with the secret without which nobody may write; `openssl rand -hex 32` makes one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Speak TLS 1.3 only.
    #[arg(long, requires = "cert")]
    tls: bool,
    /// PEM file with the certificate, and those that lead to its CA behind it.
    #[arg(long, value_name = "FILE", requires = "tls", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls", requires = "cert")]
    key: Option<PathBuf>,
}

/// Why there is no secure connection.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    error: Box<dyn Error + Send + Sync>,
}

/// Whose turn it is to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "only a handshake fails otherwise")
)]
pub(crate) enum FailureKind {
    /// This side's user: an argument, or a file that one names.
    Usage,
    /// One side does not trust the other, or they speak different things.
    Refused,
    /// The network's.
    Connection,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Failure {
    fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind: FailureKind::Usage,
            error: error.into(),
        }
    }
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> Failure {
    Failure::usage(
        "--tls needs a program built with the feature `tls`: cargo run --features copy,capture,tls …",
    )
}

fn secret(path: Option<&Path>) -> Result<Option<Secret>, Failure> {
    path.map(Secret::from_file)
        .transpose()
        .map_err(Failure::usage)
}

/// A client's means, read from their files.
#[derive(Debug, Clone)]
pub(crate) struct ClientSecurity {
    secret: Option<Secret>,
    #[cfg(feature = "tls")]
    tls: Option<Connector>,
    #[cfg(feature = "tls")]
    name: Option<String>,
}

impl ClientArgs {
    /// Reads the files.
    pub(crate) fn open(&self) -> Result<ClientSecurity, Failure> {
        #[cfg(not(feature = "tls"))]
        if self.tls {
            return Err(no_tls());
        }
        Ok(ClientSecurity {
            secret: secret(self.secret_file.as_deref())?,
            #[cfg(feature = "tls")]
            tls: self.connector()?,
            #[cfg(feature = "tls")]
            name: self.tls_name.clone(),
        })
    }

    #[cfg(feature = "tls")]
    fn connector(&self) -> Result<Option<Connector>, Failure> {
        if !self.tls {
            return Ok(None);
        }
        let connector = match &self.ca {
            Some(path) => Connector::with_ca(path),
            None => self
                .pin
                .iter()
                .map(|pin| pin.parse::<Fingerprint>())
                .collect::<Result<Vec<_>, _>>()
                .and_then(Connector::pinned_to_any),
        };
        connector.map(Some).map_err(Failure::usage)
    }
}

impl ClientSecurity {
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// Makes the connection to `target` (HOST:PORT) as secure as was asked for, within `patience`.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unused_async, reason = "TLS waits for the server")
    )]
    pub(crate) async fn connect(
        &self,
        target: &str,
        socket: ReliableUdpSocket,
        patience: Duration,
    ) -> Result<Channel, Failure> {
        #[cfg(feature = "tls")]
        if let Some(connector) = &self.tls {
            let name = self.name.as_deref().unwrap_or_else(|| host(target));
            return tls(patience, connector.connect(name, socket)).await;
        }
        let _ = (target, patience);
        Ok(Channel::Plain(socket))
    }
}

/// A server's means, read from their files.
#[derive(Debug, Clone)]
pub(crate) struct ServerSecurity {
    secret: Option<Secret>,
    #[cfg(feature = "tls")]
    tls: Option<Acceptor>,
}

impl ServerArgs {
    /// Reads the files.
    pub(crate) fn open(&self) -> Result<ServerSecurity, Failure> {
        #[cfg(not(feature = "tls"))]
        if self.tls {
            return Err(no_tls());
        }
        Ok(ServerSecurity {
            secret: secret(self.secret_file.as_deref())?,
            #[cfg(feature = "tls")]
            tls: match (&self.cert, &self.key) {
                (Some(cert), Some(key)) => {
                    Some(Acceptor::from_files(cert, key).map_err(Failure::usage)?)
                }
                _ => None,
            },
        })
    }
}

impl ServerSecurity {
    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    /// What the clients give to `--pin`.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unused_self, reason = "TLS has the certificate")
    )]
    pub(crate) fn pin(&self) -> Option<String> {
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &self.tls {
            return Some(acceptor.fingerprint().to_string());
        }
        None
    }

    /// One line about what is open, for the operator to see at start; `None` if nothing is. `who` are those
    /// that `--allow` names, `None` for everybody; `place` is the directory.
    pub(crate) fn warning(&self, who: Option<&str>, place: &Path) -> Option<String> {
        let place = place.display();
        let anyone = match who {
            None => "anyone who reaches this port".to_owned(),
            Some(networks) => format!("anyone in {networks}"),
        };
        match (self.secret.is_some(), self.pin().is_some()) {
            (true, true) => None,
            (true, false) => Some(
                "warning: no --tls: anyone on the way can read what is sent, and can change it"
                    .to_owned(),
            ),
            (false, true) => Some(format!(
                "warning: no --secret-file: {anyone} can write below {place}; TLS says who the server is, not the client"
            )),
            (false, false) => Some(format!(
                "warning: no --secret-file and no --tls: {anyone} can write below {place}, and anyone on the way can \
                 read it"
            )),
        }
    }

    /// Makes a client's connection as secure as was asked for, within `patience`. To be called in the
    /// client's own task: it waits for the client.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unused_async, reason = "TLS waits for the client")
    )]
    pub(crate) async fn accept(
        &self,
        socket: ReliableUdpSocket,
        patience: Duration,
    ) -> Result<Channel, Failure> {
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &self.tls {
            return tls(patience, acceptor.accept(socket)).await;
        }
        let _ = patience;
        Ok(Channel::Plain(socket))
    }
}

/// Waits for a handshake, and says whose fault it is if there is none.
#[cfg(feature = "tls")]
async fn tls(
    patience: Duration,
    handshake: impl Future<Output = Result<TlsStream<ReliableUdpSocket>, TlsError>>,
) -> Result<Channel, Failure> {
    let Ok(result) = tokio::time::timeout(patience, handshake).await else {
        return Err(Failure {
            kind: FailureKind::Connection,
            error: format!("no TLS handshake within {patience:?}").into(),
        });
    };
    result
        .map(|stream| Channel::Tls(Box::new(stream)))
        .map_err(|error| Failure {
            kind: match error {
                TlsError::Connection(_) => FailureKind::Connection,
                TlsError::Name(_) => FailureKind::Usage,
                _ => FailureKind::Refused,
            },
            error: error.into(),
        })
}

/// HOST of HOST:PORT, without the brackets of an IPv6 address.
#[cfg(feature = "tls")]
fn host(target: &str) -> &str {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

/// A connection with or without TLS.
#[derive(Debug)]
pub(crate) enum Channel {
    Plain(ReliableUdpSocket),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<ReliableUdpSocket>>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Channel {
    /// The connection below, for its statistics.
    pub(crate) fn socket(&self) -> &ReliableUdpSocket {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// What ties the proof of the secret to this very channel; empty without TLS.
    pub(crate) fn binding(&self) -> Vec<u8> {
        match self {
            Self::Plain(_) => Vec::new(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.binding().to_vec(),
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
