//! What the scoreboard knows of one range.

use crate::connection::Offset;
use crate::connection::recovery::delivery_rate::SendSnapshot;

/// What is known about a range that is neither acknowledged nor SACKed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// Sent, and one copy is in flight.
    Sent,
    /// Lost, and not sent again yet.
    Lost,
    /// Lost, and sent again: one copy is in flight.
    Retransmitted,
    /// Sent again though it was not lost (RFC 6675 §4, `NextSeg` rule 3): two copies are in flight.
    Doubled,
}

impl RecordState {
    /// How often `SetPipe` (RFC 6675 §4) counts an octet.
    pub(super) const fn copies(self) -> u64 {
        match self {
            Self::Lost => 0,
            Self::Sent | Self::Retransmitted => 1,
            Self::Doubled => 2,
        }
    }
}

/// One record, without its start, which is the key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) end: Offset,
    pub(super) state: RecordState,
    pub(super) was_retransmitted: bool,
    /// How many segments had been sent on the connection before this record's first one.
    pub(super) segments_before: u64,
    pub(super) first_transmission: u64,
    pub(super) snapshot: SendSnapshot,
}

/// Part of the scoreboard that an operation reports to its caller.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Its first offset.
    pub start: Offset,
    /// The offset after its last.
    pub end: Offset,
    /// Whether it was sent more than once (RFC 6298 §3).
    pub was_retransmitted: bool,
    /// The number of the transmission that carried it first.
    pub first_transmission: u64,
    /// The counters at its latest transmission.
    pub snapshot: SendSnapshot,
}

impl Piece {
    /// Returns its length in bytes.
    pub const fn len(&self) -> u64 {
        self.end.saturating_since(self.start)
    }
}

impl Record {
    pub(super) fn is_in_flight(&self, transmission: u64) -> bool {
        self.snapshot.transmission == transmission && self.state != RecordState::Lost
    }

    pub(super) const fn piece(&self, start: Offset) -> Piece {
        Piece {
            start,
            end: self.end,
            was_retransmitted: self.was_retransmitted,
            first_transmission: self.first_transmission,
            snapshot: self.snapshot,
        }
    }
}
