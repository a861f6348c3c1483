//! Spaces departures, so that a window does not leave as one burst.
//!
//! A token bucket, kept as one point in time: `theoretical`, when everything sent so far would have
//! left at exactly the rate. Sending is allowed while that lies at most one burst ahead of `now`. The
//! burst is the larger of two segments and what the rate sends in 2 ms: timers tick in milliseconds
//! and wake late, and a fixed burst of many segments would flood a slow link.
//!
//! Whoever has much to send waits until a train is allowed, a quarter of a millisecond's worth: trains of one
//! segment cost a system call each. The rest of the burst is what a timer may be late without loss of rate.

use std::time::Duration;

use super::Recovery;
use crate::Timestamp;

/// The part of the burst that is time: two ticks of a millisecond timer.
const BURST_TIME: Duration = Duration::from_millis(2);
/// The part of the burst that is segments.
const BURST_SEGMENTS: u64 = 2;
/// What is worth waiting for: a train of this length.
const TRAIN_TIME: Duration = Duration::from_micros(250);
/// The longest train that one send takes.
const MAX_TRAIN: u64 = 65_536;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The departure clock of one connection.
#[derive(Debug, Clone, Default)]
pub struct Pacer {
    theoretical: Timestamp,
    /// Bytes that may leave whatever the clock says.
    unspaced: u64,
}

impl Pacer {
    /// Lets the next `bytes` leave at once.
    pub fn allow_burst(&mut self, bytes: u64) {
        self.unspaced = bytes;
    }

    /// Counts `bytes` sent at `rate` bytes per second, `None` if there is none yet.
    pub fn on_sent(&mut self, now: Timestamp, bytes: u64, rate: Option<u64>) {
        let spaced = bytes.saturating_sub(self.unspaced);
        self.unspaced = self.unspaced.saturating_sub(bytes);
        if let Some(rate) = rate
            && spaced > 0
        {
            self.theoretical = self.theoretical.max(now) + time_for(spaced, rate);
        }
    }

    /// Says whether more was sent than the rate alone allows, which is what bursts are for: the network is not idle.
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        self.theoretical > now
    }

    /// Returns when to send next to somebody who has `wanted` bytes to send in segments of `mss`, `None` if
    /// it may be at once.
    pub fn deadline(&self, now: Timestamp, wanted: u64, mss: u64, rate: u64) -> Option<Timestamp> {
        if self.unspaced > 0 {
            return None;
        }
        let train = bytes_in(TRAIN_TIME, rate).min(MAX_TRAIN);
        let least = wanted.min(train).max(mss);
        let at = self.theoretical + time_for(least, rate) - burst_time(mss, rate);
        (at > now).then_some(at)
    }

    /// Returns how many bytes may leave now: 0 if not even one segment, else at least one.
    pub fn budget(&self, now: Timestamp, mss: u64, rate: u64) -> u64 {
        if self.deadline(now, mss, mss, rate).is_some() {
            return 0;
        }
        let ahead = self.theoretical.saturating_since(now);
        let spaced = bytes_in(burst_time(mss, rate).saturating_sub(ahead), rate);
        spaced.max(self.unspaced).max(mss)
    }
}

impl Recovery {
    /// Returns when to send next to somebody who has `wanted` bytes to send, `None` if it may be at once.
    pub fn pacing_deadline(&self, now: Timestamp, wanted: u64) -> Option<Timestamp> {
        if self.must_retransmit() {
            return None;
        }
        self.pacer
            .deadline(now, wanted, self.mss, self.pacing_rate()?)
    }

    /// Returns how many bytes may depart now in one burst; `u64::MAX` while nothing paces.
    pub fn pacing_budget(&self, now: Timestamp) -> u64 {
        let Some(rate) = self.pacing_rate() else {
            return u64::MAX;
        };
        let budget = self.pacer.budget(now, self.mss, rate);
        if self.must_retransmit() {
            budget.max(self.mss)
        } else {
            budget
        }
    }

    /// Returns the departure rate in bytes per second: the controller's, or if it names none what spreads its
    /// window over the round trip. `None` while nothing paces.
    pub fn pacing_rate(&self) -> Option<u64> {
        if let Some(rate) = self.controller.pacing_rate() {
            return Some(if rate == 0 { self.mss } else { rate });
        }
        if !self.paces_windows {
            return None;
        }
        let is_slow_start = self.controller.cwnd() < self.controller.ssthresh();
        // As recovery begins, more than the window is on its way.
        let outstanding = self.cwnd().max(self.pipe());
        window_rate(outstanding, is_slow_start, self.rtt.srtt()?)
    }
}

/// Returns the rate, in bytes per second, at which a window of `cwnd` bytes is sent if its controller
/// names none; `None` if the whole window is no more than one burst.
///
/// A little faster than one window per round trip: the window and not the rate has to be what limits the
/// sender in the long run. In slow start twice as fast, since the window doubles in that time. These are the
/// factors of Linux.
fn window_rate(cwnd: u64, is_slow_start: bool, srtt: Duration) -> Option<u64> {
    let percent: u32 = if is_slow_start { 200 } else { 120 };
    if srtt <= BURST_TIME * percent / 100 {
        return None;
    }
    let bytes = u128::from(cwnd) * u128::from(percent) / 100;
    let rate = bytes * NANOS_PER_SECOND / srtt.as_nanos().max(1);
    Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
}

/// How long `bytes` take at `rate`, rounded up.
fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * NANOS_PER_SECOND).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How many bytes `rate` sends in `time`, rounded down.
fn bytes_in(time: Duration, rate: u64) -> u64 {
    let bytes = time.as_nanos().saturating_mul(u128::from(rate)) / NANOS_PER_SECOND;
    u64::try_from(bytes).unwrap_or(u64::MAX)
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
        pacer.on_sent(at(0), 2 * MSS, Some(rate));
        // 40 ms of sending are booked, the burst covers 40, the next segment takes 20: at 20 ms.
        assert_eq!(pacer.budget(at(0), MSS, rate), 0);
        assert_eq!(pacer.deadline(at(0), 10 * MSS, MSS, rate), Some(at(20)));
        assert_eq!(pacer.budget(at(20), MSS, rate), MSS);
        pacer.on_sent(at(20), MSS, Some(rate));
        assert_eq!(pacer.deadline(at(20), 10 * MSS, MSS, rate), Some(at(40)));
    }

    #[test]
    fn a_fast_link_gets_two_milliseconds_at_once_and_then_trains() {
        // 100 MB/s: 200,000 bytes in 2 ms.
        let rate = 100_000_000;
        let mut pacer = Pacer::default();
        assert_eq!(pacer.budget(at(10), MSS, rate), 200_000);
        pacer.on_sent(at(10), 200_000, Some(rate));
        // 2 ms are booked; one segment of 10 µs may leave after 10 µs, and who has more waits for a train.
        let deadline = |wanted| pacer.deadline(at(10), wanted, MSS, rate);
        assert_eq!(deadline(MSS), Some(at(10) + Duration::from_micros(10)));
        assert_eq!(
            deadline(20 * MSS),
            Some(at(10) + Duration::from_micros(200))
        );
        assert_eq!(
            deadline(1_000 * MSS),
            Some(at(10) + Duration::from_micros(250))
        );
        // After 1 ms half of the burst is there again.
        assert_eq!(pacer.budget(at(11), MSS, rate), 100_000);
    }

    #[test]
    fn idle_time_saves_up_no_more_than_one_burst() {
        let rate = 50_000;
        let mut pacer = Pacer::default();
        pacer.on_sent(at(0), MSS, Some(rate));
        assert_eq!(pacer.budget(at(60_000), MSS, rate), 2 * MSS);
    }

    #[test]
    fn an_allowed_burst_is_not_booked() {
        let rate = 50_000;
        let mut pacer = Pacer::default();
        pacer.allow_burst(10 * MSS);
        assert_eq!(pacer.budget(at(0), MSS, rate), 10 * MSS);
        pacer.on_sent(at(0), 4 * MSS, None);
        assert_eq!(pacer.budget(at(0), MSS, rate), 6 * MSS);
        pacer.on_sent(at(0), 7 * MSS, Some(rate));
        // One of them was beyond the burst.
        assert_eq!(pacer.budget(at(0), MSS, rate), MSS);
        pacer.on_sent(at(0), MSS, Some(rate));
        assert_eq!(pacer.deadline(at(0), MSS, MSS, rate), Some(at(20)));
    }

    /// What leaves in 4 s with a timer that ticks in milliseconds and is late by another one in `late_in`.
    fn sent_in_four_seconds(rate: u64, late_in: u64) -> u64 {
        let mut pacer = Pacer::default();
        let (mut total, mut millis) = (0, 0);
        while millis <= 4_000 {
            let deadline = loop {
                if let Some(at) = pacer.deadline(at(millis), u64::MAX, MSS, rate) {
                    break at;
                }
                let budget = (pacer.budget(at(millis), MSS, rate) / MSS * MSS).min(65_000);
                pacer.on_sent(at(millis), budget, Some(rate));
                total += budget;
            };
            let wait = deadline.saturating_since(at(millis)).as_nanos();
            millis += u64::try_from(wait.div_ceil(1_000_000)).unwrap();
            millis += u64::from(millis.is_multiple_of(late_in));
        }
        total
    }

    #[test]
    fn the_long_run_rate_is_the_rate_asked_for() {
        // 400 kbit/s to 5 Gbit/s, from timers in milliseconds: to a thousandth and one burst. Every seventh
        // timer late by another one costs a fiftieth at most.
        for rate in [
            50_000,
            125_000,
            1_000_000,
            12_500_000,
            125_000_000,
            625_000_000,
        ] {
            let burst = (2 * MSS).max(rate / 500);
            for (late_in, tolerance) in [(u64::MAX, 1_000), (7, 50)] {
                let total = sent_in_four_seconds(rate, late_in);
                let least = 4 * rate - 4 * rate / tolerance;
                assert!(
                    (least..=4 * rate + burst).contains(&total),
                    "{rate}: {total}, {late_in}"
                );
            }
        }
    }

    #[test]
    fn a_window_is_spread_over_its_round_trip() {
        let rate = |cwnd, is_slow_start, millis| {
            window_rate(cwnd, is_slow_start, Duration::from_millis(millis))
        };
        assert_eq!(rate(100_000, false, 100), Some(1_200_000));
        assert_eq!(rate(100_000, true, 100), Some(2_000_000));
        // No more than one burst: 2 ms at this rate.
        assert_eq!(rate(100_000, true, 4), None);
        assert_eq!(rate(100_000, false, 2), None);
        assert_eq!(rate(1_000, false, 3), Some(400_000));
        assert_eq!(rate(u64::MAX, true, 5), Some(u64::MAX));
        assert_eq!(window_rate(1, false, Duration::MAX), Some(1));
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let mut pacer = Pacer::default();
        for rate in [0, 1, u64::MAX] {
            pacer.on_sent(at(0), u64::MAX, Some(rate));
            let _ = pacer.deadline(Timestamp::MAX, u64::MAX, u64::MAX, rate);
            let _ = pacer.budget(Timestamp::MAX, u64::MAX, rate);
        }
    }
}
