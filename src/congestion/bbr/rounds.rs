//! Packet-timed round trips: from the sending of a segment to its acknowledgment (draft §5.5.1).

/// Counts round trips.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds {
    /// `BBR.next_round_delivered`: the round ends when something is acknowledged that was sent after so much
    /// was delivered.
    next_delivered: u64,
    /// `BBR.round_count`
    pub(super) count: u64,
    /// `BBR.round_start`: the present ACK has ended a round.
    pub(super) is_start: bool,
    /// `BBR.rounds_since_probe_up`
    pub(super) since_probe_up: u64,
}

impl Rounds {
    /// An ACK for data that was sent when `prior_delivered` bytes were delivered; now it is
    /// `total_delivered`. `None` is an ACK that does not tell.
    pub(super) fn on_acked(&mut self, prior_delivered: Option<u64>, total_delivered: u64) {
        self.is_start = prior_delivered.is_some_and(|prior| prior >= self.next_delivered);
        if self.is_start {
            self.restart(total_delivered);
            self.count = self.count.saturating_add(1);
            self.since_probe_up = self.since_probe_up.saturating_add(1);
        }
    }

    /// `StartRound()`: the next round ends with the acknowledgment of what is sent from now on.
    pub(super) fn restart(&mut self, total_delivered: u64) {
        self.next_delivered = total_delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_ends_with_the_ack_of_what_was_sent_after_it_began() {
        let mut rounds = Rounds::default();
        // The first flight, sent when nothing was delivered: the first ACK ends a round, the others do not.
        let starts = [(0, 1_000), (0, 2_000), (0, 3_000)].map(|(prior, total)| {
            rounds.on_acked(Some(prior), total);
            rounds.is_start
        });
        assert_eq!(starts, [true, false, false]);
        // What the first ACK let out ends the second.
        rounds.on_acked(Some(1_000), 4_000);
        assert_eq!((rounds.is_start, rounds.count), (true, 2));
        rounds.on_acked(None, 5_000);
        assert!(!rounds.is_start);
    }

    #[test]
    fn a_round_can_be_begun_anew() {
        let mut rounds = Rounds::default();
        rounds.on_acked(Some(0), 1_000);
        rounds.restart(5_000);
        rounds.on_acked(Some(4_999), 6_000);
        assert!(!rounds.is_start);
        rounds.on_acked(Some(5_000), 7_000);
        assert!(rounds.is_start);
    }
}
