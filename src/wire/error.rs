//! `DecodeError`: why a datagram was dropped.

use thiserror::Error;

/// Why a datagram does not hold a segment.
///
/// It never leaves the crate: the datagram is counted, traced and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The datagram is shorter than a header without options.
    #[error("datagram shorter than the 20 bytes of a header")]
    TooShort,
    /// The data offset points into the fixed header or beyond the datagram.
    #[error("data offset outside the datagram or below 5")]
    BadDataOffset,
    /// An option's length is below 2 or reaches beyond the header.
    #[error("option length below 2 or beyond the header")]
    BadOptionLength,
}
