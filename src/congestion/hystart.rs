//! HyStart++: leaves slow start before it overshoots (RFC 9406).
//!
//! Compares the smallest RTT of each round trip with that of the one before. When it rises, growth goes on
//! at a quarter of the speed (Conservative Slow Start) for five round trips; if the RTT falls back meanwhile,
//! the rise was a false alarm and slow start goes on.
//!
//! With paced departures there is no need to wait for a whole round trip whose smallest RTT has risen: in it the
//! window doubles, and a queue as long as the path itself overflows. A stream without bursts causes no queue
//! of its own, so eight samples in a row that have risen, by half of what the RFC asks for, suggest that the pipe is
//! full. The window then holds still. If after a whole round trip the samples are still up, and steady, as they are
//! where a full pipe is kept full, the window grows by a sixteenth; if the mean RTT grows with it, slow start ends.
//! Where they are not steady, the path jitters and the RFC's rule takes over. Some samples may stand apart, for
//! hosts are busy at times.
//!
//! A round trip ends when a segment is acknowledged that was sent after it had begun; the core's delivery-rate
//! sample tells (`prior_delivered`), so that no sequence number is needed (RFC 9406 §4.2 uses SND.NXT).

use std::time::Duration;

use super::Acked;
use crate::timestamp::Nanos;

/// RFC 9406 §4.3: `MIN_RTT_THRESH`
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
/// RFC 9406 §4.3: `MAX_RTT_THRESH`
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
/// RFC 9406 §4.3: `MIN_RTT_DIVISOR`
const MIN_RTT_DIVISOR: u32 = 8;
/// RFC 9406 §4.3: `N_RTT_SAMPLE`
const N_RTT_SAMPLE: u32 = 8;
/// RFC 9406 §4.3: `CSS_GROWTH_DIVISOR`
const CSS_GROWTH_DIVISOR: u64 = 4;
/// RFC 9406 §4.3: `CSS_ROUNDS`
const CSS_ROUNDS: u32 = 5;
/// RFC 9406 §4.3: `L` for a sender that does not pace; one that does has no limit.
const UNPACED_LIMIT: u64 = 8;
/// What part of a round trip's samples may stand apart.
const FEW_DIVISOR: u32 = 4;
/// What part of slow start's growth shows whether the RTT follows.
const PROBE_DIVISOR: u64 = 16;
/// If half of it shows, it does.
const PROBE_RISE: u32 = 32;

/// Where the initial slow start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Slow start proper.
    Standard,
    /// Conservative Slow Start.
    Conservative {
        /// `cssBaselineMinRtt`
        baseline: Nanos,
        /// Round trips spent here.
        rounds: u32,
    },
    /// The latest samples of a paced sender have risen; nothing grows until the next round trips tell more.
    Held {
        /// What the samples have risen to.
        risen: Nanos,
        /// Round trips that have begun since.
        rounds: u32,
    },
    /// The window grows a little for one round trip. In the next one the growth arrives, and the one after that
    /// shows whether the RTT has grown too.
    Probing {
        /// The mean RTT before.
        before: Nanos,
        /// Round trips spent here.
        rounds: u32,
    },
}

/// The state of RFC 9406 §4.2, from the beginning of the connection to the end of its first slow start.
#[derive(Debug, Clone, Copy)]
pub(super) struct HyStart {
    phase: Phase,
    /// `lastRoundMinRTT`; `None` stands for infinity.
    last_round_min_rtt: Option<Nanos>,
    /// `currentRoundMinRTT`
    current_round_min_rtt: Option<Nanos>,
    /// `rttSampleCount`
    rtt_samples: u32,
    /// The sum of this round trip's samples.
    rtt_sum: Nanos,
    /// How many of them differ from the mean until then, and how many have not risen.
    unsteady_samples: u32,
    low_samples: u32,
    /// How many samples in a row have risen that much above the round trip before that a paced sender acts.
    risen_samples: u16,
    /// The round ends when something is acknowledged that was sent after this much had been delivered.
    round_ends_at: u64,
    is_paced: bool,
    /// Whether a rise within a round trip counts.
    acts_early: bool,
}

impl HyStart {
    pub(super) const fn new(is_paced: bool) -> Self {
        Self {
            phase: Phase::Standard,
            last_round_min_rtt: None,
            current_round_min_rtt: None,
            rtt_samples: 0,
            rtt_sum: Nanos::ZERO,
            unsteady_samples: 0,
            low_samples: 0,
            risen_samples: 0,
            round_ends_at: 0,
            is_paced,
            acts_early: is_paced,
        }
    }

    /// In the last round of Conservative Slow Start, which the next ACK ends.
    #[cfg(test)]
    pub(super) const fn ending() -> Self {
        Self {
            phase: Phase::Conservative {
                baseline: Nanos::ZERO,
                rounds: CSS_ROUNDS - 1,
            },
            ..Self::new(true)
        }
    }

    /// Takes an ACK of slow start. Returns whether slow start has to end now.
    pub(super) fn on_acked(&mut self, event: &Acked) -> bool {
        let has_ended = event
            .rate
            .is_some_and(|rate| rate.prior_delivered >= self.round_ends_at);
        if has_ended {
            self.round_ends_at = event.total_delivered;
            if self.begin_round() {
                return true;
            }
        }
        if let Some(sample) = event.rtt.sample {
            self.take_sample(sample);
        }
        false
    }

    /// Says whether slow start is on its way to its end.
    pub(super) const fn is_conservative(&self) -> bool {
        !matches!(self.phase, Phase::Standard)
    }

    /// Returns by how much slow start may grow when `bytes` are acknowledged.
    pub(super) fn growth(&self, bytes: u64, mss: u64) -> u64 {
        let bytes = if self.is_paced {
            bytes
        } else {
            bytes.min(mss.saturating_mul(UNPACED_LIMIT))
        };
        match self.phase {
            Phase::Standard => bytes,
            // At least something, so that many small ACKs are not nothing.
            Phase::Conservative { .. } => bytes.div_ceil(CSS_GROWTH_DIVISOR),
            Phase::Probing { rounds: 0, .. } => bytes.div_ceil(PROBE_DIVISOR),
            Phase::Held { .. } | Phase::Probing { .. } => 0,
        }
    }

    /// Begins a round; returns whether the last round of Conservative Slow Start is over.
    fn begin_round(&mut self) -> bool {
        let min_rtt = self.current_round_min_rtt.take();
        self.last_round_min_rtt = min_rtt;
        let samples = std::mem::take(&mut self.rtt_samples);
        let mean = std::mem::take(&mut self.rtt_sum).get() / samples.max(1);
        let unsteady_samples = std::mem::take(&mut self.unsteady_samples);
        let low_samples = std::mem::take(&mut self.low_samples);
        self.risen_samples = 0;
        let few = samples / FEW_DIVISOR;
        match &mut self.phase {
            Phase::Standard => {}
            Phase::Conservative { rounds, .. } => {
                *rounds += 1;
                return *rounds >= CSS_ROUNDS;
            }
            // As low as before: a burst, after all.
            Phase::Held { rounds: 1, .. } if low_samples > samples / 2 => {
                self.phase = Phase::Standard;
            }
            Phase::Held { rounds, .. } | Phase::Probing { rounds, .. } if *rounds < 2 => {
                *rounds += 1;
            }
            Phase::Held { .. } | Phase::Probing { .. } if samples < N_RTT_SAMPLE => {
                self.phase = Phase::Standard;
            }
            Phase::Held { .. } if low_samples > few => self.phase = Phase::Standard,
            Phase::Held { .. } if unsteady_samples > few => {
                self.acts_early = false;
                self.phase = Phase::Conservative {
                    baseline: min_rtt.unwrap_or(mean.into()),
                    rounds: 0,
                };
            }
            Phase::Held { .. } => {
                self.phase = Phase::Probing {
                    before: mean.into(),
                    rounds: 0,
                };
            }
            Phase::Probing { before, .. } => {
                let before = before.get();
                let risen = before.saturating_add(before / PROBE_RISE);
                self.phase = Phase::Standard;
                return mean >= risen;
            }
        }
        false
    }

    fn take_sample(&mut self, sample: Duration) {
        // Deviation from RFC 9406 §4.2: a paced sender acts within the round trip and on half of the rise, because
        // it causes no bursts that would have to be told from a queue.
        let risen = self.last_round_min_rtt.map(|last| {
            let rise = threshold(last.get());
            let rise = if self.acts_early { rise / 2 } else { rise };
            last.get().saturating_add(rise)
        });
        let has_risen = risen.is_some_and(|risen| sample >= risen);
        self.risen_samples = if has_risen {
            self.risen_samples.saturating_add(1)
        } else {
            0
        };
        let current = self
            .current_round_min_rtt
            .map_or(sample, |current| current.get().min(sample));
        self.current_round_min_rtt = Some(current.into());
        let mean = self
            .rtt_sum
            .get()
            .checked_div(self.rtt_samples)
            .unwrap_or(sample);
        let is_unsteady = sample.abs_diff(mean) > threshold(mean) / 2;
        self.unsteady_samples = self.unsteady_samples.saturating_add(u32::from(is_unsteady));
        self.rtt_sum = self.rtt_sum.get().saturating_add(sample).into();
        self.rtt_samples = self.rtt_samples.saturating_add(1);
        let is_sampled = self.rtt_samples >= N_RTT_SAMPLE;
        match (self.phase, risen) {
            (Phase::Standard, Some(risen)) if is_sampled => {
                let is_up = u32::from(self.risen_samples) >= N_RTT_SAMPLE;
                if self.acts_early && is_up {
                    self.phase = Phase::Held {
                        risen: risen.into(),
                        rounds: 0,
                    };
                } else if !self.acts_early && current >= risen {
                    self.phase = Phase::Conservative {
                        baseline: current.into(),
                        rounds: 0,
                    };
                }
            }
            (Phase::Conservative { baseline, .. }, _) if is_sampled && current < baseline.get() => {
                self.phase = Phase::Standard;
            }
            (Phase::Held { risen, .. }, _) if sample < risen.get() => {
                self.low_samples = self.low_samples.saturating_add(1);
            }
            (
                Phase::Standard
                | Phase::Conservative { .. }
                | Phase::Held { .. }
                | Phase::Probing { .. },
                _,
            ) => {}
        }
    }
}

/// `RttThresh`: the rise from `rtt` that counts.
fn threshold(rtt: Duration) -> Duration {
    (rtt / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::congestion::{RateSample, RttSnapshot};

    const MSS: u64 = 1_000;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Rounds of a few segments each, every one of which was sent by an ACK of the round before.
    #[derive(Clone)]
    struct Rounds {
        hystart: HyStart,
        delivered: u64,
        /// `delivered` when the present round and the one before it began.
        round_began_at: u64,
        previous: u64,
        /// ACKs of the present round.
        acks: u64,
    }

    impl Rounds {
        fn new() -> Self {
            Self {
                hystart: HyStart::new(false),
                delivered: 0,
                round_began_at: 0,
                previous: 0,
                acks: 0,
            }
        }

        /// Begins a round: what was sent until now belongs to the one before.
        fn begin(&mut self) {
            self.previous = std::mem::replace(&mut self.round_began_at, self.delivered);
            self.acks = 0;
        }

        /// An ACK of the present round; returns whether slow start ended.
        fn ack(&mut self, rtt: Duration) -> bool {
            self.acks += 1;
            let sent_at = self.previous + self.acks * MSS;
            self.delivered += MSS;
            let mut event = Acked::new(Timestamp::ZERO, MSS, 0);
            event.total_delivered = self.delivered;
            event.rtt = RttSnapshot::new(Some(rtt), rtt, rtt);
            let mut rate = RateSample::new(MSS, rtt);
            rate.prior_delivered = sent_at.min(self.round_began_at);
            event.rate = Some(rate);
            self.hystart.on_acked(&event)
        }

        /// `acks` more ACKs of the present round; returns whether slow start ended.
        fn rest(&mut self, acks: u64, rtt: Duration) -> bool {
            (0..acks).fold(false, |has_ended, _| self.ack(rtt) || has_ended)
        }

        /// A round of `acks` ACKs with this RTT; returns whether slow start ended.
        fn round(&mut self, acks: u64, rtt: Duration) -> bool {
            self.begin();
            self.rest(acks, rtt)
        }

        fn is_conservative(&self) -> bool {
            self.hystart.is_conservative()
        }
    }

    #[test]
    fn a_rise_of_an_eighth_begins_conservative_slow_start_and_five_rounds_end_it() {
        let mut rounds = Rounds::new();
        assert!(!rounds.round(10, ms(80)));
        // 80 / 8 = 10 ms.
        assert!(!rounds.round(10, ms(89)));
        assert!(!rounds.is_conservative());
        // 89 / 8 = 11.125 ms: 100.125 ms are needed.
        assert!(!rounds.round(10, ms(101)));
        assert!(rounds.is_conservative());
        for _ in 0..4 {
            assert!(!rounds.round(10, ms(101)));
        }
        assert!(rounds.round(10, ms(101)), "the fifth round has passed");
    }

    #[test]
    fn a_quarter_of_the_growth_remains() {
        let mut rounds = Rounds::new();
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
        rounds.round(10, ms(10));
        // 4 ms is the smallest rise that counts.
        rounds.round(10, ms(13));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
        rounds.round(10, ms(17));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 1_000);
        assert_eq!(rounds.hystart.growth(1, MSS), 1);
    }

    #[test]
    fn an_ack_buys_eight_segments_at_most_unless_departures_are_paced() {
        for (is_paced, expected) in [(true, 20_000), (false, 8_000)] {
            let mut rounds = Rounds::new();
            rounds.hystart = HyStart::new(is_paced);
            assert_eq!(rounds.hystart.growth(20_000, MSS), expected);
            assert_eq!(rounds.hystart.growth(MSS, MSS), MSS);
        }
        let mut rounds = Rounds::new();
        rounds.round(10, ms(100));
        rounds.round(10, ms(120));
        assert!(rounds.is_conservative());
        assert_eq!(rounds.hystart.growth(20_000, MSS), 2_000);
    }

    #[test]
    fn a_paced_sender_holds_still_when_eight_samples_in_a_row_have_risen() {
        let paced = || Rounds {
            hystart: HyStart::new(true),
            ..Rounds::new()
        };
        let held = || {
            let mut rounds = paced();
            rounds.round(20, ms(80));
            rounds.begin();
            // 80 / 8 / 2 = 5 ms; one sample in eight that has not risen is enough to go on.
            for rtt in [85, 85, 85, 84, 85, 85, 85, 85, 85, 85, 85] {
                rounds.ack(ms(rtt));
            }
            assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
            rounds.ack(ms(85));
            assert_eq!(rounds.hystart.growth(4_000, MSS), 0);
            rounds
        };
        // Whatever the rest of the round and the next one bring, a steady one that has not fallen lets the window grow
        // by a sixteenth; if the mean of the second round after that has risen by half of it, slow start ends.
        for (last, expected) in [(ms(88), true), (ms(87), false)] {
            let mut rounds = held();
            assert!(!rounds.rest(8, ms(80)));
            assert!(!rounds.round(4, ms(70)));
            assert!(!rounds.rest(4, ms(85)));
            assert!(!rounds.round(8, ms(85)));
            assert_eq!(rounds.hystart.growth(4_000, MSS), 0);
            assert!(!rounds.round(8, ms(85)));
            assert_eq!(rounds.hystart.growth(4_000, MSS), 250);
            assert!(!rounds.round(8, ms(85)));
            assert_eq!(rounds.hystart.growth(4_000, MSS), 0);
            assert!(!rounds.round(8, last));
            rounds.begin();
            assert_eq!(rounds.ack(last), expected, "{last:?}");
            if !expected {
                assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
            }
        }
        // Five in eight of the first round that have not risen let it go on,
        let mut rounds = held();
        rounds.round(5, ms(84));
        rounds.rest(3, ms(85));
        rounds.round(1, ms(85));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
        // three of the second one do, two do not,
        for (low, growth) in [(2, 250), (3, 4_000)] {
            let mut rounds = held();
            rounds.round(8, ms(85));
            rounds.round(8 - low, ms(85));
            rounds.rest(low, ms(84));
            rounds.round(1, ms(85));
            assert_eq!(rounds.hystart.growth(4_000, MSS), growth);
        }
        // and seven are no proof.
        let mut rounds = held();
        rounds.round(8, ms(85));
        rounds.round(7, ms(85));
        rounds.round(1, ms(85));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
    }

    #[test]
    fn where_samples_are_not_steady_the_rule_for_whole_round_trips_takes_over() {
        let mut before = Rounds {
            hystart: HyStart::new(true),
            ..Rounds::new()
        };
        before.round(20, ms(80));
        before.round(8, ms(90));
        before.round(8, ms(90));
        // 90 / 8 / 2 = 5.6 ms from the mean; two in eight may be.
        let mut rounds = before.clone();
        for (late, growth) in [(2, 250), (3, 1_000)] {
            rounds = before.clone();
            rounds.round(8 - late, ms(90));
            rounds.rest(late, ms(102));
            assert_eq!(rounds.hystart.growth(4_000, MSS), 0);
            rounds.round(8, ms(90));
            assert_eq!(rounds.hystart.growth(4_000, MSS), growth);
        }
        // A round trip with a lower one resumes slow start, and eight samples in a row mean nothing any more.
        rounds.round(8, ms(85));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
        rounds.begin();
        rounds.ack(ms(85));
        assert!(!rounds.rest(20, ms(105)));
        assert_eq!(rounds.hystart.growth(4_000, MSS), 4_000);
    }

    #[test]
    fn the_first_round_trip_of_a_paced_sender_proves_nothing() {
        let mut rounds = Rounds {
            hystart: HyStart::new(true),
            ..Rounds::new()
        };
        // A burst of the initial window on a slow link.
        for rtt in 0..10 {
            rounds.ack(ms(30 + 10 * rtt));
        }
        assert!(!rounds.is_conservative());
    }

    #[test]
    fn a_false_alarm_resumes_slow_start() {
        let mut rounds = Rounds::new();
        rounds.round(10, ms(100));
        rounds.round(10, ms(120));
        assert!(rounds.is_conservative());
        rounds.round(10, ms(119));
        assert!(!rounds.is_conservative());
    }

    #[test]
    fn the_threshold_is_at_most_16_ms_and_needs_eight_samples() {
        let mut rounds = Rounds::new();
        rounds.round(10, ms(400));
        rounds.round(7, ms(500));
        assert!(!rounds.is_conservative(), "seven samples");
        rounds.round(8, ms(516));
        assert!(rounds.is_conservative(), "16 ms above 500");
    }
}
