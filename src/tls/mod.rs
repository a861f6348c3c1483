//! TLS 1.3 over a stream (feature `tls`).
//!
//! An [`Acceptor`] and a [`Connector`] put `rustls` on top of anything that is
//! `AsyncRead + AsyncWrite + Unpin`, such as a [`ReliableUdpSocket`](crate::ReliableUdpSocket): what
//! goes over the wire is then private, and cannot be changed on the way. The connector trusts a
//! certificate by its SHA-256 [`Fingerprint`] (a *pin*, good for a self-signed one), or whatever one of
//! given authorities (CA) signed.
//!
//! Either says who the **server** is, and nothing about the client: certificates of clients are not
//! asked for. A client proves itself by something on top that [`TlsStream::binding`] ties to this
//! very channel, as the file copy's shared secret does.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use reliable_udp::tls::{Acceptor, Connector};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # let made = rcgen::generate_simple_self_signed(["server".to_owned()])?;
//! # let (cert_pem, key_pem) = (made.cert.pem(), made.signing_key.serialize_pem());
//! let acceptor = Acceptor::from_pem(cert_pem, key_pem)?; // or from_files("cert.pem", "key.pem")
//! let pin = acceptor.fingerprint().to_string(); // what the server's operator gives to its users
//! let connector = Connector::pinned(pin.parse()?)?;
//!
//! let (near, far) = tokio::io::duplex(16 * 1024); // or two ends of a connection
//! let server = async {
//!     let mut stream = acceptor.accept(far).await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await?;
//!     Ok::<_, Box<dyn std::error::Error>>(stream.binding())
//! };
//! let client = async {
//!     let mut stream = connector.connect("server", near).await?;
//!     let mut text = String::new();
//!     stream.read_to_string(&mut text).await?;
//!     assert_eq!(text, "hello");
//!     Ok::<_, Box<dyn std::error::Error>>(stream.binding())
//! };
//! let (ours, theirs) = tokio::try_join!(server, client)?;
//! assert_eq!(ours, theirs, "there is nobody between the two");
//! # Ok(()) }
//! ```
//!
//! # Left out on purpose
//! Versions before 1.3. Session tickets and 0-RTT data: each connection proves the server anew, no
//! data can be replayed, and a server keeps nothing about clients that left. Deadlines: a caller puts
//! `tokio::time::timeout` around [`Acceptor::accept`] and [`Connector::connect`], which wait for the
//! peer as long as the stream below does.

mod error;
mod fingerprint;
mod pem;
mod pin;
mod stream;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::{Resumption, WantsClientCert};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier,
    WantsVersions,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use self::error::{CertificateProblem, TlsError};
pub use self::fingerprint::{Fingerprint, fingerprint};
pub use self::stream::TlsStream;

use self::pin::PinVerifier;

/// The server's side: a certificate, and the key that proves it. Cloning it is cheap.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Acceptor {
    /// Reads a certificate, with those that lead to its CA behind it if there are any, and its private
    /// key (PKCS #8, PKCS #1 or SEC 1), both as PEM files. Blocks for the time of reading small files.
    ///
    /// # Errors
    /// [`TlsError::Read`], [`TlsError::Pem`], or [`TlsError::Identity`] if the two do not belong together or
    /// are of a kind that is not supported.
    pub fn from_files(
        cert_pem: impl AsRef<Path>,
        key_pem: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let (cert, key) = (cert_pem.as_ref(), key_pem.as_ref());
        let chain = pem::certificates(&pem::read(cert)?, Some(cert))?;
        Self::identify(chain, pem::private_key(&pem::read(key)?, Some(key))?)
    }

    /// Like [`from_files`](Self::from_files), with the files' content.
    ///
    /// # Errors
    /// As for [`from_files`](Self::from_files), but for reading.
    pub fn from_pem(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let chain = pem::certificates(cert.as_ref(), None)?;
        Self::identify(chain, pem::private_key(key.as_ref(), None)?)
    }

    fn identify(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let fingerprint = fingerprint::of_first(&chain, None)?;
        let mut config = versions(ServerConfig::builder_with_provider(provider()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Identity(error.to_string()))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            fingerprint,
        })
    }

    /// Names the application protocols (ALPN, RFC 7301) that this side speaks, the best first. Default:
    /// none, which goes with whatever the other side names. Two sides that name some and share none
    /// fail the handshake.
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The fingerprint of the certificate, for the clients' [`Connector::pinned`].
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Performs the server's side of the handshake over `stream`.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] if the client does not speak TLS 1.3 or refuses the certificate,
    /// [`TlsError::Connection`] if the stream fails or ends.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is dropped.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        TlsStream::new(accepting.await.map_err(TlsError::from_io)?.into())
    }
}

/// The client's side: what it trusts. Cloning it is cheap.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// Only to be shown: the verifier has its own.
    pins: Vec<Fingerprint>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Trusts the one certificate that has this fingerprint, on the proof that the server holds its
    /// key. The certificate's names, dates and issuer are not looked at: the pin says all of that.
    ///
    /// # Errors
    /// [`TlsError::Unsupported`], if the cryptography below does not do TLS 1.3.
    pub fn pinned(pin: Fingerprint) -> Result<Self, TlsError> {
        Self::pinned_to_any([pin])
    }

    /// Like [`pinned`](Self::pinned), for one of several certificates: of several servers, or of one that is
    /// about to change its own. None at all trusts nobody.
    ///
    /// # Errors
    /// As for [`pinned`](Self::pinned).
    pub fn pinned_to_any(pins: impl IntoIterator<Item = Fingerprint>) -> Result<Self, TlsError> {
        let pins: Vec<_> = pins.into_iter().collect();
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = PinVerifier::new(pins.clone(), algorithms);
        let config = versions(ClientConfig::builder_with_provider(provider))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Self::new(config, pins))
    }

    /// Trusts the certificates that one of the CAs in a PEM file signed, for the name given to
    /// [`connect`](Self::connect) and at the time of the connection. Revocation is not looked up. Blocks
    /// for the time of reading a small file.
    ///
    /// # Errors
    /// [`TlsError::Read`], [`TlsError::Pem`], or [`TlsError::Authority`] if a certificate cannot be read as one.
    pub fn with_ca(ca_pem: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = ca_pem.as_ref();
        Self::trusting(pem::certificates(&pem::read(path)?, Some(path))?)
    }

    /// Like [`with_ca`](Self::with_ca), with the file's content.
    ///
    /// # Errors
    /// As for [`with_ca`](Self::with_ca), but for reading.
    pub fn with_ca_pem(ca: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Self::trusting(pem::certificates(ca.as_ref(), None)?)
    }

    fn trusting(authorities: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots
                .add(authority)
                .map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        let config = versions(ClientConfig::builder_with_provider(provider()))?;
        Ok(Self::new(config.with_root_certificates(roots), Vec::new()))
    }

    fn new(config: ConfigBuilder<ClientConfig, WantsClientCert>, pins: Vec<Fingerprint>) -> Self {
        let mut config = config.with_no_client_auth();
        config.resumption = Resumption::disabled();
        Self {
            config: Arc::new(config),
            pins,
        }
    }

    /// Names the application protocols that this side speaks, as [`Acceptor::alpn`] does.
    #[must_use]
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Performs the client's side of the handshake over `stream`, with the server that is called
    /// `name`: a DNS name or an IP address, without a port. A DNS name is told to the server, readable by
    /// anyone (SNI, RFC 6066 §3); an address is not.
    ///
    /// # Errors
    /// [`TlsError::Name`] if `name` is neither; [`TlsError::WrongPin`] or [`TlsError::Certificate`] if the server
    /// is not trusted; [`TlsError::Handshake`] if it does not speak TLS 1.3; [`TlsError::Connection`] if the
    /// stream fails or ends. Nothing of the application's has gone out in any of these cases.
    ///
    /// # Cancel safety
    /// Not cancel safe: the stream is dropped.
    pub async fn connect<S>(&self, name: &str, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let server =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(server, stream);
        TlsStream::new(connecting.await.map_err(TlsError::from_io)?.into())
    }
}

/// Not the process's default provider, which is the application's to choose.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn versions<T: ConfigSide>(
    config: ConfigBuilder<T, WantsVersions>,
) -> Result<ConfigBuilder<T, WantsVerifier>, TlsError> {
    config
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Unsupported(error.to_string()))
}
