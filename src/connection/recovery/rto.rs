//! The retransmission timeout, its back-off and its timer (RFC 6298 §2 and §5).
//!
//! The timer is a deadline that the caller compares with `now`; nothing here runs by itself.

use std::time::Duration;

use super::rtt::{GRANULARITY, RttEstimator};
use crate::Timestamp;
use crate::timestamp::Nanos;

/// RFC 6298 §5.7: where a SYN timed out and nothing is known about the RTT, data starts with 3 s.
const RTO_AFTER_SYN_TIMEOUT: Duration = Duration::from_secs(3);

/// The retransmission timer of one connection.
///
/// Invariants:
/// - `floor <= ceiling`, and the RTO, back-off included, is never above `ceiling`;
/// - `consecutive` counts expiries since `snd_una` last moved, `backoff` those since the last sample.
#[derive(Debug, Clone)]
pub struct RtoTimer {
    /// The RTO without back-off.
    base: Nanos,
    floor: Nanos,
    ceiling: Nanos,
    /// How often the RTO is doubled.
    backoff: u32,
    consecutive: u32,
    deadline: Option<Timestamp>,
}

impl RtoTimer {
    /// Makes a stopped timer with the RTO that holds before the first sample.
    pub fn new(initial: Duration, floor: Duration, ceiling: Duration) -> Self {
        Self {
            // RFC 6298 §2.1
            base: initial.min(ceiling).into(),
            floor: floor.min(ceiling).into(),
            ceiling: ceiling.into(),
            backoff: 0,
            consecutive: 0,
            deadline: None,
        }
    }

    /// The handshake is over. `syn_timed_out` says that a SYN or SYN-ACK had to be sent again;
    /// `peer_ack_delay` is the longest delay of an ACK that the peer announced.
    pub fn on_established(
        &mut self,
        rtt: &RttEstimator,
        syn_timed_out: bool,
        peer_ack_delay: Option<Duration>,
    ) {
        // RFC 6298 §2.4: the floor exists because of delayed ACKs, so it never lies below the delay that
        // the peer announced, however small a floor is configured.
        if let Some(delay) = peer_ack_delay {
            self.floor = self
                .floor
                .max(delay.saturating_add(GRANULARITY).into())
                .min(self.ceiling);
        }
        self.backoff = 0;
        self.consecutive = 0;
        if rtt.srtt().is_some() {
            self.on_sample(rtt);
        } else if syn_timed_out {
            // RFC 6298 §5.7
            self.base = self
                .base
                .max(RTO_AFTER_SYN_TIMEOUT.into())
                .min(self.ceiling);
        }
    }

    /// The estimator took a sample: the RTO follows it, and the back-off ends (RFC 6298 §5, last
    /// paragraph).
    pub fn on_sample(&mut self, rtt: &RttEstimator) {
        let (Some(srtt), Some(rttvar)) = (rtt.srtt(), rtt.rttvar()) else {
            return;
        };
        // RFC 6298 §2.2, §2.3: RTO = SRTT + max(G, K·RTTVAR), K = 4.
        let rto = srtt.saturating_add(GRANULARITY.max(rttvar.saturating_mul(4)));
        // RFC 6298 §2.4, §2.5
        self.base = Nanos::from(rto).clamp(self.floor, self.ceiling);
        self.backoff = 0;
    }

    /// Ends the back-off and says whether there was one.
    pub fn end_backoff(&mut self) -> bool {
        std::mem::take(&mut self.backoff) > 0
    }

    /// `snd_una` moved: expiries are counted anew.
    pub fn on_progress(&mut self) {
        self.consecutive = 0;
    }

    /// The timer expired: doubles the RTO (RFC 6298 §5.5). The caller sends again and restarts it.
    pub fn on_expired(&mut self) {
        self.consecutive = self.consecutive.saturating_add(1);
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Starts the timer unless it runs (RFC 6298 §5.1).
    pub fn start(&mut self, now: Timestamp) {
        if self.deadline.is_none() {
            self.restart(now);
        }
    }

    /// Starts the timer anew with the current RTO (RFC 6298 §5.3, §5.6).
    pub fn restart(&mut self, now: Timestamp) {
        self.deadline = Some(now + self.current());
    }

    /// Stops the timer (RFC 6298 §5.2).
    pub fn stop(&mut self) {
        self.deadline = None;
    }

    /// Returns when the timer expires, `None` while it is stopped.
    pub const fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Returns the RTO with back-off.
    pub fn current(&self) -> Duration {
        // RFC 6298 §2.5, §5.5: 2^31 times any RTO is above every ceiling.
        let factor = 1_u32 << self.backoff.min(31);
        self.base
            .get()
            .saturating_mul(factor)
            .min(self.ceiling.get())
    }

    /// Returns the RTO without back-off.
    pub const fn base(&self) -> Duration {
        self.base.get()
    }

    /// Returns how often the timer expired since `snd_una` last moved.
    pub const fn consecutive(&self) -> u32 {
        self.consecutive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn timer(floor: u64) -> RtoTimer {
        RtoTimer::new(ms(1_000), ms(floor), ms(60_000))
    }

    fn estimate(samples: &[u64]) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        for &sample in samples {
            rtt.on_sample(Timestamp::ZERO, ms(sample));
        }
        rtt
    }

    #[test]
    fn the_timeout_follows_the_estimate() {
        // Name, samples and floor in ms, expected RTO in µs.
        type Case = (&'static str, &'static [u64], u64, u64);
        let cases: [Case; 6] = [
            // RFC 6298 §2.1
            ("no sample", &[], 200, 1_000_000),
            // 100 + 4 · 50
            ("first sample", &[100], 200, 300_000),
            // SRTT 100, RTTVAR 37.5: 100 + 150
            ("steady", &[100, 100], 200, 250_000),
            // SRTT 110, RTTVAR 57.5: 110 + 230
            ("rising", &[100, 180], 200, 340_000),
            // 10 + 20 is below the floor (RFC 6298 §2.4).
            ("floor", &[10], 200, 200_000),
            // SRTT 100 s, RTTVAR 50 s: above the ceiling of 60 s (RFC 6298 §2.5).
            ("ceiling", &[100_000], 200, 60_000_000),
        ];
        for (name, samples, floor, expected) in cases {
            let mut rto = timer(floor);
            rto.on_sample(&estimate(samples));
            assert_eq!(rto.current(), Duration::from_micros(expected), "{name}");
        }
    }

    #[test]
    fn a_vanished_variation_leaves_the_granularity() {
        let mut rto = timer(1);
        // RTTVAR = 50 ms · (3/4)^40 is 0.5 µs; 4 of it are below G: 100 + 1.
        rto.on_sample(&estimate(&[100; 41]));
        assert_eq!(rto.current(), ms(101));
    }

    #[test]
    fn expiries_double_up_to_the_ceiling_until_a_sample() {
        let mut rto = timer(200);
        rto.on_sample(&estimate(&[100]));
        // 300 ms · 2^n, at most 60 s.
        for expected in [
            600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 60_000, 60_000,
        ] {
            rto.on_expired();
            assert_eq!(rto.current(), ms(expected));
        }
        assert_eq!(rto.consecutive(), 9);
        // Progress without a sample (Karn) keeps the back-off, RFC 6298 §5.
        rto.on_progress();
        assert_eq!((rto.consecutive(), rto.current()), (0, ms(60_000)));
        rto.on_sample(&estimate(&[100]));
        assert_eq!(rto.current(), ms(300));
        for _ in 0..100 {
            rto.on_expired();
        }
        assert_eq!(rto.current(), ms(60_000));
    }

    #[test]
    fn a_lost_syn_without_a_sample_means_three_seconds() {
        // Name, samples in ms, whether a SYN timed out, expected RTO in ms.
        type Case = (&'static str, &'static [u64], bool, u64);
        let cases: [Case; 4] = [
            ("lost, no sample", &[], true, 3_000),
            ("lost, sample by timestamps", &[100], true, 300),
            ("not lost, sample", &[100], false, 300),
            ("not lost, no sample", &[], false, 1_000),
        ];
        for (name, samples, lost, expected) in cases {
            let mut rto = timer(200);
            rto.on_expired();
            rto.on_established(&estimate(samples), lost, None);
            assert_eq!(rto.current(), ms(expected), "{name}");
        }
    }

    #[test]
    fn the_floor_is_not_below_the_announced_ack_delay() {
        let mut rto = timer(1);
        // 1 + 4 · 0.5 = 3 ms, but the peer may hold an ACK for 25 ms.
        rto.on_established(&estimate(&[1]), false, Some(ms(25)));
        assert_eq!(rto.current(), ms(26));
    }

    #[test]
    fn starting_a_running_timer_changes_nothing() {
        let mut rto = timer(200);
        rto.start(Timestamp::ZERO);
        rto.start(Timestamp::from_millis(500));
        assert_eq!(rto.deadline(), Some(Timestamp::from_millis(1_000)));
        rto.restart(Timestamp::from_millis(500));
        assert_eq!(rto.deadline(), Some(Timestamp::from_millis(1_500)));
        rto.stop();
        assert_eq!(rto.deadline(), None);
    }
}
