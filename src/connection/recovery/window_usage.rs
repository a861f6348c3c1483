//! Whether the congestion window is used, and what becomes of one that is not (RFC 7661).
//!
//! `pipeACK` is what the network has lately been seen to carry: the most that was acknowledged in one round
//! trip over the last second or three round trips (§4.2). A window at least half of which is so used is
//! validated and may grow, since slow start doubles from one round trip to the next; so is one that was
//! filled to within a segment, which may grow in either phase (§4.3, §4.4). In the non-validated phase the
//! window neither grows nor shrinks, so that an application that pauses finds it again; but
//!
//! - a loss shows that it was too large: the reduction starts from what was used, not from the window, and
//!   what had to be sent again comes off too (§4.4.1);
//! - every five minutes it is halved, down to the initial window (§4.4.3).
//!
//! Left to the controller: control of the bursts that an unused window allows (§4.4.2); one that paces has
//! it. For the others the restart after idleness of RFC 5681 §4.1, on by default, takes the place of the
//! non-validated phase when nothing at all was sent for an RTO.

use std::time::Duration;

use super::Recovery;
use crate::Timestamp;
use crate::congestion::WindowUnused;
use crate::connection::Offset;

/// RFC 7661 §4.4: how long an unused window is kept.
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);
/// RFC 7661 §4.2: the pipeACK Sampling Period is no shorter.
const MIN_SAMPLING_PERIOD: Duration = Duration::from_secs(1);
/// Halvings that one pause can cause: the largest window has so many bits.
const MAX_HALVINGS: u32 = 64;

/// What was observed.
///
/// Invariant: `sample` begins at or below SND.UNA and ends at or below SND.NXT; it is empty when none is being
/// taken.
#[derive(Debug, Clone, Default)]
pub struct WindowUsage {
    /// The present round's, which ends when `round_end` is acknowledged.
    max_in_flight: u64,
    was_full: bool,
    round_end: Offset,
    pipe_ack: PipeAck,
    /// The numbers whose acknowledgment is the sample being taken.
    sample: (Offset, Offset),
    /// When the non-validated phase began.
    unused_since: Option<Timestamp>,
    /// The loss that ended a non-validated phase, until its recovery is over.
    loss: Option<Loss>,
}

/// The largest of the samples of the last half to whole sampling period.
#[derive(Debug, Clone, Copy, Default)]
struct PipeAck {
    /// `None` is what RFC 7661 §4.1 calls "undefined".
    newer: Option<u64>,
    older: Option<u64>,
    /// When `newer` began.
    began: Timestamp,
}

impl PipeAck {
    fn value(self) -> Option<u64> {
        self.newer.max(self.older)
    }

    /// Forgets what is older than `period`; what is known then becomes 0 and not undefined, since an idle
    /// sender has not used its window.
    fn expire(&mut self, now: Timestamp, period: Duration) {
        let age = now.saturating_since(self.began);
        if age < period / 2 || self.value().is_none() {
            return;
        }
        self.older = if age < period { self.newer } else { None };
        self.newer = Some(0);
        self.began = now;
    }

    fn take(&mut self, now: Timestamp, sample: u64) {
        if self.value().is_none() {
            self.began = now;
        }
        self.newer = self.newer.max(Some(sample));
    }
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    /// The larger of pipeACK and the flight size: what was used.
    used: u64,
    /// Bytes that the connection had sent again before.
    retransmitted_before: u64,
}

impl WindowUsage {
    /// Takes a transmission into account: `in_flight` and `snd_nxt` are those after it.
    pub fn on_sent(
        &mut self,
        snd_una: Offset,
        snd_nxt: Offset,
        in_flight: u64,
        cwnd: u64,
        mss: u64,
    ) {
        let is_full = in_flight.saturating_add(mss) > cwnd;
        let is_more = !self.was_full && in_flight > self.max_in_flight;
        if snd_una >= self.round_end || is_full || is_more {
            self.was_full = is_full;
            self.max_in_flight = in_flight;
            self.round_end = snd_nxt;
        }
        // A sample is all that is outstanding when its first byte is acknowledged.
        let (start, end) = self.sample;
        if snd_una >= end {
            self.sample = (snd_una, snd_nxt);
        } else if snd_una <= start {
            self.sample.1 = snd_nxt;
        }
    }

    /// `snd_una` moved, outside recovery.
    fn on_acked(&mut self, now: Timestamp, snd_una: Offset, snd_nxt: Offset, period: Duration) {
        self.pipe_ack.expire(now, period);
        let (start, end) = self.sample;
        if snd_una >= end {
            if end > start {
                self.pipe_ack.take(now, snd_una.saturating_since(start));
            }
            self.sample = (snd_una, snd_nxt);
        }
    }

    /// Says whether the window may grow.
    pub fn is_limited(&self, cwnd: u64) -> bool {
        self.was_full || self.used() >= cwnd.div_ceil(2)
    }

    /// What was used lately: pipeACK, or while that is undefined what was sent.
    fn used(&self) -> u64 {
        self.pipe_ack.value().unwrap_or(self.max_in_flight)
    }

    /// Notes the phase in which a window of `cwnd` is.
    fn settle(&mut self, now: Timestamp, cwnd: u64) {
        if self.is_limited(cwnd) {
            self.unused_since = None;
        } else {
            self.unused_since.get_or_insert(now);
        }
    }

    /// Transmission resumes; nothing was sent since `last`.
    fn on_idle(&mut self, now: Timestamp, last: Timestamp, period: Duration) {
        self.pipe_ack.expire(now, period);
        if now.saturating_since(last) >= period {
            self.unused_since.get_or_insert(last + period);
        }
    }

    /// Returns how many whole non-validated periods are over, and begins a new one after them.
    fn take_unused_periods(&mut self, now: Timestamp) -> u32 {
        let Some(since) = self.unused_since else {
            return 0;
        };
        let unused = now.saturating_since(since);
        let periods = unused.as_secs() / NON_VALIDATED_PERIOD.as_secs();
        if periods > 0 {
            self.unused_since = Some(now);
        }
        u32::try_from(periods).map_or(MAX_HALVINGS, |periods| periods.min(MAX_HALVINGS))
    }

    /// A recovery begins with `flight_size` outstanding; the connection has sent `retransmitted` bytes again
    /// so far. Returns the flight size that the reduction starts from.
    pub fn on_recovery_entered(&mut self, flight_size: u64, cwnd: u64, retransmitted: u64) -> u64 {
        self.loss = None;
        self.unused_since = None;
        let Some(pipe_ack) = self.pipe_ack.value().filter(|_| !self.is_limited(cwnd)) else {
            return flight_size;
        };
        // RFC 7661 §4.4.1: cwnd = max(pipeACK, LossFlightSize) / 2
        let used = pipe_ack.max(flight_size).min(cwnd);
        self.loss = Some(Loss {
            used,
            retransmitted_before: retransmitted,
        });
        used
    }

    /// The recovery is over. Returns by how much the path was overrun, as far as the window has not answered
    /// for it.
    pub fn on_recovery_exited(&mut self, retransmitted: u64) -> u64 {
        // RFC 7661 §4.4.1: undefined, so that the standard methods hold until there is a new value.
        self.pipe_ack = PipeAck::default();
        self.sample = <(Offset, Offset)>::default();
        // R in (max(pipeACK, LossFlightSize) - R) / 2.
        self.loss.take().map_or(0, |loss| {
            loss.used
                .min(retransmitted.saturating_sub(loss.retransmitted_before))
        })
    }

    /// The reduction was taken back, or a timeout has made a larger one.
    pub fn forget_loss(&mut self) {
        self.loss = None;
    }
}

impl Recovery {
    /// An ACK moved `snd_una`.
    pub(super) fn validate_window(&mut self, now: Timestamp) {
        let period = self.sampling_period();
        let (snd_una, snd_nxt) = (self.snd_una(), self.snd_nxt());
        // RFC 7661 §4.4.1: pipeACK is not updated during recovery.
        if !self.is_in_recovery() {
            self.usage.on_acked(now, snd_una, snd_nxt, period);
            self.usage.settle(now, self.controller.cwnd());
        }
        self.halve_unused_window(now);
    }

    /// Transmission resumes with nothing outstanding.
    pub(super) fn validate_idle_window(&mut self, now: Timestamp, last_sent_at: Timestamp) {
        let period = self.sampling_period();
        self.usage.on_idle(now, last_sent_at, period);
        self.halve_unused_window(now);
    }

    /// RFC 7661 §4.4.3
    fn halve_unused_window(&mut self, now: Timestamp) {
        for _ in 0..self.usage.take_unused_periods(now) {
            self.controller.on_window_unused(&WindowUnused::new(now));
        }
    }

    /// RFC 7661 §4.2
    fn sampling_period(&self) -> Duration {
        let srtt = self.rtt.srtt().unwrap_or_default();
        srtt.saturating_mul(3).max(MIN_SAMPLING_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;
    const PERIOD: Duration = MIN_SAMPLING_PERIOD;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// A sender with a window of 20,000 and an RTT of 100 ms.
    struct UsageTest {
        usage: WindowUsage,
        now: u64,
        una: Offset,
        nxt: Offset,
    }

    const CWND: u64 = 20_000;

    impl UsageTest {
        fn new() -> Self {
            Self {
                usage: WindowUsage::default(),
                now: 0,
                una: Offset::FIRST,
                nxt: Offset::FIRST,
            }
        }

        fn send(&mut self, segments: u64) {
            for _ in 0..segments {
                self.nxt += MSS;
                let in_flight = self.nxt.saturating_since(self.una);
                self.usage.on_sent(self.una, self.nxt, in_flight, CWND, MSS);
            }
        }

        fn ack(&mut self, segments: u64) {
            self.una += segments * MSS;
            self.usage
                .on_acked(at(self.now), self.una, self.nxt, PERIOD);
            self.usage.settle(at(self.now), CWND);
        }

        /// Sends so much, and has it acknowledged, each round trip for so many.
        fn rounds(&mut self, count: u64, segments: u64) {
            for _ in 0..count {
                self.send(segments);
                self.now += 100;
                self.ack(segments);
            }
        }
    }

    #[test]
    fn half_of_the_window_validates_it() {
        // Segments per round trip, of a window of 20.
        for (segments, expected) in [(20, true), (10, true), (9, false), (1, false)] {
            let mut test = UsageTest::new();
            test.rounds(1, segments);
            assert_eq!(test.usage.is_limited(CWND), expected, "{segments}");
            assert_eq!(test.usage.pipe_ack.value(), Some(segments * MSS));
            assert_eq!(test.usage.unused_since.is_none(), expected, "{segments}");
        }
    }

    #[test]
    fn before_the_first_sample_what_was_sent_counts() {
        for (segments, expected) in [(10, true), (9, false)] {
            let mut test = UsageTest::new();
            test.send(segments);
            test.now += 100;
            test.ack(1);
            assert_eq!(test.usage.pipe_ack.value(), None);
            assert_eq!(test.usage.is_limited(CWND), expected, "{segments}");
        }
    }

    #[test]
    fn a_full_window_is_remembered_for_a_round() {
        let mut usage = WindowUsage::default();
        let nxt = Offset::FIRST + 10_000;
        usage.on_sent(Offset::FIRST, nxt, 10_000, 10_000, MSS);
        // Half of it is acknowledged, one small segment follows.
        usage.on_sent(Offset::FIRST + 5_000, nxt + 100, 5_100, 10_000, MSS);
        assert!(usage.is_limited(10_000));
        // The round is over.
        usage.on_sent(nxt, nxt + 200, 200, 10_000, MSS);
        assert!(!usage.is_limited(10_000));
    }

    #[test]
    fn the_largest_sample_of_the_period_counts_and_expires() {
        let mut test = UsageTest::new();
        test.rounds(1, 15);
        // For less than half a second all the same; after a whole one it is gone.
        test.rounds(4, 2);
        assert_eq!(test.usage.pipe_ack.value(), Some(15_000));
        test.rounds(10, 2);
        assert_eq!(test.usage.pipe_ack.value(), Some(2_000));
        assert!(!test.usage.is_limited(CWND));
    }

    #[test]
    fn a_loss_in_the_non_validated_phase_starts_from_what_was_used() {
        let mut test = UsageTest::new();
        test.rounds(12, 8);
        // max(8,000, 4,000); 1,000 of them were sent again: R.
        assert_eq!(test.usage.on_recovery_entered(4_000, CWND, 500), 8_000);
        assert_eq!(test.usage.on_recovery_exited(1_500), 1_000);
        assert_eq!(test.usage.pipe_ack.value(), None);
        // A validated window answers as RFC 5681 has it, whatever was sent again.
        let mut test = UsageTest::new();
        test.rounds(12, 10);
        assert_eq!(test.usage.on_recovery_entered(4_000, CWND, 500), 4_000);
        assert_eq!(test.usage.on_recovery_exited(1_500), 0);
        // Taken back: nothing was lost.
        let mut test = UsageTest::new();
        test.rounds(12, 8);
        test.usage.on_recovery_entered(4_000, CWND, 500);
        test.usage.forget_loss();
        assert_eq!(test.usage.on_recovery_exited(1_500), 0);
    }

    #[test]
    fn an_unused_window_is_due_every_five_minutes() {
        let mut test = UsageTest::new();
        test.rounds(2_999, 1);
        // Unused since 100 ms.
        assert_eq!(test.usage.take_unused_periods(at(test.now)), 0);
        test.rounds(2, 1);
        assert_eq!(test.usage.take_unused_periods(at(test.now)), 1);
        test.rounds(2_999, 1);
        assert_eq!(test.usage.take_unused_periods(at(test.now)), 0);
        // Full use ends the phase.
        test.rounds(1, 20);
        test.rounds(5, 20);
        assert_eq!(test.usage.take_unused_periods(at(test.now)), 0);
        // 11 minutes of silence, of which the first second is the sampling period.
        let last = test.now;
        test.now += 660_000;
        test.usage.on_idle(at(test.now), at(last), PERIOD);
        assert_eq!(test.usage.take_unused_periods(at(test.now)), 2);
        assert_eq!(test.usage.pipe_ack.value(), Some(0));
    }
}
