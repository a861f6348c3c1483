//! Delivery-rate estimation: how fast the network delivers, one sample per ACK
//! (draft-ietf-ccwg-bbr §4.1).
//!
//! Each transmission takes a snapshot of the connection's counters; the ACK of the most recently sent
//! data compares them with the present. The rate is what was delivered in between, over the longer of
//! the time that sending it and that acknowledging it took, so that compressed ACKs cannot inflate it.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::Timestamp;
use crate::congestion::RateSample;
use crate::connection::Offset;
use crate::timestamp::Nanos;

/// The connection's counters at the moment of a transmission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendSnapshot {
    /// The number of the transmission; each that the connection makes has a higher one than those before.
    pub transmission: u64,
    /// When the data was sent.
    pub sent_at: Timestamp,
    /// When the data was sent whose acknowledgment was the newest at that time.
    pub first_sent_at: Timestamp,
    /// When that acknowledgment arrived.
    pub delivered_at: Timestamp,
    /// Total bytes delivered.
    pub delivered: u64,
    /// Total bytes declared lost.
    pub lost: u64,
    /// Bytes in flight, this transmission included.
    pub tx_in_flight: u64,
    /// Whether the application limited the rate.
    pub is_app_limited: bool,
}

/// The connection's counters.
#[derive(Debug, Clone, Default)]
pub struct RateEstimator {
    transmissions: u64,
    delivered: u64,
    delivered_at: Timestamp,
    first_sent_at: Timestamp,
    lost: u64,
    /// The end of what was declared lost last.
    lost_end: Option<Offset>,
    /// While `Some`, sending is limited by the application; until this much was delivered.
    app_limited_below: Option<NonZeroU64>,
    latest: Option<Latest>,
}

/// What is kept of the newest sample, for statistics.
#[derive(Debug, Clone, Copy)]
struct Latest {
    delivered: u64,
    interval: Nanos,
    is_app_limited: bool,
}

impl RateEstimator {
    /// Takes the snapshot for a transmission. `in_flight` is what is in flight with it, `was_idle` says
    /// that nothing was before it.
    pub fn on_sent(&mut self, now: Timestamp, in_flight: u64, was_idle: bool) -> SendSnapshot {
        if was_idle {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.transmissions += 1;
        SendSnapshot {
            transmission: self.transmissions,
            sent_at: now,
            first_sent_at: self.first_sent_at,
            delivered_at: self.delivered_at,
            delivered: self.delivered,
            lost: self.lost,
            tx_in_flight: in_flight,
            is_app_limited: self.is_app_limited(),
        }
    }

    /// Ends an ACK that delivered `bytes`, of which those under `newest` were sent last, and returns its sample if
    /// it gave a valid one.
    pub fn finish(
        &mut self,
        now: Timestamp,
        bytes: u64,
        newest: Option<&SendSnapshot>,
        min_rtt: Option<Duration>,
    ) -> Option<RateSample> {
        if bytes == 0 {
            return None;
        }
        self.delivered = self.delivered.saturating_add(bytes);
        self.delivered_at = now;
        if self
            .app_limited_below
            .is_some_and(|below| self.delivered >= below.get())
        {
            self.app_limited_below = None;
        }
        let newest = newest?;
        self.first_sent_at = newest.sent_at;
        let send_elapsed = newest.sent_at.saturating_since(newest.first_sent_at);
        let ack_elapsed = now.saturating_since(newest.delivered_at);
        let interval = send_elapsed.max(ack_elapsed);
        // A rate over less than a round trip would be that of a burst, or of a retransmission whose
        // original was acknowledged.
        if interval.is_zero() || min_rtt.is_some_and(|min_rtt| interval < min_rtt) {
            return None;
        }
        let sample = RateSample {
            delivered: self.delivered.saturating_sub(newest.delivered),
            interval,
            prior_delivered: newest.delivered,
            tx_in_flight: newest.tx_in_flight,
            prior_lost: newest.lost,
            is_app_limited: newest.is_app_limited,
        };
        self.latest = Some(Latest {
            delivered: sample.delivered,
            interval: interval.into(),
            is_app_limited: sample.is_app_limited,
        });
        Some(sample)
    }

    /// Counts bytes declared lost.
    pub fn on_lost(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_add(bytes);
    }

    /// Data from `start` to `end` is declared lost; says whether it does not continue what was before.
    pub fn starts_range(&mut self, start: Offset, end: Offset) -> bool {
        self.lost_end.replace(end) != Some(start)
    }

    /// The application had nothing to send though the window had room; `in_flight` is what still is.
    pub fn on_app_limited(&mut self, in_flight: u64) {
        // Until more than that is delivered.
        let limit = self.delivered.saturating_add(in_flight);
        self.app_limited_below = Some(NonZeroU64::MIN.saturating_add(limit));
    }

    /// Says whether the application limits the rate of what is sent now.
    pub const fn is_app_limited(&self) -> bool {
        self.app_limited_below.is_some()
    }

    /// Returns the total of bytes delivered.
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns the total of bytes declared lost.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns the newest sample's rate in bytes per second, and whether the application limited it.
    pub fn latest(&self) -> Option<(u64, bool)> {
        let latest = self.latest?;
        let sample = RateSample::new(latest.delivered, latest.interval.get());
        Some((sample.bytes_per_second(), latest.is_app_limited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_window_per_round_trip_is_the_rate() {
        let mut rate = RateEstimator::default();
        let first = rate.on_sent(at(0), 10_000, true);
        // 10,000 bytes in 100 ms.
        let sample = rate.finish(at(100), 10_000, Some(&first), None).unwrap();
        assert_eq!((sample.delivered, sample.interval), (10_000, ms(100)));
        assert_eq!(sample.bytes_per_second(), 100_000);
        let second = rate.on_sent(at(100), 20_000, false);
        let sample = rate
            .finish(at(200), 20_000, Some(&second), Some(ms(100)))
            .unwrap();
        assert_eq!(
            (sample.prior_delivered, sample.bytes_per_second()),
            (10_000, 200_000)
        );
        assert_eq!(sample.tx_in_flight, 20_000);
    }

    #[test]
    fn compressed_acks_are_measured_by_the_send_interval() {
        let mut rate = RateEstimator::default();
        let snapshots: Vec<_> = (0..10)
            .map(|n| rate.on_sent(at(n * 10), (n + 1) * 1_000, n == 0))
            .collect();
        // All ACKs arrive together at 150 ms, as one. The newest was sent at 90: send 90 ms, ACK 150 ms.
        let sample = rate.finish(at(150), 10_000, snapshots.last(), None);
        assert_eq!(sample.unwrap().interval, ms(150));
        // Sent over 100 ms from then on, acknowledged 5 ms after each other: the send interval counts.
        let late = rate.on_sent(at(150), 1_000, false);
        // Sent 60 ms after the newest of before, acknowledged 10 ms after it.
        let sample = rate.finish(at(160), 1_000, Some(&late), None);
        assert_eq!(sample.unwrap().interval, ms(60));
    }

    #[test]
    fn an_interval_below_the_smallest_round_trip_gives_no_sample() {
        let mut rate = RateEstimator::default();
        let snapshot = rate.on_sent(at(0), 1_000, true);
        let sample = rate.finish(at(50), 1_000, Some(&snapshot), Some(ms(100)));
        assert_eq!(sample, None);
        // The bytes count all the same.
        assert_eq!(rate.delivered(), 1_000);
    }

    #[test]
    fn an_application_limit_ends_when_what_was_in_flight_is_delivered() {
        let mut rate = RateEstimator::default();
        rate.on_app_limited(2_000);
        let limited = rate.on_sent(at(0), 1_000, true);
        assert!(limited.is_app_limited);
        let sample = rate.finish(at(100), 1_000, Some(&limited), None);
        assert!(sample.unwrap().is_app_limited);
        assert!(rate.on_sent(at(100), 1_000, false).is_app_limited);
        // 1,000 + 1,001 > 2,000
        rate.finish(at(200), 1_001, Some(&limited), None);
        assert!(!rate.on_sent(at(200), 1_000, false).is_app_limited);
    }
}
