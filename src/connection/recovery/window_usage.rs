//! Whether the congestion window was the limit when the data in flight was sent.
//!
//! A window that is not used must not grow (RFC 7661 §4.1, RFC 5681 §4.1). RFC 7661 measures `pipeACK`
//! over several rounds; this is the simpler rule that Linux applies, one observation per window: the
//! most that was in flight since `snd_una` passed what had been sent when the last observation began,
//! and whether that filled the window to within a segment. In slow start, half a window in use is
//! enough, because the next round may double it.

use crate::connection::Offset;

/// What was observed in the present round.
#[derive(Debug, Clone, Default)]
pub struct WindowUsage {
    max_in_flight: u64,
    was_full: bool,
    round_end: Offset,
}

impl WindowUsage {
    /// Takes a transmission into account: `in_flight` and `snd_nxt` are those after it.
    pub fn on_sent(
        &mut self,
        snd_una: Offset,
        snd_nxt: Offset,
        in_flight: u64,
        cwnd: u64,
        mss: u64,
    ) {
        let is_full = in_flight.saturating_add(mss) > cwnd;
        let is_more = !self.was_full && in_flight > self.max_in_flight;
        if snd_una >= self.round_end || is_full || is_more {
            self.was_full = is_full;
            self.max_in_flight = in_flight;
            self.round_end = snd_nxt;
        }
    }

    /// Says whether the window was the limit.
    pub const fn is_limited(&self, cwnd: u64, ssthresh: u64) -> bool {
        self.was_full || (cwnd < ssthresh && cwnd < self.max_in_flight.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_counts_as_used_when_it_was_filled() {
        // Name, in flight, cwnd, ssthresh, limited. The mss is 1,000.
        let cases = [
            ("full", 10_000, 10_000, 0, true),
            ("less than a segment free", 9_001, 10_000, 0, true),
            ("a segment free", 9_000, 10_000, 0, false),
            (
                "slow start, more than half used",
                5_001,
                10_000,
                u64::MAX,
                true,
            ),
            ("slow start, half used", 5_000, 10_000, u64::MAX, false),
            (
                "avoidance, more than half used",
                5_001,
                10_000,
                10_000,
                false,
            ),
        ];
        for (name, in_flight, cwnd, ssthresh, expected) in cases {
            let mut usage = WindowUsage::default();
            usage.on_sent(
                Offset::FIRST,
                Offset::FIRST + in_flight,
                in_flight,
                cwnd,
                1_000,
            );
            assert_eq!(usage.is_limited(cwnd, ssthresh), expected, "{name}");
        }
    }

    #[test]
    fn a_full_window_is_remembered_for_a_round() {
        let mut usage = WindowUsage::default();
        let nxt = Offset::FIRST + 10_000;
        usage.on_sent(Offset::FIRST, nxt, 10_000, 10_000, 1_000);
        // Half of it is acknowledged, one small segment follows.
        usage.on_sent(Offset::FIRST + 5_000, nxt + 100, 5_100, 10_000, 1_000);
        assert!(usage.is_limited(10_000, 0));
        // The round is over.
        usage.on_sent(nxt, nxt + 200, 200, 10_000, 1_000);
        assert!(!usage.is_limited(10_000, 0));
    }
}
