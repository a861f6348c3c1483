//! BBR version 3: a window and a rate from a model of the path (draft-ietf-ccwg-bbr-06, July 2026; cited here as
//! "draft").
//!
//! Where NewReno and CUBIC fill the bottleneck's queue until it overflows, BBR measures how much the path delivers
//! and how long an empty path takes, sends at that rate, and keeps in flight what fits. A loss changes the model
//! only if more is lost than [a threshold](crate::ConfigBuilder::bbr_loss_threshold), or for a short time.
//!
//! | draft | what | where |
//! | --- | --- | --- |
//! | §4.1 | delivery-rate samples | the core, `connection::recovery::delivery_rate` |
//! | §4.2 | RTT samples | the core; [`RttSnapshot::newest`](crate::congestion::RttSnapshot) |
//! | §5.1, §5.6.1 | states and gains | `state` |
//! | §5.2 | what happens at which event | this file |
//! | §5.3.1, §5.3.2 | Startup, Drain | `startup`, `full_pipe` |
//! | §5.3.3 | `ProbeBW`: DOWN, CRUISE, REFILL, UP | `probe_bw` |
//! | §5.3.4, §5.5.7 | `ProbeRTT`, the smallest RTT | `probe_rtt` |
//! | §5.4 | restart from idle | `control` |
//! | §5.5.1 | round trips | `rounds` |
//! | §5.5.2 to §5.5.6, §5.5.9 | largest bandwidth, aggregation | `filters` |
//! | §5.5.10 | losses, short-term model | `loss`, `signals` |
//! | §5.5.11, §5.6.4.4 | undo, saved window | `undo` |
//! | §5.6 | pacing rate, send quantum, window | `control` |
//!
//! # Choices and deviations
//!
//! - *ECN*: the draft (§3.7) leaves the response open but requires one. Here an echo (RFC 3168), which comes at
//!   most once per round trip and does not tell how many segments were marked, counts as a loss rate above the
//!   threshold in that round trip: it ends Startup, ends a probe and lowers `inflight_longterm`; outside
//!   probes it lowers the short-term model as a round with a loss does.
//! - Packet conservation in recovery is no part of this revision, nor is it here.
//! - The send quantum sets the offload budget only; how much leaves at once is the core's pacer's business.
//! - The state for an undo is saved once, when an episode begins, and not again in each of its rounds
//!   (draft §5.5.11.1 has both): what is undone is the whole episode.
//! - The short-term model is lowered by what was not delivered of what was asked for (`signals`).
//! - A threshold above the draft's is taken off the losses of the short-term model too, so that a path which loses
//!   so much by itself keeps its rate.
//! - *Reaching* `inflight_longterm` means to within a segment: nothing smaller than a segment is sent to fill it.
//! - A window unused for five minutes (RFC 7661) is kept: the pace, and not the window, limits the first burst.
//!
//! All arithmetic is in integers that saturate. The random parts of the probing clock follow from
//! [`ControllerParams::seed`].

mod arithmetic;
mod control;
mod filters;
mod full_pipe;
mod loss;
mod probe_bw;
mod probe_rtt;
mod rounds;
mod signals;
mod startup;
mod state;
mod undo;

use self::arithmetic::{Bandwidth, Random, narrow};
use self::filters::{ExtraAcked, MaxBandwidth};
use self::full_pipe::FullPipe;
use self::probe_bw::Probe;
use self::probe_rtt::{MinRtt, ProbeRtt};
use self::rounds::Rounds;
use self::signals::{Asked, Signals};
use self::startup::StartupLosses;
use self::state::State;
use self::undo::{Repair, Undoable};
use crate::Timestamp;
use crate::congestion::{
    Acked, CongestionController, ControllerParams, IdleRestart, Lost, RecoveryEntered,
    RecoveryExited, Sent, TimedOut, Undo,
};

/// Draft §2.8 `BBR.LossThresh`, in millionths.
const LOSS_THRESHOLD: u64 = 20_000;
const MILLION: u64 = 1_000_000;
/// Draft §2.8 `BBR.Beta`, in percent.
const BETA: u64 = 70;
/// Draft §2.8 `BBR.MinPipeCwnd`, in segments.
const MIN_PIPE_SEGMENTS: u64 = 4;

/// A window and a rate from a model of the path: BBR version 3.
///
/// Invariants:
/// - `mss >= 1` and `cwnd >= mss`; only a timeout, or an initial window so small, makes `cwnd` smaller than four
///   segments;
/// - `pacing_rate >= 1`;
/// - `bw` is at most `max_bw` and, outside probes, at most `bw_shortterm`, as of the latest ACK.
#[derive(Debug)]
pub struct Bbr {
    mss: u64,
    initial_window: u64,
    has_sack: bool,
    /// Loss rate in millionths above which a probe has gone too far.
    loss_threshold: u64,
    random: Random,

    state: State,
    cwnd: u64,
    /// Bytes per second.
    pacing_rate: u64,

    rounds: Rounds,
    max_bw: MaxBandwidth,
    /// `BBR.bw`
    bw: Bandwidth,
    min_rtt: MinRtt,
    extra_acked: ExtraAcked,
    full_pipe: FullPipe,
    /// `BBR.full_bw_reached`
    has_filled_pipe: bool,
    signals: Signals,
    asked: Asked,
    bounds: Bounds,
    startup_losses: StartupLosses,
    probe: Probe,
    probe_rtt: ProbeRtt,
    /// `BBR.idle_restart`
    is_restarting: bool,
    repair: Repair,
    /// `BBR.prior_cwnd`
    prior_cwnd: u64,
    undoable: Undoable,
    usage: Usage,
    /// Total bytes delivered on the connection.
    delivered: u64,
    in_flight: u64,
}

/// What losses have shown to be too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// `BBR.inflight_longterm`; `u64::MAX` is "Infinity".
    inflight_longterm: u64,
    /// `BBR.inflight_shortterm`, likewise.
    inflight_shortterm: u64,
    /// `BBR.bw_shortterm`
    bw_shortterm: Bandwidth,
}

impl Bounds {
    const NONE: Self = Self {
        inflight_longterm: u64::MAX,
        inflight_shortterm: u64::MAX,
        bw_shortterm: Bandwidth::INFINITE,
    };

    /// `ResetShortTermModel()`
    fn reset_shortterm(&mut self) {
        self.inflight_shortterm = u64::MAX;
        self.bw_shortterm = Bandwidth::INFINITE;
    }
}

/// Whether sending has filled the window, in this round trip or the one before (`C.is_cwnd_limited`).
///
/// The core's own answer is that of RFC 7661, by which half a window is enough.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    is_full: bool,
    was_full: bool,
}

impl Usage {
    const fn is_limited(self) -> bool {
        self.is_full || self.was_full
    }

    fn on_round(&mut self) {
        self.was_full = std::mem::take(&mut self.is_full);
    }
}

/// The draft's rate sample `RS`, and what else the present ACK says.
#[derive(Debug, Clone, Copy)]
struct Sample {
    now: Timestamp,
    /// `RS.newly_acked`
    newly_acked: u64,
    /// `RS.delivered`; 0 without a valid sample, as everything that follows.
    delivered: u64,
    /// `RS.delivery_rate`
    rate: Bandwidth,
    /// `RS.prior_delivered`
    prior_delivered: Option<u64>,
    /// `RS.tx_in_flight`
    tx_in_flight: u64,
    /// `RS.lost`
    lost: u64,
    /// `RS.is_app_limited`
    is_app_limited: bool,
    /// How much of the bandwidth was asked for, less the losses that are tolerated, in millionths.
    asked: u64,
    /// Bytes in flight before the ACK.
    prior_in_flight: u64,
}

impl Bbr {
    /// Makes the controller of one connection.
    pub fn new(params: &ControllerParams) -> Self {
        let mss = params.mss.max(1);
        let initial_window = params.initial_window.max(mss);
        let now = params.now;
        let mut bbr = Self {
            mss,
            initial_window,
            has_sack: params.has_sack,
            loss_threshold: threshold(params.loss_threshold),
            random: Random::new(params.seed),
            state: State::Startup,
            cwnd: initial_window,
            pacing_rate: 1,
            rounds: Rounds::default(),
            max_bw: MaxBandwidth::default(),
            bw: Bandwidth::ZERO,
            min_rtt: MinRtt::new(now, params.initial_rtt),
            extra_acked: ExtraAcked::new(now),
            full_pipe: FullPipe::default(),
            has_filled_pipe: false,
            signals: Signals::default(),
            asked: Asked::default(),
            bounds: Bounds::NONE,
            startup_losses: StartupLosses::default(),
            probe: Probe::new(now),
            probe_rtt: ProbeRtt::default(),
            is_restarting: false,
            repair: Repair::No,
            prior_cwnd: 0,
            undoable: Undoable::default(),
            usage: Usage::default(),
            delivered: 0,
            in_flight: 0,
        };
        bbr.initialise_pacing_rate(params.initial_rtt);
        bbr
    }

    /// `BBR.MinPipeCwnd`
    fn min_pipe(&self) -> u64 {
        self.mss.saturating_mul(MIN_PIPE_SEGMENTS)
    }

    /// Draft §5.2.3 `UpdateModelAndState()`
    fn update_model(&mut self, sample: &Sample, rtt: Option<std::time::Duration>) {
        self.update_latest_delivery_signals(sample);
        self.update_congestion_signals(sample);
        self.extra_acked.on_acked(
            sample.now,
            sample.newly_acked,
            self.bw,
            self.cwnd,
            self.rounds.count,
            !self.has_filled_pipe,
        );
        self.check_full_pipe(sample);
        self.check_startup_done(sample);
        self.check_drain_done(sample);
        self.update_probe_bw(sample);
        self.min_rtt.on_acked(sample.now, rtt);
        self.check_probe_rtt(sample);
        self.signals.advance(sample);
        // `BoundBWForModel()`
        self.bw = self.max_bw.get().min(self.bounds.bw_shortterm);
    }

    /// Makes the draft's sample of an event.
    fn sample(&self, event: &Acked) -> Sample {
        let rate = event.rate;
        let is_app_limited = rate.is_some_and(|rate| {
            rate.is_app_limited || self.probe_rtt.has_limited(rate.prior_delivered)
        });
        Sample {
            now: event.now,
            newly_acked: event.delivered,
            delivered: rate.map_or(0, |rate| rate.delivered),
            rate: rate.map_or(Bandwidth::ZERO, |rate| {
                Bandwidth::over(rate.delivered, rate.interval)
            }),
            prior_delivered: rate.map(|rate| rate.prior_delivered),
            tx_in_flight: rate.map_or(0, |rate| rate.tx_in_flight),
            lost: rate.map_or(0, |rate| event.total_lost.saturating_sub(rate.prior_lost)),
            is_app_limited,
            asked: rate.map_or(MILLION, |rate| {
                self.expected(self.asked.get(rate.prior_delivered))
            }),
            prior_in_flight: event.prior_in_flight,
        }
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.mss >= 1 && self.cwnd >= self.mss, "{self:?}");
        assert!(self.pacing_rate >= 1, "{self:?}");
    }
}

impl CongestionController for Bbr {
    fn on_acked(&mut self, event: &Acked) {
        self.in_flight = event.in_flight;
        self.delivered = event.total_delivered;
        if event.delivered == 0 && event.bytes == 0 {
            // An ECN echo alone; the episode that it begins is reported by itself.
            return;
        }
        let sample = self.sample(event);
        self.end_repair(event);
        self.take_first_rtt(event.rtt.newest);
        self.update_model(&sample, event.rtt.newest);
        self.update_control(&sample);
        self.asked
            .on_acked(self.state, self.delivered, self.in_flight);
    }

    fn on_sent(&mut self, event: &Sent) {
        self.in_flight = event.in_flight;
        let was_idle = event.in_flight <= event.bytes;
        if was_idle && event.is_app_limited {
            self.restart_from_idle(event.now);
        }
        self.usage.is_full |= event.in_flight.saturating_add(self.mss) > self.cwnd;
    }

    fn on_lost(&mut self, event: &Lost) {
        self.handle_lost(event);
    }

    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        self.in_flight = event.in_flight;
        self.begin_recovery();
        if event.by_ecn {
            self.handle_echo(event);
        }
    }

    fn on_recovery_exited(&mut self, event: &RecoveryExited) {
        self.in_flight = event.in_flight;
        self.finish_repair();
    }

    fn on_timeout(&mut self, event: &TimedOut) {
        self.in_flight = event.in_flight;
        self.begin_timeout(event);
    }

    fn on_undo(&mut self, event: &Undo) {
        self.in_flight = event.in_flight;
        self.handle_undo();
    }

    /// Draft §5.4: the model of the path is kept, and the pace limits the first burst.
    fn on_idle_restart(&mut self, event: &IdleRestart) {
        let _ = event;
    }

    fn on_mss_changed(&mut self, mss: u64) {
        let old = std::mem::replace(&mut self.mss, mss.max(1));
        let segments = self.cwnd / old.max(1);
        self.cwnd = if segments < MIN_PIPE_SEGMENTS {
            self.mss.saturating_mul(segments.max(1))
        } else {
            self.cwnd.max(self.min_pipe())
        };
    }

    fn name(&self) -> &'static str {
        "BBR"
    }

    fn phase(&self) -> &'static str {
        self.state.name()
    }

    fn cwnd(&self) -> u64 {
        self.cwnd
    }

    /// There is none: nothing here is slow start or congestion avoidance.
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate)
    }

    fn uses_prr(&self) -> bool {
        false
    }
}

/// A fraction in millionths; the draft's where it is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between 0 and a million"
)]
fn threshold(fraction: f64) -> u64 {
    if fraction > 0.0 && fraction < 1.0 {
        ((fraction * MILLION as f64) as u64).max(1)
    } else {
        LOSS_THRESHOLD
    }
}

#[cfg(test)]
mod tests;
