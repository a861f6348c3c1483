//! Whether the pipe is full: sending faster does not deliver more (draft §5.3.1.2).

use super::arithmetic::Bandwidth;

/// Growth that still counts as growth, in percent of the last baseline.
const GROWTH: u64 = 125;
/// Rounds without it that make the pipe full.
const ROUNDS: u32 = 3;

/// The full pipe estimator.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FullPipe {
    /// `BBR.full_bw`
    baseline: Bandwidth,
    /// `BBR.full_bw_count`
    count: u32,
    /// `BBR.full_bw_now`
    pub(super) is_full: bool,
}

impl FullPipe {
    /// `ResetFullBW()`, with a first baseline.
    pub(super) fn restart(baseline: Bandwidth) -> Self {
        Self {
            baseline,
            ..Self::default()
        }
    }

    /// `CheckFullBWReached()` at the end of a round that the application did not limit.
    pub(super) fn on_round(&mut self, rate: Bandwidth) {
        if self.is_full {
            return;
        }
        if rate >= self.baseline.percent(GROWTH) {
            *self = Self::restart(rate);
            return;
        }
        self.count += 1;
        self.is_full = self.count >= ROUNDS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rounds_with_less_than_a_quarter_more_fill_the_pipe() {
        let mut pipe = FullPipe::default();
        // 125 is a quarter more than 100, 155 is not of 125.
        let rounds = [100, 125, 155, 130, 120].map(|rate| {
            pipe.on_round(Bandwidth::new(rate));
            (pipe.count, pipe.is_full)
        });
        let expected = [(0, false), (0, false), (1, false), (2, false), (3, true)];
        assert_eq!(rounds, expected);
    }

    #[test]
    fn growth_begins_the_count_anew() {
        let mut pipe = FullPipe::restart(Bandwidth::new(100));
        for rate in [110, 120, 125, 130, 140] {
            pipe.on_round(Bandwidth::new(rate));
        }
        assert_eq!((pipe.count, pipe.is_full), (2, false));
    }
}
