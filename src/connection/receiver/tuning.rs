//! How large the receive window should be: what the application takes in one round trip, and more.
//!
//! No RFC says how a receiver finds its window; this is Dynamic Right-Sizing, as Linux has it since 2.6. What
//! the application consumes in a round trip is what the sender sent in one. Twice that never holds it
//! back while it repairs a loss, and as much again for each doubling leaves room for its slow start. An
//! application that does not read, or reads little at a time, consumes little, and its window stays. One that
//! reads a whole window at once, however late, gets a larger one: it may be the window that it waits for.
//!
//! The round trip is measured by the timestamps that the peer echoes with its data (RFC 7323 §4), or comes
//! from our own sending direction. It is the least of each round's samples: a peer that had nothing to
//! send echoes late.

use std::time::Duration;

use crate::Timestamp;
use crate::timestamp::Nanos;

/// The least time measured over: a reader's wake-up, and a driver's batch, may take as long, whatever the
/// network does.
const MIN_ROUND: Duration = Duration::from_millis(10);
/// Below this round-trip time little is under way in the network; the rest stands in our own socket, where a core
/// has forgotten it before it is read, and where it is dropped in the end.
const NEAR: Duration = Duration::from_millis(2);
/// The most that is asked for then, in bytes: 12.6 Gbit/s at the longest such round trip. On loopback, a
/// quarter of the time per byte goes away.
const NEAR_WINDOW: u64 = 3 * 1024 * 1024;
/// What the peer is thought to have sent in the round trip before the first one: ten segments of Ethernet
/// size (RFC 6928).
const FIRST_ROUND: u64 = 14_600;
/// Segments of room beside what the round needs: the sender's bursts.
const SPARE_SEGMENTS: u64 = 16;

/// What the application consumes per round trip.
///
/// Invariant: `most` never shrinks, so that what is asked for grows with it alone.
#[derive(Debug)]
pub(super) struct Tuning {
    /// The round-trip time, `None` before the first sample.
    rtt: Option<Nanos>,
    /// The smallest sample since the round began.
    sample: Option<Nanos>,
    /// When the round began, `None` before anything was consumed.
    began: Option<Timestamp>,
    /// Bytes consumed since then.
    consumed: u64,
    /// Most bytes consumed in one round, as far as the window has followed.
    most: u64,
}

impl Tuning {
    pub(super) const fn new() -> Self {
        Self {
            rtt: None,
            sample: None,
            began: None,
            consumed: 0,
            most: FIRST_ROUND,
        }
    }

    /// Takes a measurement of the round-trip time.
    pub(super) fn on_rtt_sample(&mut self, sample: Duration) {
        let sample = Nanos::from(sample);
        if self.rtt.is_none() {
            self.rtt = Some(sample);
        }
        self.sample = Some(self.sample.map_or(sample, |least| least.min(sample)));
    }

    /// The application consumed `bytes`, of a window of `capacity` bytes. Returns how large that should be,
    /// if this ended a round that consumed more than any before.
    pub(super) fn on_consumed(
        &mut self,
        now: Timestamp,
        bytes: u64,
        capacity: u64,
        segment_size: u64,
    ) -> Option<u64> {
        self.consumed = self.consumed.saturating_add(bytes);
        let began = *self.began.get_or_insert(now);
        let elapsed = now.saturating_since(began);
        let is_over = self
            .rtt
            .is_some_and(|rtt| elapsed >= rtt.get().max(MIN_ROUND));
        // One window may have been under way when the round began. The second was sent after the first was
        // acknowledged: that took a round trip, whatever its estimate says.
        let has_passed_twice = self.consumed / 2 >= capacity && elapsed >= MIN_ROUND;
        if !is_over && !has_passed_twice {
            return None;
        }
        let consumed = std::mem::take(&mut self.consumed);
        self.began = Some(now);
        self.rtt = self.sample.take().or(self.rtt);
        if consumed <= self.most {
            return None;
        }
        let is_near = self.rtt.is_some_and(|rtt| rtt.get() < NEAR);
        // What the window for it does not follow must not count when the path grows longer.
        let counted = if is_near {
            consumed.min((NEAR_WINDOW / 2).max(self.most))
        } else {
            consumed
        };
        let before = std::mem::replace(&mut self.most, counted);
        let room = consumed
            .saturating_mul(2)
            .saturating_add(segment_size.saturating_mul(SPARE_SEGMENTS));
        // A sender in slow start doubles, and has done so once more before the next round ends.
        let growth = u128::from(room) * u128::from((consumed - before).min(before))
            / u128::from(before.max(1));
        let growth = u64::try_from(growth).unwrap_or(u64::MAX);
        let wanted = room.saturating_add(growth.saturating_mul(2));
        Some(if is_near {
            wanted.min(NEAR_WINDOW)
        } else {
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);
    const CAPACITY: u64 = 256 * 1024;

    fn tuning() -> Tuning {
        let mut tuning = Tuning::new();
        tuning.on_rtt_sample(RTT);
        tuning
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_doubling_reader_gets_room_for_the_next_two_doublings() {
        let mut tuning = tuning();
        // 14,600 were thought to come first; segments of 1,000.
        assert_eq!(tuning.on_consumed(at(0), 29_200, CAPACITY, 1_000), None);
        // (2 * 29,200 + 16,000) * (1 + 2 * 14,600 / 14,600) = 74,400 * 3
        assert_eq!(
            tuning.on_consumed(at(100), 0, CAPACITY, 1_000),
            Some(223_200)
        );
        assert_eq!(tuning.on_consumed(at(199), 58_400, CAPACITY, 1_000), None);
        // (2 * 58,400 + 16,000) * 3, more than the 4 * 58,400 that the peer may have under way next.
        assert_eq!(
            tuning.on_consumed(at(200), 0, CAPACITY, 1_000),
            Some(398_400)
        );
        // Half as much again: (2 * 87,600 + 16,000) * (1 + 2 / 2).
        assert_eq!(
            tuning.on_consumed(at(300), 87_600, CAPACITY, 1_000),
            Some(382_400)
        );
    }

    #[test]
    fn a_near_sender_fills_no_more_than_a_cache() {
        let far = Duration::from_millis(2);
        for (rtt, most) in [
            (Duration::from_micros(1_999), NEAR_WINDOW),
            (far, 46_732_800),
        ] {
            let mut tuning = Tuning::new();
            tuning.on_rtt_sample(rtt);
            assert_eq!(tuning.on_consumed(at(0), 0, CAPACITY, 1_000), None);
            let wanted = tuning.on_consumed(at(10), 20_000_000, CAPACITY, 1_000);
            assert_eq!(wanted.map(|wanted| wanted.min(46_732_800)), Some(most));
        }
    }

    #[test]
    fn a_sender_that_is_near_no_more_gets_the_window_of_its_new_path() {
        let mut tuning = Tuning::new();
        tuning.on_rtt_sample(Duration::from_millis(1));
        for round in 1..=10 {
            let wanted = tuning.on_consumed(at(10 * round), 12_000_000, NEAR_WINDOW, 1_000);
            assert!(wanted.is_none_or(|wanted| wanted == NEAR_WINDOW));
        }
        // All that the window lets through there.
        tuning.on_rtt_sample(Duration::from_millis(50));
        let wanted = tuning.on_consumed(at(150), NEAR_WINDOW, NEAR_WINDOW, 1_000);
        assert!(wanted >= Some(2 * NEAR_WINDOW), "{wanted:?}");
    }

    #[test]
    fn a_steady_reader_asks_once() {
        let mut tuning = tuning();
        let mut asked = 0;
        for n in 0..100 {
            let wanted = tuning.on_consumed(at(n * 10), 10_000, CAPACITY, 1_000);
            asked += u32::from(wanted.is_some());
            // 110,000 in the first round, 100,000 in each other; growth counts for no more than doubling.
            assert!(
                wanted.is_none_or(|wanted| wanted == 236_000 * 3),
                "{wanted:?}"
            );
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn the_least_sample_of_a_round_is_the_next_ones_length() {
        let mut tuning = tuning();
        tuning.on_consumed(at(0), 1, CAPACITY, 1_000);
        // The peer paused for a second before it sent the first of these.
        tuning.on_rtt_sample(Duration::from_secs(1));
        tuning.on_rtt_sample(Duration::from_millis(150));
        tuning.on_consumed(at(100), 1, CAPACITY, 1_000);
        assert_eq!(
            tuning.rtt,
            Some(Duration::from_millis(100).into()),
            "the handshake's is less"
        );
        tuning.on_rtt_sample(Duration::from_millis(160));
        tuning.on_consumed(at(200), 1, CAPACITY, 1_000);
        assert_eq!(tuning.rtt, Some(Duration::from_millis(160).into()));
        // No sample: the last one stays.
        tuning.on_consumed(at(360), 1, CAPACITY, 1_000);
        assert_eq!(tuning.rtt, Some(Duration::from_millis(160).into()));
    }

    #[test]
    fn without_a_sample_two_windows_are_a_round_trip() {
        let mut tuning = Tuning::new();
        assert_eq!(tuning.on_consumed(at(0), CAPACITY, CAPACITY, 0), None);
        assert_eq!(tuning.on_consumed(at(5_000), 1, CAPACITY, 0), None);
        let wanted = tuning.on_consumed(at(5_050), CAPACITY, CAPACITY, 0);
        // 2 * (2 * 262,144 + 1), and three times that.
        assert_eq!(wanted, Some(3_145_734));
    }

    #[test]
    fn a_window_read_at_once_after_a_pause_makes_it_larger() {
        let mut tuning = tuning();
        tuning.on_consumed(at(0), 1, CAPACITY, 1_000);
        let wanted = tuning.on_consumed(at(10_000), CAPACITY, CAPACITY, 1_000);
        assert!(wanted > Some(CAPACITY), "{wanted:?}");
        // A trickle does not.
        for n in 1..100 {
            let wanted = tuning.on_consumed(at(10_000 + n * 1_000), 20_000, CAPACITY, 1_000);
            assert_eq!(wanted, None);
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut tuning = tuning();
        tuning.on_consumed(at(0), u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(
            tuning.on_consumed(at(100), u64::MAX, u64::MAX, u64::MAX),
            Some(u64::MAX)
        );
    }
}
