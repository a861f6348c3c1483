//! The one reading of the clock. It is tokio's, so that paused time drives whole endpoints.

use std::time::Duration;

use tokio::time::Instant;

use crate::Timestamp;

/// How far "never" is from the origin; tokio's timer wheel takes no more than this either.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Converts between tokio's instants and the core's [`Timestamp`]s, which count from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts a clock: its origin is now.
    pub(crate) fn start() -> Self {
        Self { origin: read() }
    }

    /// Returns the time since the origin.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::ZERO + read().saturating_duration_since(self.origin)
    }

    /// Returns the instant of a timestamp, at most 30 years after the origin.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.origin + at.saturating_since(Timestamp::ZERO).min(FAR_FUTURE)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn read() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn timestamps_follow_paused_time_and_convert_back() {
        let clock = Clock::start();
        assert_eq!(clock.now(), Timestamp::ZERO);
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_500));
        let later = clock.instant(Timestamp::from_millis(2_000));
        tokio::time::sleep_until(later).await;
        assert_eq!(clock.now(), Timestamp::from_millis(2_000));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_time_is_representable() {
        let clock = Clock::start();
        assert_eq!(clock.instant(Timestamp::MAX), clock.origin + FAR_FUTURE);
    }
}
