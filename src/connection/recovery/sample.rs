//! The round-trip times that one ACK shows.

use std::time::Duration;

use super::scoreboard::Piece;
use crate::Timestamp;

/// Finds the RTT of the segment sent last among those that one ACK delivers (draft-ietf-ccwg-bbr-06 §5.5.7.1).
#[derive(Debug, Default)]
pub(super) struct Newest {
    transmission: u64,
    /// `None` if it was sent more than once.
    sent_at: Option<Timestamp>,
}

impl Newest {
    pub(super) fn on_delivered(&mut self, piece: &Piece) {
        if piece.snapshot.transmission >= self.transmission {
            self.transmission = piece.snapshot.transmission;
            self.sent_at = (!piece.was_retransmitted).then_some(piece.snapshot.sent_at);
        }
    }

    pub(super) fn rtt(&self, now: Timestamp) -> Option<Duration> {
        self.sent_at.map(|sent_at| now.saturating_since(sent_at))
    }
}

/// Takes the RTT sample of one ACK: that of the earliest sent segment that it acknowledges, as an echoed
/// timestamp would, unless it acknowledges something that was sent twice (RFC 6298 §3).
#[derive(Debug, Default)]
pub(super) struct Karn {
    sent_at: Option<Timestamp>,
    is_ambiguous: bool,
}

impl Karn {
    pub(super) fn on_acknowledged(&mut self, piece: &Piece) {
        self.is_ambiguous |= piece.was_retransmitted;
        self.sent_at.get_or_insert(piece.snapshot.sent_at);
    }

    pub(super) fn sample(&self, now: Timestamp) -> Option<Duration> {
        self.sent_at
            .filter(|_| !self.is_ambiguous)
            .map(|sent_at| now.saturating_since(sent_at))
    }
}
