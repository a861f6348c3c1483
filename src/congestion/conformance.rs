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

use std::time::Duration;

use super::{
    Acked, CongestionControl, CongestionController, ControllerParams, IdleRestart, Lost,
    RateSample, RecoveryEntered, RecoveryExited, RttSnapshot, Sent, TimedOut, Undo, WindowUnused,
};
use crate::Timestamp;

const MSS: u64 = 1_000;
const INITIAL_WINDOW: u64 = 10 * MSS;
const RTT: Duration = Duration::from_millis(100);
const RTO: Duration = Duration::from_millis(300);
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);
/// Far above any datagram, and far enough from overflow for a window of two segments.
pub(super) const MAX_MSS: u64 = 1 << 48;
/// Streams of random events, and events in each.
const STREAMS: u64 = 64;
const EVENTS_PER_STREAM: u32 = 500;

/// One property that the suite checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// The window is never smaller than two segments; one segment is allowed after a timeout and
    /// while the initial window is that small (RFC 5681 §3.1). See [`Suite::minimum_window`].
    MinimumWindow,
    /// The window does not grow while the application and not the window limits the sender (RFC
    /// 7661 §4).
    NoGrowthWhileLimited,
    /// Entering recovery makes the window smaller (RFC 5681 §3.1, equation 4).
    LossReduces,
    /// Further losses and ACKs within a recovery episode, and its end, do not make the window
    /// smaller than entering it did (RFC 6582 §3.2).
    OneReductionPerEpisode,
    /// Undo gives `cwnd` and `ssthresh` the values from before the reduction (RFC 4015 §3).
    UndoRestores,
    /// A timeout leaves a window of at most one segment, and only the first of several in a row
    /// changes `ssthresh` (RFC 5681 §3.1).
    TimeoutCollapses,
    /// A period of idleness or of an unused window never makes it larger (RFC 5681 §4.1, RFC 7661 §4.4.3).
    IdleNeverGrows,
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
        let segments = [1, 2, 10, 1_000][random.below(4)];
        let mss = [1, 536, MSS, 65_487, MAX_MSS][random.below(5)];
        let params = ControllerParams::new(Timestamp::ZERO, mss, mss.saturating_mul(segments));
        let mut path = Path::new(self.control.make(&params), &params, self.min_segments);
        for step in 0..EVENTS_PER_STREAM {
            path.arbitrary(&ArbitraryEvent {
                kind: random.byte(),
                flags: random.byte(),
                a: random.magnitude(),
                b: random.magnitude(),
            });
            self.require_floor(&path, &format!("in event {step} of random stream {seed}"))?;
        }
        Ok(())
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

/// An event whose hook and numbers are chosen by a generator; any value is a valid event.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArbitraryEvent {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) a: u64,
    pub(super) b: u64,
}

/// A controller and the least model of a connection that gives it consistent events.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) controller: Box<dyn CongestionController>,
    pub(super) is_cwnd_limited: bool,
    now: Timestamp,
    mss: u64,
    min_segments: u64,
    in_recovery: bool,
    /// Segments that the window must have now; 1 after a timeout, until it had `min_segments` again.
    floor_segments: u64,
    /// Segments that it must have after idleness; 1 if the initial window is below `min_segments`.
    idle_floor_segments: u64,
    total_delivered: u64,
    total_lost: u64,
}

impl Path {
    pub(super) fn new(
        controller: Box<dyn CongestionController>,
        params: &ControllerParams,
        min_segments: u64,
    ) -> Self {
        let is_small = params.initial_window < params.mss.saturating_mul(min_segments);
        let floor_segments = if is_small { 1 } else { min_segments };
        Self {
            controller,
            is_cwnd_limited: true,
            now: params.now,
            mss: params.mss,
            min_segments,
            in_recovery: false,
            floor_segments,
            idle_floor_segments: floor_segments,
            total_delivered: 0,
            total_lost: 0,
        }
    }

    pub(super) fn cwnd(&self) -> u64 {
        self.controller.cwnd()
    }

    pub(super) fn is_above_floor(&self) -> bool {
        self.cwnd() >= self.mss.saturating_mul(self.floor_segments)
    }

    /// Once the window has its minimum again, it must keep it.
    fn settle(&mut self) {
        if self.cwnd() >= self.mss.saturating_mul(self.min_segments) {
            self.floor_segments = self.min_segments;
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Sends a full window and has it acknowledged, two segments per ACK, `count` times over.
    pub(super) fn rounds(&mut self, count: u32) {
        for _ in 0..count {
            let mut left = self.cwnd().min(1_000 * self.mss);
            self.controller.on_sent(&Sent::new(self.now, left, left));
            self.wait(RTT);
            while left > 0 {
                let bytes = left.min(2 * self.mss);
                left -= bytes;
                self.ack(bytes, left);
            }
        }
    }

    pub(super) fn ack(&mut self, bytes: u64, in_flight: u64) {
        self.total_delivered = self.total_delivered.saturating_add(bytes);
        let mut event = Acked::new(self.now, bytes, in_flight);
        event.total_delivered = self.total_delivered;
        event.total_lost = self.total_lost;
        event.rtt = RttSnapshot::new(Some(RTT), RTT, RTT);
        event.is_cwnd_limited = self.is_cwnd_limited;
        event.in_recovery = self.in_recovery;
        let mut rate = RateSample::new(bytes.saturating_add(in_flight), RTT);
        rate.prior_delivered = self.total_delivered.saturating_sub(rate.delivered);
        rate.tx_in_flight = rate.delivered;
        rate.prior_lost = self.total_lost;
        rate.is_app_limited = !self.is_cwnd_limited;
        event.rate = Some(rate);
        self.controller.on_acked(&event);
        self.settle();
    }

    pub(super) fn lose(&mut self, segments: u32) {
        for _ in 0..segments {
            self.total_lost = self.total_lost.saturating_add(self.mss);
            let mut event = Lost::new(self.now, self.mss, self.now - RTT);
            event.tx_in_flight = self.cwnd();
            event.prior_delivered = self.total_delivered;
            event.prior_lost = self.total_lost.saturating_sub(self.mss);
            event.total_lost = self.total_lost;
            self.controller.on_lost(&event);
        }
    }

    pub(super) fn enter_recovery(&mut self, lost_segments: u32) {
        let flight_size = self.cwnd();
        self.wait(RTT);
        self.lose(lost_segments);
        let lost = u64::from(lost_segments).saturating_mul(self.mss);
        let event = RecoveryEntered::new(self.now, flight_size, flight_size.saturating_sub(lost));
        self.controller.on_recovery_entered(&event);
        self.in_recovery = true;
        self.settle();
    }

    /// The ACK that ends the episode, and its end.
    pub(super) fn exit_recovery(&mut self) {
        self.wait(RTT);
        self.in_recovery = false;
        self.ack(self.mss, 0);
        self.controller
            .on_recovery_exited(&RecoveryExited::new(self.now, 0));
        self.settle();
    }

    pub(super) fn time_out(&mut self, consecutive: u32) {
        let flight_size = self.cwnd();
        self.wait(RTO);
        self.lose(1);
        self.floor_segments = 1;
        self.in_recovery = false;
        self.controller
            .on_timeout(&TimedOut::new(self.now, flight_size, consecutive));
        self.settle();
    }

    pub(super) fn undo(&mut self, was_timeout: bool) {
        let mut event = Undo::new(self.now, self.cwnd());
        event.was_timeout = was_timeout;
        self.controller.on_undo(&event);
        self.in_recovery = false;
        self.settle();
    }

    pub(super) fn idle(&mut self) {
        self.wait(10 * RTO);
        self.floor_segments = self.floor_segments.min(self.idle_floor_segments);
        self.controller
            .on_idle_restart(&IdleRestart::new(self.now, 10 * RTO, RTO));
        self.settle();
    }

    pub(super) fn leave_unused(&mut self) {
        self.wait(NON_VALIDATED_PERIOD);
        self.controller
            .on_window_unused(&WindowUnused::new(self.now));
        self.settle();
    }

    pub(super) fn change_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.controller.on_mss_changed(mss);
        self.settle();
    }

    /// Calls one hook, in no legal order and with numbers that need not agree with each other.
    pub(super) fn arbitrary(&mut self, event: &ArbitraryEvent) {
        let ArbitraryEvent { kind, flags, a, b } = *event;
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        self.wait(Duration::from_nanos(a.rotate_left(32) & 0xffff_ffff));
        self.is_cwnd_limited = is_set(0);
        let now = self.now;
        match kind % 16 {
            0..6 => {
                let mut acked = Acked::new(now, a, b);
                acked.delivered = if is_set(1) { b } else { a };
                acked.total_delivered = a.max(b);
                acked.is_cwnd_limited = is_set(0);
                acked.in_recovery = is_set(2);
                acked.ecn_echo = is_set(3);
                acked.rtt = RttSnapshot::new(
                    is_set(4).then(|| Duration::from_nanos(b)),
                    Duration::from_nanos(a),
                    Duration::from_nanos(b),
                );
                acked.rate = is_set(5).then(|| RateSample::new(b, Duration::from_nanos(a)));
                self.controller.on_acked(&acked);
            }
            6 | 7 => {
                let mut entered = RecoveryEntered::new(now, a, b);
                entered.by_ecn = is_set(1);
                self.controller.on_recovery_entered(&entered);
            }
            8 => self
                .controller
                .on_recovery_exited(&RecoveryExited::new(now, b)),
            9 => {
                self.floor_segments = 1;
                let consecutive = u32::from(flags >> 4);
                self.controller
                    .on_timeout(&TimedOut::new(now, a, consecutive));
            }
            10 => {
                let mut undo = Undo::new(now, a);
                undo.was_timeout = is_set(1);
                self.controller.on_undo(&undo);
            }
            11 => {
                self.floor_segments = self.floor_segments.min(self.idle_floor_segments);
                let (idle, rto) = (Duration::from_nanos(a), Duration::from_nanos(b));
                self.controller
                    .on_idle_restart(&IdleRestart::new(now, idle, rto));
            }
            14 => self.leave_unused(),
            12 => self.change_mss(a.clamp(1, MAX_MSS)),
            13 => self
                .controller
                .on_lost(&Lost::new(now, a, Timestamp::from_nanos(b))),
            _ => {
                let mut sent = Sent::new(now, a, b);
                sent.is_retransmit = is_set(1);
                self.controller.on_sent(&sent);
            }
        }
        self.settle();
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

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A number of any size: every number of significant bits is equally likely.
    fn magnitude(&mut self) -> u64 {
        let shift = self.next() % 65;
        self.next()
            .checked_shr(u32::try_from(shift).unwrap_or(0))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
