//! Certificates and keys as PEM (RFC 7468).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;

pub(super) const CERTIFICATE: &str = "certificate";
const PRIVATE_KEY: &str = "private key";

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_path_buf(),
        source: Arc::new(source),
    })
}

/// All certificates in `text`: at least one.
pub(super) fn certificates(
    text: &[u8],
    path: Option<&Path>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(CERTIFICATE, path, &error))?;
    if found.is_empty() {
        return Err(missing(CERTIFICATE, path));
    }
    Ok(found)
}

/// The first private key in `text`.
pub(super) fn private_key(
    text: &[u8],
    path: Option<&Path>,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        Error::NoItemsFound => missing(PRIVATE_KEY, path),
        error => malformed(PRIVATE_KEY, path, &error),
    })
}

pub(super) fn missing(what: &'static str, path: Option<&Path>) -> TlsError {
    problem(what, path, "is missing".to_owned())
}

fn malformed(what: &'static str, path: Option<&Path>, error: &Error) -> TlsError {
    problem(what, path, format!("is malformed: {error}"))
}

fn problem(what: &'static str, path: Option<&Path>, problem: String) -> TlsError {
    TlsError::Pem {
        path: path.map(Path::to_path_buf),
        what,
        problem,
    }
}
