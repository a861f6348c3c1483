//! One segment with everything that a capture says of it, and why it may not be captured.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::tap::Direction;
use crate::wire::Segment;

/// A segment to be written to a capture or a log.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SegmentRecord<'a> {
    /// When it was seen. Times before 1970 are written as 1970.
    pub time: SystemTime,
    /// Which way it went, where that is known.
    pub direction: Option<Direction>,
    /// UDP address of the sender.
    pub from: SocketAddr,
    /// UDP address of the receiver.
    pub to: SocketAddr,
    /// The segment: the whole UDP payload.
    pub segment: &'a [u8],
}

impl<'a> SegmentRecord<'a> {
    /// Makes a record of a segment that went one way or the other.
    pub fn new(time: SystemTime, from: SocketAddr, to: SocketAddr, segment: &'a [u8]) -> Self {
        Self {
            time,
            direction: None,
            from,
            to,
            segment,
        }
    }

    /// The same with a direction.
    #[must_use]
    pub fn with_direction(self, direction: Direction) -> Self {
        Self {
            direction: Some(direction),
            ..self
        }
    }

    /// Returns the time since 1970 in nanoseconds, until 2554.
    pub(super) fn unix_nanos(&self) -> u64 {
        let since = self.time.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
    }
}

/// Why a UDP payload cannot stand in a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// It is no segment (`docs/PROTOCOL.md`, section 1).
    #[error("not a segment")]
    Malformed,
    /// Neither of the two integrity checks holds (`docs/PROTOCOL.md`, section 4).
    #[error("the segment is damaged")]
    Damaged,
    /// It does not fit into an IP packet, which no segment that came over UDP is too long for.
    #[error("the segment is too long for an IP packet")]
    TooLong,
}

impl SegmentError {
    /// Finds the reason in what a writer returned; `None` if it failed for another one.
    pub fn from_io(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<SegmentError> for io::Error {
    fn from(error: SegmentError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Checks that a UDP payload is an intact segment.
///
/// # Errors
///
/// [`SegmentError::Malformed`] or [`SegmentError::Damaged`].
pub fn check_segment(payload: &[u8]) -> Result<(), SegmentError> {
    let segment = Segment::decode(payload).map_err(|_| SegmentError::Malformed)?;
    segment.integrity().map(drop).ok_or(SegmentError::Damaged)
}
