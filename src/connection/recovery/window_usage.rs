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
//! The bursts that an unused window allows (§4.4.2) are spread by the pacer. The restart after idleness of RFC
//! 5681 §4.1, on by default, takes the place of the non-validated phase when nothing at all was sent for an RTO.

use std::time::Duration;

use super::{Phase, Recovery};
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
    max_in_flight: u32,
    was_full: bool,
    round_end: Offset,
    pipe_ack: PipeAck,
    /// The numbers whose acknowledgment is the sample being taken.
    sample: (Offset, Offset),
    /// When the non-validated phase began.
    unused_since: Option<Timestamp>,
    /// What was used, the larger of pipeACK and the flight size, when a loss ended a non-validated phase;
    /// until its recovery is over.
    used_at_loss: Option<Box<u64>>,
}

/// The largest of the samples of the last sampling period: the best one, the best one since, and the best
/// one since that, so that the next is at hand when the first is too old.
#[derive(Debug, Clone, Copy, Default)]
struct PipeAck {
    /// `None` is what RFC 7661 §4.1 calls "undefined".
    best: Option<[Sample; 3]>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    bytes: u64,
}

impl PipeAck {
    fn value(self) -> Option<u64> {
        self.best.map(|[first, ..]| first.bytes)
    }

    /// Forgets what is older than `period`; what is known then becomes 0 and not undefined, since an idle
    /// sender has not used its window.
    fn expire(&mut self, now: Timestamp, period: Duration) {
        if self.best.is_some() {
            self.take(now, 0, period);
        }
    }

    fn take(&mut self, now: Timestamp, bytes: u64, period: Duration) {
        let new = Sample { at: now, bytes };
        let age = |sample: Sample| now.saturating_since(sample.at);
        let best = match self.best {
            None => [new; 3],
            Some([first, _, third]) if bytes >= first.bytes || age(third) > period => [new; 3],
            Some([first, second, _]) if bytes >= second.bytes => [first, new, new],
            Some([first, second, third]) if bytes >= third.bytes => [first, second, new],
            Some(best) => best,
        };
        self.best = Some(match best {
            // The third is not, see above.
            [first, second, third] if age(first) > period && age(second) > period => {
                [third, new, new]
            }
            [first, second, third] if age(first) > period => [second, third, new],
            // The later ones are to be spread over the period.
            [first, second, _] if second.at == first.at && age(second) > period / 4 => {
                [first, new, new]
            }
            [first, second, third] if third.at == second.at && age(third) > period / 2 => {
                [first, second, new]
            }
            best => best,
        });
    }
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
        let is_more = !self.was_full && in_flight > self.max_in_flight.into();
        if snd_una >= self.round_end || is_full || is_more {
            self.was_full = is_full;
            // No window has more (RFC 7323 §2.3).
            self.max_in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
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
        let (start, end) = self.sample;
        if snd_una >= end {
            self.sample = (snd_una, snd_nxt);
        }
        if snd_una >= end && end > start {
            let sample = snd_una.saturating_since(start);
            self.pipe_ack.take(now, sample, period);
        } else {
            self.pipe_ack.expire(now, period);
        }
    }

    /// Says whether the window may grow. Deviation from RFC 7661 §4.3: not always while pipeACK is undefined,
    /// for what was sent tells as well that the application is the limit.
    pub fn is_limited(&self, cwnd: u64) -> bool {
        self.was_full || self.used() >= cwnd.div_ceil(2)
    }

    /// What was used lately: pipeACK, or while that is undefined what was sent.
    fn used(&self) -> u64 {
        self.pipe_ack.value().unwrap_or(self.max_in_flight.into())
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

    /// A recovery begins with `flight_size` outstanding. Returns the flight size that the reduction starts from.
    pub fn on_recovery_entered(&mut self, flight_size: u64, cwnd: u64) -> u64 {
        self.used_at_loss = None;
        self.unused_since = None;
        let Some(pipe_ack) = self.pipe_ack.value().filter(|_| !self.is_limited(cwnd)) else {
            return flight_size;
        };
        // RFC 7661 §4.4.1: cwnd = max(pipeACK, LossFlightSize) / 2
        let used = pipe_ack.max(flight_size).min(cwnd);
        self.used_at_loss = Some(Box::new(used));
        used
    }

    /// The recovery is over, in which `resent` bytes were sent again, however often. Returns by how much the path
    /// was overrun, as far as the window has not answered for it.
    pub fn on_recovery_exited(&mut self, resent: u64) -> u64 {
        self.begin_anew();
        // R in (max(pipeACK, LossFlightSize) - R) / 2.
        self.used_at_loss.take().map_or(0, |used| resent.min(*used))
    }

    /// The retransmission timer expired, which ends the non-validated phase (RFC 7661 §4.4).
    pub fn on_timeout(&mut self) {
        self.begin_anew();
        self.used_at_loss = None;
        self.unused_since = None;
    }

    /// RFC 7661 §4.4.1: pipeACK is undefined, so that the standard methods hold until there is a new value.
    fn begin_anew(&mut self) {
        self.pipe_ack = PipeAck::default();
        self.abandon_sample();
    }

    fn abandon_sample(&mut self) {
        self.sample = <(Offset, Offset)>::default();
    }

    /// The reduction was taken back.
    pub fn forget_loss(&mut self) {
        self.used_at_loss = None;
    }
}

impl Recovery {
    /// An ACK moved `snd_una`.
    pub(super) fn validate_window(&mut self, now: Timestamp) {
        let period = self.sampling_period();
        let (snd_una, snd_nxt) = (self.snd_una(), self.snd_nxt());
        // RFC 7661 §4.2: pipeACK is not updated during recovery, where an ACK also covers what had arrived before.
        if matches!(self.phase, Phase::Open) {
            self.usage.on_acked(now, snd_una, snd_nxt, period);
            self.usage.settle(now, self.controller.cwnd());
        } else {
            self.usage.abandon_sample();
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
    fn no_sample_counts_for_longer_than_the_period() {
        let mut test = UsageTest::new();
        test.rounds(1, 15);
        // 950 ms later, and 1,050 ms later.
        for (now, expected) in [(1_050, 15_000), (1_150, 2_000)] {
            test.send(2);
            test.now = now;
            test.ack(2);
            assert_eq!(test.usage.pipe_ack.value(), Some(expected), "at {now} ms");
        }
        // What was smaller and came later takes its turn.
        test.rounds(1, 9);
        test.now += 800;
        test.rounds(1, 5);
        assert_eq!(test.usage.pipe_ack.value(), Some(9_000));
        test.now += 300;
        test.rounds(1, 1);
        assert_eq!(test.usage.pipe_ack.value(), Some(5_000));
    }

    #[test]
    fn a_timeout_ends_the_non_validated_phase() {
        let mut test = UsageTest::new();
        test.rounds(12, 1);
        assert!(test.usage.unused_since.is_some());
        test.usage.on_timeout();
        assert_eq!(test.usage.pipe_ack.value(), None);
        assert!(test.usage.unused_since.is_none());
    }

    #[test]
    fn a_loss_in_the_non_validated_phase_starts_from_what_was_used() {
        let mut test = UsageTest::new();
        test.rounds(12, 8);
        // max(8,000, 4,000); 1,000 of them were sent again: R.
        assert_eq!(test.usage.on_recovery_entered(4_000, CWND), 8_000);
        assert_eq!(test.usage.on_recovery_exited(1_000), 1_000);
        assert_eq!(test.usage.pipe_ack.value(), None);
        // A validated window answers as RFC 5681 has it, whatever was sent again.
        let mut test = UsageTest::new();
        test.rounds(12, 10);
        assert_eq!(test.usage.on_recovery_entered(4_000, CWND), 4_000);
        assert_eq!(test.usage.on_recovery_exited(1_500), 0);
        // Taken back: nothing was lost.
        let mut test = UsageTest::new();
        test.rounds(12, 8);
        test.usage.on_recovery_entered(4_000, CWND);
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
