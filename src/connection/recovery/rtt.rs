//! The RTT estimator: smoothed RTT, its variation and the smallest sample of the last minutes (RFC 6298
//! §2, RFC 8985 §6.2).
//!
//! It takes whatever sample it is given; that no sample comes from a retransmitted segment (Karn's
//! rule, RFC 6298 §3) is decided by the caller. With timestamps there is one sample for every ACK
//! that advances `snd_una`, and each carries the weights of RFC 6298, 1/8 and 1/4. The division of
//! these weights by the expected samples per round (RFC 7323 appendix G) is left out on purpose: it
//! slows the estimator down while queues build up in slow start, and what it guards against, a
//! variation that shrinks to nothing within a round, is met by the floor of the RTO.

use std::time::Duration;

use crate::Timestamp;
use crate::congestion::RttSnapshot;
use crate::timestamp::Nanos;

/// The clock granularity `G` of RFC 6298 §2: tokio's timers and our timestamps tick in milliseconds.
pub const GRANULARITY: Duration = Duration::from_millis(1);
/// Samples beyond this are a peer's lie or a suspended host; they are cut to it.
const MAX_SAMPLE: Duration = Duration::from_secs(600);
/// RFC 8985 §6.2 wants the smallest RTT of the path as it is now. Where a route has become longer, what
/// was measured before is forgotten after five minutes, as in Linux, and at least half of that is kept.
const MIN_RTT_HALF: Duration = Duration::from_secs(150);
/// Two events within one tick of a virtual clock still took some time.
const MIN_SAMPLE: Duration = Duration::from_nanos(1);

/// The RTT estimate of one connection; nothing is known before the first sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RttEstimator(Option<Estimate>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    srtt: Nanos,
    rttvar: Nanos,
    min_rtt: WindowedMin,
    latest_rtt: Nanos,
}

/// The smallest sample of the last two and a half to five minutes: that of the half window in progress
/// and of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowedMin {
    since: Timestamp,
    current: Nanos,
    previous: Nanos,
}

impl WindowedMin {
    const fn new(now: Timestamp, sample: Nanos) -> Self {
        Self {
            since: now,
            current: sample,
            previous: sample,
        }
    }

    fn with(self, now: Timestamp, sample: Nanos) -> Self {
        let age = now.saturating_since(self.since);
        if age >= MIN_RTT_HALF * 2 {
            return Self::new(now, sample);
        }
        if age >= MIN_RTT_HALF {
            return Self {
                since: now,
                current: sample,
                previous: self.current,
            };
        }
        Self {
            current: self.current.min(sample),
            ..self
        }
    }

    fn get(self) -> Duration {
        self.current.min(self.previous).get()
    }
}

impl RttEstimator {
    /// Takes a sample.
    pub fn on_sample(&mut self, now: Timestamp, sample: Duration) {
        let sample = sample.clamp(MIN_SAMPLE, MAX_SAMPLE);
        let latest_rtt = Nanos::from(sample);
        self.0 = Some(match self.0 {
            // RFC 6298 §2.2
            None => Estimate {
                srtt: latest_rtt,
                rttvar: (sample / 2).into(),
                min_rtt: WindowedMin::new(now, latest_rtt),
                latest_rtt,
            },
            // RFC 6298 §2.3: RTTVAR first, with the old SRTT; alpha = 1/8, beta = 1/4.
            Some(known) => {
                let (srtt, rttvar) = (known.srtt.get(), known.rttvar.get());
                Estimate {
                    rttvar: ((rttvar * 3 + srtt.abs_diff(sample)) / 4).into(),
                    srtt: ((srtt * 7 + sample) / 8).into(),
                    min_rtt: known.min_rtt.with(now, latest_rtt),
                    latest_rtt,
                }
            }
        });
    }

    /// Returns the smoothed RTT, `None` before the first sample.
    pub fn srtt(&self) -> Option<Duration> {
        self.0.map(|known| known.srtt.get())
    }

    /// Returns the RTT variation, `None` before the first sample.
    pub fn rttvar(&self) -> Option<Duration> {
        self.0.map(|known| known.rttvar.get())
    }

    /// Returns the smallest sample of the last minutes, `None` before the first one.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.0.map(|known| known.min_rtt.get())
    }

    /// Returns the newest sample, `None` before the first one.
    pub fn latest_rtt(&self) -> Option<Duration> {
        self.0.map(|known| known.latest_rtt.get())
    }

    /// Describes the estimate to a congestion controller, after an ACK that gave `sample`.
    pub fn snapshot(&self, sample: Option<Duration>, newest: Option<Duration>) -> RttSnapshot {
        RttSnapshot {
            sample,
            newest,
            srtt: self.srtt().unwrap_or_default(),
            min_rtt: self.min_rtt().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_move_the_estimate_as_the_rfc_computes() {
        // Name, samples in µs, expected SRTT, RTTVAR and minimum in µs.
        type Case = (&'static str, &'static [u64], u64, u64, u64);
        let cases: [Case; 4] = [
            // RFC 6298 §2.2: SRTT = R, RTTVAR = R/2.
            ("first", &[100_000], 100_000, 50_000, 100_000),
            // RTTVAR = 3/4 · 50 + 1/4 · |100 − 100| = 37.5; SRTT = 100.
            ("same again", &[100_000, 100_000], 100_000, 37_500, 100_000),
            // RTTVAR = 3/4 · 50 + 1/4 · |100 − 180| = 57.5; SRTT = 7/8 · 100 + 1/8 · 180 = 110.
            ("later", &[100_000, 180_000], 110_000, 57_500, 100_000),
            // Then RTTVAR = 3/4 · 57.5 + 1/4 · |110 − 30| = 63.125; SRTT = 7/8 · 110 + 1/8 · 30 = 100.
            (
                "sooner",
                &[100_000, 180_000, 30_000],
                100_000,
                63_125,
                30_000,
            ),
        ];
        for (name, samples, srtt, rttvar, min_rtt) in cases {
            let mut rtt = RttEstimator::default();
            for &sample in samples {
                rtt.on_sample(Timestamp::ZERO, Duration::from_micros(sample));
            }
            assert_eq!(rtt.srtt(), Some(Duration::from_micros(srtt)), "{name}");
            assert_eq!(rtt.rttvar(), Some(Duration::from_micros(rttvar)), "{name}");
            assert_eq!(
                rtt.min_rtt(),
                Some(Duration::from_micros(min_rtt)),
                "{name}"
            );
            let latest = samples.last().map(|&sample| Duration::from_micros(sample));
            assert_eq!(rtt.latest_rtt(), latest, "{name}");
        }
    }

    #[test]
    fn absurd_samples_are_bounded() {
        let mut rtt = RttEstimator::default();
        for sample in [Duration::MAX, Duration::ZERO, Duration::MAX] {
            rtt.on_sample(Timestamp::ZERO, sample);
        }
        assert!(rtt.srtt() < Some(MAX_SAMPLE));
        assert_eq!(rtt.min_rtt(), Some(MIN_SAMPLE));
    }

    #[test]
    fn a_path_that_became_longer_is_known_after_five_minutes() {
        let mut rtt = RttEstimator::default();
        let mut min_at = |seconds: u64, sample: u64| {
            rtt.on_sample(
                Timestamp::from_millis(seconds * 1_000),
                Duration::from_millis(sample),
            );
            rtt.min_rtt().map(|min| min.as_millis())
        };
        // Name, second, sample in ms, minimum in ms.
        let cases = [
            ("first", 0, 20, 20),
            ("longer", 10, 100, 20),
            ("second half", 150, 90, 20),
            ("still known", 299, 100, 20),
            ("the short path is forgotten", 300, 100, 90),
            ("shorter", 301, 80, 80),
            ("long silence", 700, 200, 200),
        ];
        for (name, second, sample, expected) in cases {
            assert_eq!(min_at(second, sample), Some(expected), "{name}");
        }
    }
}
