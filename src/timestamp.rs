//! The core's own notion of time: nanoseconds since the endpoint began.
//!
//! The state machines read no clock; the caller passes `now` in. A 64-bit count of nanoseconds is
//! small, copies freely, cannot overflow in arithmetic (every operation saturates) and lasts 584
//! years, so a fuzzer or a simulator may pass any value.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since an origin chosen by the driver, normally the endpoint's start.
///
/// Arithmetic saturates at both ends. Timestamps of different endpoints are not comparable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(
    /// One more than the nanoseconds, so that an `Option` takes no more memory.
    NonZeroU64,
);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// The end of time; used for "never".
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// Makes a timestamp from nanoseconds since the origin; `u64::MAX` is taken for one less.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Makes a timestamp from milliseconds since the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the whole milliseconds since the origin.
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// A duration in nanoseconds, half as large as a [`Duration`], for what every connection keeps. It saturates
/// like a [`Timestamp`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(
    /// One more than the nanoseconds, so that an `Option` takes no more memory.
    NonZeroU64,
);

impl Nanos {
    /// No time.
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    /// Returns it as a `Duration`.
    pub(crate) const fn get(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }
}

impl Default for Nanos {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos(duration)))
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(nanos(rhs)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:09}s",
            self.as_nanos() / 1_000_000_000,
            self.as_nanos() % 1_000_000_000
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Nanoseconds of a duration, saturating: 584 years is "for ever" here.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::MAX);
        assert_eq!(
            Timestamp::ZERO.saturating_since(Timestamp::MAX),
            Duration::ZERO
        );
    }

    #[test]
    fn nanoseconds_are_a_duration() {
        assert_eq!(size_of::<Option<Nanos>>(), 8);
        for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let most = Duration::from_nanos(u64::MAX - 1);
            assert_eq!(Nanos::from(duration).get(), duration.min(most));
        }
    }

    #[test]
    fn units_agree() {
        let t = Timestamp::from_millis(1_500);
        assert_eq!(t.as_nanos(), 1_500_000_000);
        assert_eq!((t + Duration::from_micros(999)).as_millis(), 1_500);
        assert_eq!(
            t.saturating_since(Timestamp::from_millis(500)),
            Duration::from_secs(1)
        );
        assert_eq!(format!("{t}"), "1.500000000s");
    }
}
