//! Why there is no TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::{CertificateError, Error};

use super::fingerprint::Fingerprint;
use super::pin::WrongPin;

/// Why a certificate or key cannot be used, or a handshake failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system reported.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file, or what was given as one's content, does not hold what it should as PEM.
    #[error("{} in PEM {problem}{}", what, path.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default())]
    Pem {
        /// The file, if it was one.
        path: Option<PathBuf>,
        /// What was looked for: `certificate` or `private key`.
        what: &'static str,
        /// What was wrong with it.
        problem: String,
    },
    /// The certificate and the key do not belong together, or one is of a kind that is not supported.
    #[error("certificate and key cannot be used together: {0}")]
    Identity(String),
    /// A CA's certificate cannot be used as one.
    #[error("not usable as a CA's certificate: {0}")]
    Authority(String),
    /// The cryptography below does not do TLS 1.3.
    #[error("TLS 1.3 is not supported: {0}")]
    Unsupported(String),
    /// A fingerprint is not 64 hexadecimal digits.
    #[error("not a SHA-256 fingerprint of 64 hexadecimal digits: {0:?}")]
    Fingerprint(String),
    /// The server's name is neither a DNS name nor an IP address.
    #[error("neither a DNS name nor an IP address: {0:?}")]
    Name(String),
    /// The server has another certificate than what is pinned: it has a new one, or this is not that
    /// server.
    #[error(
        "the server's certificate has the fingerprint {seen}, not the pinned {}",
        either(pinned)
    )]
    WrongPin {
        /// The fingerprints that would do.
        pinned: Vec<Fingerprint>,
        /// The fingerprint of what the server showed.
        seen: Fingerprint,
    },
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {message}")]
    Certificate {
        /// What is wrong with it.
        problem: CertificateProblem,
        /// The details.
        message: String,
    },
    /// The peer does not speak TLS 1.3, shares no protocol or cipher, or refused this side.
    #[error("no TLS with the peer: {0}")]
    Handshake(String),
    /// The stream failed or ended during the handshake.
    #[error("connection lost during the TLS handshake")]
    Connection(#[source] Arc<io::Error>),
}

fn either(pinned: &[Fingerprint]) -> String {
    let pinned: Vec<_> = pinned.iter().map(Fingerprint::to_string).collect();
    pinned.join(" or ")
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Its last day has passed, by this side's clock.
    Expired,
    /// Its first day is still to come, by this side's clock.
    NotYetValid,
    /// It is for another name than the one connected to.
    WrongName,
    /// None of the trusted CAs signed it.
    UnknownIssuer,
    /// The server does not hold its key, or a signature in it is wrong.
    BadSignature,
    /// Anything else: malformed, made for another purpose, with an algorithm that is not supported.
    Other,
}

/// The messages show every field but the source; `io::Error`s compare by their kind.
impl PartialEq for TlsError {
    fn eq(&self, other: &Self) -> bool {
        let kind = |error: &Self| match error {
            Self::Read { source, .. } | Self::Connection(source) => Some(source.kind()),
            Self::Pem { .. }
            | Self::Identity(_)
            | Self::Authority(_)
            | Self::Unsupported(_)
            | Self::Fingerprint(_)
            | Self::Name(_)
            | Self::WrongPin { .. }
            | Self::Certificate { .. }
            | Self::Handshake(_) => None,
        };
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.to_string() == other.to_string()
            && kind(self) == kind(other)
    }
}

impl TlsError {
    /// What a handshake's `io::Error` is about.
    pub(super) fn from_io(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(Error::InvalidCertificate(certificate)) => Self::from_certificate(certificate),
            Some(other) => Self::Handshake(other.to_string()),
            None => Self::Connection(Arc::new(error)),
        }
    }

    fn from_certificate(error: &CertificateError) -> Self {
        if let CertificateError::Other(other) = error
            && let Some(WrongPin { pinned, seen }) = other.0.downcast_ref()
        {
            return Self::WrongPin {
                pinned: pinned.clone(),
                seen: *seen,
            };
        }
        let problem = match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                CertificateProblem::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateProblem::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                CertificateProblem::WrongName
            }
            CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
            CertificateError::BadSignature => CertificateProblem::BadSignature,
            _ => CertificateProblem::Other,
        };
        Self::Certificate {
            problem,
            message: error.to_string(),
        }
    }
}
