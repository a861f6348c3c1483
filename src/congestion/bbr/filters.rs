//! What is remembered of the path for how long: the largest bandwidth of two probing cycles (draft §5.5.2 to
//! §5.5.6), and of ten round trips the most that was acknowledged beyond what was expected (§5.5.9).

use super::arithmetic::Bandwidth;
use crate::Timestamp;

/// Draft §2.12 `BBR.ExtraAckedFilterLen`, in round trips.
const EXTRA_ACKED_ROUNDS: u64 = 10;

/// `BBR.max_bw_filter`: the largest sample of this probing cycle and of the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MaxBandwidth {
    previous: Bandwidth,
    current: Bandwidth,
}

impl MaxBandwidth {
    /// Returns `BBR.max_bw`.
    pub(super) fn get(&self) -> Bandwidth {
        self.previous.max(self.current)
    }

    pub(super) fn take(&mut self, sample: Bandwidth) {
        self.current = self.current.max(sample);
    }

    /// `AdvanceMaxBwFilter()`. A cycle without any sample does not count: what is known then is no older.
    pub(super) fn advance(&mut self) {
        if self.current > Bandwidth::ZERO {
            self.previous = std::mem::take(&mut self.current);
        }
    }
}

/// A windowed maximum over round trips. Three samples are kept: the largest, the largest since it and the
/// largest since that one, so that the next largest is at hand when one grows too old.
#[derive(Debug, Clone, Copy, Default)]
struct WindowedMax {
    best: [(u64, u64); 3],
}

impl WindowedMax {
    fn get(&self) -> u64 {
        let [(_, value), ..] = self.best;
        value
    }

    /// Takes a sample of round `round`, and forgets what is older than `window` rounds.
    fn take(&mut self, round: u64, value: u64, window: u64) {
        let new = (round, value);
        let [mut first, mut second, mut third] = self.best;
        let is_old = |(at, _): (u64, u64)| round.saturating_sub(at) > window;
        if value >= first.1 || is_old(third) {
            self.best = [new; 3];
            return;
        }
        if value >= second.1 {
            (second, third) = (new, new);
        } else if value >= third.1 {
            third = new;
        }
        if is_old(first) {
            (first, second, third) = (second, third, new);
            if is_old(first) {
                (first, second) = (second, third);
            }
        } else if first.0 == second.0 && round.saturating_sub(first.0) > window / 4 {
            // A quarter of the window without a second best: take what there is.
            (second, third) = (new, new);
        } else if second.0 == third.0 && round.saturating_sub(second.0) > window / 2 {
            third = new;
        }
        self.best = [first, second, third];
    }
}

/// `BBR.extra_acked`: how much more than expected is acknowledged at once, which is what the path, the peer or
/// its driver gather before they pass it on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ExtraAcked {
    interval_start: Timestamp,
    delivered: u64,
    filter: WindowedMax,
}

impl ExtraAcked {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            interval_start: now,
            ..Self::default()
        }
    }

    /// Returns it in bytes.
    pub(super) fn get(&self) -> u64 {
        self.filter.get()
    }

    /// `UpdateACKAggregation()`: of `bytes` that were acknowledged, what `bw` does not explain, at most `cwnd`.
    pub(super) fn on_acked(
        &mut self,
        now: Timestamp,
        bytes: u64,
        bw: Bandwidth,
        cwnd: u64,
        round: u64,
        is_starting_up: bool,
    ) {
        let mut expected = bw.bytes_in(now.saturating_since(self.interval_start));
        if self.delivered <= expected {
            self.restart(now);
            self.delivered = 0;
            expected = 0;
        }
        self.delivered = self.delivered.saturating_add(bytes);
        let extra = self.delivered.saturating_sub(expected).min(cwnd);
        let window = if is_starting_up {
            1
        } else {
            EXTRA_ACKED_ROUNDS
        };
        self.filter.take(round, extra, window);
    }

    /// Begins the interval anew, after idleness.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.interval_start = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bandwidth_is_remembered_for_two_cycles() {
        let mut filter = MaxBandwidth::default();
        filter.take(Bandwidth::new(100));
        filter.take(Bandwidth::new(80));
        assert_eq!(filter.get(), Bandwidth::new(100));
        filter.advance();
        filter.take(Bandwidth::new(50));
        assert_eq!(filter.get(), Bandwidth::new(100));
        filter.advance();
        assert_eq!(filter.get(), Bandwidth::new(50));
        // Without a sample nothing is forgotten.
        filter.advance();
        filter.advance();
        assert_eq!(filter.get(), Bandwidth::new(50));
    }

    #[test]
    fn the_windowed_maximum_is_never_below_that_of_its_window_and_forgets() {
        // Against the definition, for every window up to 12 rounds, over a sequence without a pattern.
        let values: Vec<u64> = (0..300_u64).map(|n| n * n * 7_919 % 1_009).collect();
        for window in 1..=12_u64 {
            let mut filter = WindowedMax::default();
            for (round, &value) in (0_u64..).zip(&values) {
                filter.take(round, value, window);
                let from = usize::try_from(round.saturating_sub(window)).unwrap();
                let to = usize::try_from(round).unwrap();
                let most = *values[from..=to].iter().max().unwrap();
                assert!(filter.get() <= most, "round {round}, window {window}");
                assert!(filter.get() >= value, "round {round}, window {window}");
            }
        }
    }

    #[test]
    fn what_comes_at_once_is_extra_until_ten_rounds_have_passed() {
        let at = Timestamp::from_millis;
        let mut extra = ExtraAcked::new(at(0));
        // 1 MB/s: 1,000 bytes per ms. 30,000 come at once after 20 ms.
        let bw = Bandwidth::new(1_000_000);
        extra.on_acked(at(20), 30_000, bw, 100_000, 1, false);
        assert_eq!(extra.get(), 30_000);
        // 10 ms later 10,000 were expected: 30,000 + 15,000 - 10,000.
        extra.on_acked(at(30), 15_000, bw, 100_000, 1, false);
        assert_eq!(extra.get(), 35_000);
        // Never more than the window.
        extra.on_acked(at(31), 500_000, bw, 100_000, 2, false);
        assert_eq!(extra.get(), 100_000);
        for round in 3..=13 {
            extra.on_acked(at(1_000 * round), 1_000, bw, 100_000, round, false);
        }
        assert_eq!(extra.get(), 1_000);
        // In Startup one round is remembered.
        extra.on_acked(at(20_000), 50_000, bw, 100_000, 14, true);
        extra.on_acked(at(21_000), 1_000, bw, 100_000, 16, true);
        assert_eq!(extra.get(), 1_000);
    }
}
