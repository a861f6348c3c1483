//! Rates, shares and random numbers, in integers that saturate: no order of events and no number in them
//! can make a window or a rate wrap around.

use std::time::Duration;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A rate in bytes per second; [`Bandwidth::INFINITE`] is the draft's "Infinity".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Bandwidth(u64);

impl Bandwidth {
    pub(super) const ZERO: Self = Self(0);
    pub(super) const INFINITE: Self = Self(u64::MAX);

    pub(super) const fn new(bytes_per_second: u64) -> Self {
        Self(bytes_per_second)
    }

    /// `bytes` in `time`, which counts as 1 ns if it is zero.
    pub(super) fn over(bytes: u64, time: Duration) -> Self {
        Self(narrow(
            u128::from(bytes) * NANOS_PER_SECOND / time.as_nanos().max(1),
        ))
    }

    pub(super) const fn bytes_per_second(self) -> u64 {
        self.0
    }

    /// The bytes that it carries in `time`.
    pub(super) fn bytes_in(self, time: Duration) -> u64 {
        let product = u128::from(self.0).saturating_mul(time.as_nanos());
        narrow(product / NANOS_PER_SECOND)
    }

    /// So many percent of it.
    pub(super) fn percent(self, percent: u64) -> Self {
        Self(self::percent(self.0, percent))
    }
}

/// So many percent of `value`, rounded down.
pub(super) fn percent(value: u64, percent: u64) -> u64 {
    narrow(u128::from(value) * u128::from(percent) / 100)
}

pub(super) fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// The `SplitMix64` generator: what is asked of it is only that connections differ from each other.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `bound`, or 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        narrow((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_bytes_are_each_others_inverse() {
        let rate = Bandwidth::over(125_000, Duration::from_millis(10));
        assert_eq!(rate.bytes_per_second(), 12_500_000);
        assert_eq!(rate.bytes_in(Duration::from_millis(100)), 1_250_000);
        assert_eq!(rate.percent(125), Bandwidth::new(15_625_000));
    }

    #[test]
    fn extreme_values_saturate() {
        assert_eq!(
            Bandwidth::over(u64::MAX, Duration::ZERO),
            Bandwidth::INFINITE
        );
        assert_eq!(Bandwidth::INFINITE.percent(277), Bandwidth::INFINITE);
        assert_eq!(Bandwidth::INFINITE.bytes_in(Duration::MAX), u64::MAX);
        assert_eq!(percent(u64::MAX, 100), u64::MAX);
    }

    #[test]
    fn random_numbers_are_below_their_bound_and_follow_from_the_seed() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [(); 50].map(|()| random.below(1_000))
        };
        assert!(draw(1).iter().all(|&number| number < 1_000));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(Random::new(1).below(0), 0);
    }
}
