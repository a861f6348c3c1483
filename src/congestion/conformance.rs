//! One suite of rules that every congestion controller is held against, built in or custom.
//!
//! [`check`] drives a controller through whole round trips, losses, timeouts and idle periods, in
//! the order of calls that the [`congestion`](super) module promises, and then through streams of
//! events with extreme values in any order. It ends at the first broken [`Rule`]. A controller that
//! departs from a rule on purpose names it:
//!
//! ```
//! use reliable_udp::congestion::CongestionControl;
//! use reliable_udp::congestion::conformance::{self, Rule, Suite};
//!
//! // Every rule.
//! assert_eq!(conformance::check(&CongestionControl::NewReno), Ok(()));
//! // All rules but one.
//! assert_eq!(Suite::new(&CongestionControl::NewReno).except(Rule::LossReduces).run(), Ok(()));
//! ```
//!
//! The suite does not catch panics: a controller that panics shows its own line.

mod path;
mod stream;

pub(super) use self::path::Path;
#[cfg(test)]
pub(super) use self::path::{ArbitraryEvent, MAX_MSS};
use super::{CongestionControl, ControllerParams};
use crate::Timestamp;

const MSS: u64 = 1_000;
const INITIAL_WINDOW: u64 = 10 * MSS;
/// Streams of random events, and bytes in each.
const STREAMS: u64 = 128;
const BYTES_PER_STREAM: usize = 1_500;

/// One property that the suite checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// The window is never smaller than two segments; one segment is allowed after a timeout, after an ECN
    /// echo and while the initial window is that small (RFC 5681 §3.1, RFC 3168 §6.1.2). See
    /// [`Suite::minimum_window`].
    MinimumWindow,
    /// The slow-start threshold is never smaller than two segments (RFC 5681 §3.1, equation 4).
    MinimumThreshold,
    /// The window does not grow while the application and not the window limits the sender (RFC
    /// 7661 §4).
    NoGrowthWhileLimited,
    /// Entering recovery makes the window smaller (RFC 5681 §3.1, equation 4).
    LossReduces,
    /// Further losses, echoes and ACKs within a recovery episode, and its end, do not make the window
    /// smaller than entering it did (RFC 6582 §3.2, RFC 3168 §6.1.2).
    OneReductionPerEpisode,
    /// An ECN echo reduces the window no more than a loss would (RFC 8511 §3).
    EchoIsGentle,
    /// Undo gives `cwnd` and `ssthresh` the values from before the reduction where departures are paced, but
    /// takes no growth away (RFC 9438 §4.9.2).
    UndoRestores,
    /// A timeout leaves a window of at most one segment, and only the first of several in a row
    /// changes `ssthresh` (RFC 5681 §3.1).
    TimeoutCollapses,
    /// A period of idleness or of an unused window never makes it larger (RFC 5681 §4.1, RFC 7661 §4.4.3).
    IdleNeverGrows,
    /// A pacing rate is not zero, where the events are possible ones.
    PacingRate,
}

/// A rule that a controller broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?} is broken {when}: {what}")]
#[non_exhaustive]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// In which part of the suite.
    pub when: String,
    /// The numbers that show it, in bytes.
    pub what: String,
}

/// The suite, with the exceptions that a controller claims.
#[derive(Debug, Clone)]
#[must_use]
pub struct Suite {
    control: CongestionControl,
    exceptions: Vec<Rule>,
    min_segments: u64,
}

/// Checks every rule with the ordinary minimum window.
///
/// # Errors
/// Returns the first broken rule.
pub fn check(control: &CongestionControl) -> Result<(), Violation> {
    Suite::new(control).run()
}

impl Suite {
    /// Starts with every rule and no exception.
    pub fn new(control: &CongestionControl) -> Self {
        Self {
            control: control.clone(),
            exceptions: Vec::new(),
            min_segments: 2,
        }
    }

    /// Returns what the suite makes controllers by.
    pub fn control(&self) -> &CongestionControl {
        &self.control
    }

    /// Leaves out one rule.
    pub fn except(mut self, rule: Rule) -> Self {
        self.exceptions.push(rule);
        self
    }

    /// Sets the minimum window in segments, at least 1. Default: 2.
    pub fn minimum_window(mut self, segments: u64) -> Self {
        self.min_segments = segments.max(1);
        self
    }

    /// Runs the suite.
    ///
    /// # Errors
    /// Returns the first broken rule.
    pub fn run(&self) -> Result<(), Violation> {
        // Slow start, and congestion avoidance after a loss, are different code in most controllers.
        for losses in 0..3 {
            let when = format!("after {losses} recovery episodes");
            self.growth_needs_a_full_window(losses, &when)?;
            self.an_episode_reduces_once(losses, &when)?;
            self.an_echo_is_gentle(losses, &when)?;
            self.undo_restores(losses, &when)?;
            self.a_timeout_collapses(losses, &when)?;
            self.idleness_never_grows(losses, &when)?;
        }
        for stream in 0..STREAMS {
            self.random_stream(stream)?;
        }
        Ok(())
    }

    fn start(&self, losses: u32, when: &str) -> Result<Path, Violation> {
        let params = ControllerParams::new(Timestamp::ZERO, MSS, INITIAL_WINDOW);
        let mut path = Path::new(self.control.make(&params), &params, self.min_segments);
        path.rounds(4);
        for _ in 0..losses {
            path.enter_recovery(1);
            path.exit_recovery();
            path.rounds(3);
        }
        self.require_floor(&path, when)?;
        Ok(path)
    }

    fn growth_needs_a_full_window(&self, losses: u32, when: &str) -> Result<(), Violation> {
        let mut path = self.start(losses, when)?;
        let before = path.cwnd();
        path.is_cwnd_limited = false;
        path.rounds(10);
        let after = path.cwnd();
        self.require(Rule::NoGrowthWhileLimited, after <= before, when, || {
            format!("cwnd grew from {before} to {after}")
        })
    }

    fn an_episode_reduces_once(&self, losses: u32, when: &str) -> Result<(), Violation> {
        let mut path = self.start(losses, when)?;
        let before = path.cwnd();
        path.enter_recovery(3);
        let reduced = path.cwnd();
        self.require(Rule::LossReduces, reduced < before, when, || {
            format!("cwnd was {before}, and {reduced} after the loss")
        })?;
        for _ in 0..10 {
            path.lose(1);
            path.ack(MSS, MSS);
            let now = path.cwnd();
            self.require(Rule::OneReductionPerEpisode, now >= reduced, when, || {
                format!("cwnd fell from {reduced} to {now} within the episode")
            })?;
        }
        path.exit_recovery();
        let now = path.cwnd();
        self.require(Rule::OneReductionPerEpisode, now >= reduced, when, || {
            format!("cwnd fell from {reduced} to {now} with the end of the episode")
        })?;
        self.require_floor(&path, when)
    }

    fn an_echo_is_gentle(&self, losses: u32, when: &str) -> Result<(), Violation> {
        let [by_loss, by_echo] = [false, true].map(|by_ecn| {
            let mut path = self.start(losses, when)?;
            path.wait(path.rtt);
            path.enter(path.cwnd(), path.cwnd().saturating_sub(MSS), by_ecn);
            Ok(path.cwnd())
        });
        let (by_loss, by_echo) = (by_loss?, by_echo?);
        self.require(Rule::EchoIsGentle, by_echo >= by_loss, when, || {
            format!("cwnd is {by_echo} after an echo, and {by_loss} after a loss")
        })
    }

    fn undo_restores(&self, losses: u32, when: &str) -> Result<(), Violation> {
        for was_timeout in [false, true] {
            let mut path = self.start(losses, when)?;
            let before = (path.cwnd(), path.controller.ssthresh());
            if was_timeout {
                path.time_out(1);
                path.time_out(2);
            } else {
                path.enter_recovery(1);
            }
            path.undo(was_timeout);
            let after = (path.cwnd(), path.controller.ssthresh());
            self.require(Rule::UndoRestores, before == after, when, || {
                format!("cwnd and ssthresh were {before:?}, and {after:?} after the undo")
            })?;
        }
        Ok(())
    }

    fn a_timeout_collapses(&self, losses: u32, when: &str) -> Result<(), Violation> {
        let mut path = self.start(losses, when)?;
        path.time_out(1);
        let first = (path.cwnd(), path.controller.ssthresh());
        path.time_out(2);
        let second = (path.cwnd(), path.controller.ssthresh());
        self.require(
            Rule::TimeoutCollapses,
            first.0.max(second.0) <= MSS,
            when,
            || {
                format!(
                    "cwnd is {} and then {}, one segment is {MSS}",
                    first.0, second.0
                )
            },
        )?;
        self.require(Rule::TimeoutCollapses, first.1 == second.1, when, || {
            format!(
                "ssthresh went from {} to {} with the second",
                first.1, second.1
            )
        })?;
        path.rounds(8);
        self.require_floor(&path, when)
    }

    fn idleness_never_grows(&self, losses: u32, when: &str) -> Result<(), Violation> {
        let mut path = self.start(losses, when)?;
        for idle in [Path::leave_unused, Path::idle] {
            let before = path.cwnd();
            idle(&mut path);
            let after = path.cwnd();
            self.require(Rule::IdleNeverGrows, after <= before, when, || {
                format!("cwnd grew from {before} to {after}")
            })?;
            self.require_floor(&path, when)?;
        }
        Ok(())
    }

    fn random_stream(&self, seed: u64) -> Result<(), Violation> {
        let mut random = SplitMix(seed);
        let mut bytes: Vec<u8> = (0..BYTES_PER_STREAM).map(|_| random.byte()).collect();
        // Possible and impossible ones by turns.
        if let (Some(first), [turn, ..]) = (bytes.first_mut(), seed.to_le_bytes()) {
            *first = turn;
        }
        self.run_stream(&bytes).map_err(|violation| Violation {
            when: format!("{} of random stream {seed}", violation.when),
            ..violation
        })
    }

    fn require_floor(&self, path: &Path, when: &str) -> Result<(), Violation> {
        self.require(Rule::MinimumWindow, path.is_above_floor(), when, || {
            format!("cwnd is {}, mss {}", path.cwnd(), path.mss)
        })
    }

    fn require(
        &self,
        rule: Rule,
        holds: bool,
        when: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        if holds || self.exceptions.contains(&rule) {
            return Ok(());
        }
        Err(Violation {
            rule,
            when: when.to_owned(),
            what: what(),
        })
    }
}

/// The `SplitMix64` generator: enough to choose events, and the same on every machine.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

#[cfg(test)]
mod tests;
