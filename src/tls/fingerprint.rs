//! SHA-256 of a certificate, by which it is pinned.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::error::TlsError;
use super::pem;

const LEN: usize = 32;

/// The SHA-256 of a certificate (its DER encoding), by which a [`Connector`](super::Connector) can trust
/// it alone.
///
/// It is written as 64 hexadecimal digits. Colons between pairs and capitals, as `openssl x509
/// -fingerprint -sha256` prints them, are read too.
///
/// ```
/// use reliable_udp::tls::Fingerprint;
///
/// let pin: Fingerprint = "AB:".repeat(32).trim_end_matches(':').parse()?;
/// assert_eq!(pin, Fingerprint::from([0xab; 32]));
/// assert_eq!(pin.to_string(), "ab".repeat(32));
/// # Ok::<(), reliable_udp::tls::TlsError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Fingerprint([u8; LEN]);

impl Fingerprint {
    pub(super) fn of(der: &[u8]) -> Self {
        let mut bytes = [0; LEN];
        for (to, from) in bytes.iter_mut().zip(digest(&SHA256, der).as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

/// In constant time, so that how far a wrong one agrees does not show.
impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Fingerprint {}

impl From<[u8; LEN]> for Fingerprint {
    fn from(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        parse(text).ok_or_else(|| TlsError::Fingerprint(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Fingerprint> {
    let has_colons = text.len() == 3 * LEN - 1;
    if !has_colons && text.len() != 2 * LEN {
        return None;
    }
    let mut bytes = [0; LEN];
    let mut rest = text.as_bytes();
    for (at, byte) in bytes.iter_mut().enumerate() {
        if has_colons && at > 0 {
            rest = rest.strip_prefix(b":")?;
        }
        let ([high, low], tail) = rest.split_first_chunk()?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        rest = tail;
    }
    rest.is_empty().then_some(Fingerprint(bytes))
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the fingerprint of the first certificate in a PEM file. Blocks for the time of reading a
/// small file.
///
/// # Errors
/// [`TlsError::Read`] or [`TlsError::Pem`].
pub fn fingerprint(cert_pem: impl AsRef<Path>) -> Result<Fingerprint, TlsError> {
    let path = cert_pem.as_ref();
    let chain = pem::certificates(&pem::read(path)?, Some(path))?;
    of_first(&chain, Some(path))
}

pub(super) fn of_first(
    chain: &[CertificateDer<'_>],
    path: Option<&Path>,
) -> Result<Fingerprint, TlsError> {
    let first = chain.first().map(|first| Fingerprint::of(first));
    first.ok_or_else(|| pem::missing(pem::CERTIFICATE, path))
}
