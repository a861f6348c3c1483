//! Spaces departures at the controller's pacing rate.
//!
//! A token bucket, kept as one point in time: `theoretical`, when everything sent so far would have
//! left at exactly the rate. Sending is allowed while that lies at most one burst ahead of `now`. The
//! burst is the larger of two segments and what the rate sends in 2 ms: timers tick in milliseconds
//! and wake late, and a fixed burst of many segments would flood a slow link.

use std::time::Duration;

use crate::Timestamp;

/// The part of the burst that is time: two ticks of a millisecond timer.
const BURST_TIME: Duration = Duration::from_millis(2);
/// The part of the burst that is segments.
const BURST_SEGMENTS: u64 = 2;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The departure clock of one connection.
#[derive(Debug, Clone, Default)]
pub struct Pacer {
    theoretical: Timestamp,
}

impl Pacer {
    /// Counts `bytes` sent at `rate` bytes per second.
    pub fn on_sent(&mut self, now: Timestamp, bytes: u64, rate: u64) {
        self.theoretical = self.theoretical.max(now) + time_for(bytes, rate);
    }

    /// Returns when the next segment of `mss` bytes may leave, `None` if it may at once.
    pub fn deadline(&self, now: Timestamp, mss: u64, rate: u64) -> Option<Timestamp> {
        let at = self.theoretical + time_for(mss, rate) - burst_time(mss, rate);
        (at > now).then_some(at)
    }

    /// Returns how many bytes may leave now: 0 before the deadline, at least one segment after it.
    pub fn budget(&self, now: Timestamp, mss: u64, rate: u64) -> u64 {
        if self.deadline(now, mss, rate).is_some() {
            return 0;
        }
        let burst = burst_time(mss, rate);
        let ahead = self.theoretical.saturating_since(now);
        let bytes = burst.saturating_sub(ahead).as_nanos() * u128::from(rate) / NANOS_PER_SECOND;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(mss)
    }
}

/// How long `bytes` take at `rate`, rounded up.
fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS_PER_SECOND).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn burst_time(mss: u64, rate: u64) -> Duration {
    time_for(mss.saturating_mul(BURST_SEGMENTS), rate).max(BURST_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_slow_link_gets_two_segments_and_then_one_at_a_time() {
        // 400 kbit/s = 50,000 bytes/s: one segment in 20 ms.
        let rate = 50_000;
        let mut pacer = Pacer::default();
        assert_eq!(pacer.budget(at(0), MSS, rate), 2 * MSS);
        pacer.on_sent(at(0), 2 * MSS, rate);
        // 40 ms of sending are booked, the burst covers 40, the next segment takes 20: at 20 ms.
        assert_eq!(pacer.budget(at(0), MSS, rate), 0);
        assert_eq!(pacer.deadline(at(0), MSS, rate), Some(at(20)));
        assert_eq!(pacer.budget(at(20), MSS, rate), MSS);
        pacer.on_sent(at(20), MSS, rate);
        assert_eq!(pacer.deadline(at(20), MSS, rate), Some(at(40)));
    }

    #[test]
    fn a_fast_link_gets_two_milliseconds_at_once() {
        // 100 MB/s: 200,000 bytes in 2 ms.
        let rate = 100_000_000;
        let mut pacer = Pacer::default();
        assert_eq!(pacer.budget(at(10), MSS, rate), 200_000);
        pacer.on_sent(at(10), 200_000, rate);
        // 2 ms are booked; one segment of 10 µs may leave after 10 µs.
        assert_eq!(
            pacer.deadline(at(10), MSS, rate),
            Some(at(10) + Duration::from_micros(10))
        );
        // After 1 ms half of the burst is there again.
        assert_eq!(pacer.budget(at(11), MSS, rate), 100_000);
    }

    #[test]
    fn idle_time_saves_up_no_more_than_one_burst() {
        let rate = 50_000;
        let mut pacer = Pacer::default();
        pacer.on_sent(at(0), MSS, rate);
        assert_eq!(pacer.budget(at(60_000), MSS, rate), 2 * MSS);
    }

    #[test]
    fn the_long_run_rate_is_the_rate_asked_for() {
        // 1 MB/s for 1 s in steps of 1 ms, always taking the whole budget: 1,000,000 and one burst of 2,000.
        let rate = 1_000_000;
        let mut pacer = Pacer::default();
        let mut total = 0;
        for millis in 0..=1_000 {
            let budget = pacer.budget(at(millis), MSS, rate) / MSS * MSS;
            pacer.on_sent(at(millis), budget, rate);
            total += budget;
        }
        assert_eq!(total, 1_002_000);
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let mut pacer = Pacer::default();
        for rate in [0, 1, u64::MAX] {
            pacer.on_sent(at(0), u64::MAX, rate);
            let _ = pacer.deadline(Timestamp::MAX, u64::MAX, rate);
            let _ = pacer.budget(Timestamp::MAX, u64::MAX, rate);
        }
    }
}
