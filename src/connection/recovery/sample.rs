//! The round-trip times that one ACK shows.

use std::time::Duration;

use super::delivery_rate::SendSnapshot;
use super::scoreboard::Piece;
use crate::Timestamp;

/// Finds the segment sent last among those that one ACK delivers (draft-ietf-ccwg-bbr-06 §4.1.2.3,
/// `IsNewestPacket()`), and its RTT (§5.5.7.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Newest {
    snapshot: Option<SendSnapshot>,
    was_retransmitted: bool,
}

impl Newest {
    pub(super) fn on_delivered(&mut self, piece: &Piece) {
        // Transmissions are numbered in the order of their times.
        let is_newest = self
            .snapshot
            .is_none_or(|newest| newest.transmission <= piece.snapshot.transmission);
        if is_newest {
            self.snapshot = Some(piece.snapshot);
            self.was_retransmitted = piece.was_retransmitted;
        }
    }

    /// Returns the counters at its transmission.
    pub(super) const fn snapshot(&self) -> Option<&SendSnapshot> {
        self.snapshot.as_ref()
    }

    pub(super) fn rtt(&self, now: Timestamp) -> Option<Duration> {
        self.snapshot
            .filter(|_| !self.was_retransmitted)
            .map(|newest| now.saturating_since(newest.sent_at))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Offset;

    #[test]
    fn what_was_sent_last_counts_in_whatever_order_it_is_delivered() {
        let at = Timestamp::from_millis;
        let piece = |transmission, was_retransmitted| Piece {
            start: Offset::FIRST,
            end: Offset::FIRST + 1,
            was_retransmitted,
            first_transmission: 0,
            snapshot: SendSnapshot {
                transmission,
                sent_at: at(transmission),
                ..SendSnapshot::default()
            },
        };
        let mut newest = Newest::default();
        assert_eq!(newest.rtt(at(10)), None);
        for transmission in [2, 5, 3] {
            newest.on_delivered(&piece(transmission, false));
        }
        assert_eq!(newest.snapshot().map(|newest| newest.transmission), Some(5));
        assert_eq!(newest.rtt(at(10)), Some(Duration::from_millis(5)));
        // Karn: whose RTT that would be is not known.
        newest.on_delivered(&piece(6, true));
        assert_eq!(newest.rtt(at(10)), None);
    }
}
