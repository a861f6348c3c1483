//! `ProbeBW`: sends faster now and then to see whether the path delivers more, and slower in between (draft
//! §5.3.3).

use std::time::Duration;

use super::arithmetic::{Bandwidth, percent};
use super::full_pipe::FullPipe;
use super::state::State;
use super::{BETA, Bbr, Sample};
use crate::Timestamp;

/// Draft §2.8 `BBR.Headroom`, in percent.
const HEADROOM: u64 = 15;
/// Draft §5.3.3.8: a flow probes no less often than Reno would need to refill such a window.
const MAX_RENO_ROUNDS: u64 = 63;
/// Draft §5.3.3.8: the wait between two probes is this and up to `WAIT_SPREAD` more.
const MIN_WAIT: Duration = Duration::from_secs(2);
const WAIT_SPREAD_NANOS: u64 = 1_000_000_000;
/// Draft §5.3.3.9 `RaiseInflightLongtermSlope()`
const MAX_SLOPE_ROUNDS: u32 = 30;

/// What the ACKs tell about the latest probe (`BBR.ack_phase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckPhase {
    /// Nothing.
    Init,
    /// Sending at the known rate to fill the pipe.
    Refilling,
    /// Sending more, without an ACK of that yet.
    Starting,
    /// ACKs of what was sent in the probe.
    Feedback,
    /// The probe is over, its ACKs are not.
    Stopping,
}

/// The probing cycle.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) ack_phase: AckPhase,
    /// `BBR.is_bw_probe_sample`
    pub(super) is_sample: bool,
    /// `BBR.bw_probe_up_acked`
    up_acked: u64,
    /// `BBR.probe_up_acked_per_inc`; `u64::MAX` while `inflight_longterm` does not grow.
    up_acked_per_segment: u64,
    /// `BBR.bw_probe_up_rounds`
    up_rounds: u32,
    /// `BBR.cycle_stamp`
    began: Timestamp,
    /// `BBR.bw_probe_wait`
    wait: Duration,
    /// `BBR.prev_probe_too_high`
    pub(super) was_too_high: bool,
    /// `BBR.prev_probe_precautionary`
    was_precautionary: bool,
}

impl Probe {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            ack_phase: AckPhase::Init,
            is_sample: false,
            up_acked: 0,
            up_acked_per_segment: u64::MAX,
            up_rounds: 0,
            began: now,
            wait: Duration::ZERO,
            was_too_high: false,
            was_precautionary: false,
        }
    }
}

impl Bbr {
    /// `StartProbeBW_DOWN()`, also `EnterProbeBW()`.
    pub(super) fn start_probe_down(&mut self, now: Timestamp) {
        self.signals.reset();
        self.probe.up_acked_per_segment = u64::MAX;
        // `PickProbeWait()`
        self.rounds.since_probe_up = self.random.below(2);
        self.probe.wait = MIN_WAIT + Duration::from_nanos(self.random.below(WAIT_SPREAD_NANOS));
        self.probe.began = now;
        self.probe.ack_phase = AckPhase::Stopping;
        self.rounds.restart(self.delivered);
        self.state = State::ProbeDown;
    }

    pub(super) fn start_probe_cruise(&mut self) {
        self.state = State::ProbeCruise;
    }

    pub(super) fn start_probe_refill(&mut self) {
        self.bounds.reset_shortterm();
        self.probe.up_rounds = 0;
        self.probe.up_acked = 0;
        self.probe.was_precautionary = false;
        self.probe.ack_phase = AckPhase::Refilling;
        self.rounds.restart(self.delivered);
        self.state = State::ProbeRefill;
    }

    fn start_probe_up(&mut self, sample: &Sample) {
        self.probe.ack_phase = AckPhase::Starting;
        self.rounds.restart(self.delivered);
        self.full_pipe = FullPipe::restart(sample.rate);
        self.state = State::ProbeUp;
        self.raise_slope();
    }

    /// `UpdateProbeBWCyclePhase()`
    pub(super) fn update_probe_bw(&mut self, sample: &Sample) {
        if !self.has_filled_pipe || self.adapt_longterm(sample) {
            return;
        }
        match self.state {
            State::ProbeDown => {
                if self.is_time_to_probe(sample.now) {
                    self.start_probe_refill();
                } else if self.is_time_to_cruise() {
                    self.start_probe_cruise();
                }
            }
            State::ProbeCruise => {
                if self.is_time_to_probe(sample.now) {
                    self.start_probe_refill();
                }
            }
            State::ProbeRefill => {
                if self.rounds.is_start {
                    self.probe.is_sample = true;
                    self.start_probe_up(sample);
                }
            }
            State::ProbeUp => {
                if self.is_time_to_go_down(sample) {
                    self.probe.was_too_high = false;
                    self.start_probe_down(sample.now);
                }
            }
            State::Startup | State::Drain { .. } | State::ProbeRtt => {}
        }
    }

    /// `IsTimeToProbeBW()`
    fn is_time_to_probe(&self, now: Timestamp) -> bool {
        let reno_rounds = (self.target_inflight() / self.mss).min(MAX_RENO_ROUNDS);
        now.saturating_since(self.probe.began) > self.probe.wait
            || self.rounds.since_probe_up >= reno_rounds
    }

    /// `IsTimeToCruise()`
    fn is_time_to_cruise(&self) -> bool {
        self.in_flight <= self.inflight_with_headroom()
            && self.in_flight <= self.inflight(self.max_bw.get())
    }

    /// `IsTimeToGoDown()`
    fn is_time_to_go_down(&mut self, sample: &Sample) -> bool {
        let longterm = self.bounds.inflight_longterm;
        // Before this ACK, for after it there is always room for what it has acknowledged.
        let is_reached = sample.prior_in_flight.saturating_add(self.mss) > longterm;
        if self.probe.was_too_high && is_reached {
            self.probe.was_precautionary = true;
            return true;
        }
        if self.usage.is_limited() && self.cwnd >= longterm {
            // The bound, and not the path, holds the rate back.
            self.full_pipe = FullPipe::restart(sample.rate);
            return false;
        }
        self.full_pipe.is_full
    }

    /// `TargetInflight()`
    pub(super) fn target_inflight(&self) -> u64 {
        self.bdp().min(self.cwnd)
    }

    /// `InflightWithHeadroom()`
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        let longterm = self.bounds.inflight_longterm;
        if longterm == u64::MAX {
            return u64::MAX;
        }
        let headroom = percent(longterm, HEADROOM).max(self.mss);
        longterm.saturating_sub(headroom).max(self.min_pipe())
    }

    /// `AdaptLongTermModel()`; says whether it has changed the state.
    fn adapt_longterm(&mut self, sample: &Sample) -> bool {
        if self.rounds.is_start {
            match self.probe.ack_phase {
                AckPhase::Starting => self.probe.ack_phase = AckPhase::Feedback,
                AckPhase::Stopping => {
                    if self.on_probe_feedback_over(sample) {
                        return true;
                    }
                }
                AckPhase::Init | AckPhase::Refilling | AckPhase::Feedback => {}
            }
        }
        if self.is_inflight_too_high(sample.lost, sample.tx_in_flight)
            || self.bounds.inflight_longterm == u64::MAX
        {
            return false;
        }
        let longterm = &mut self.bounds.inflight_longterm;
        *longterm = (*longterm).max(sample.tx_in_flight);
        if self.state == State::ProbeUp {
            self.probe_longterm_upward(sample);
        }
        false
    }

    /// A round trip after the probe: what it has shown is known by now.
    fn on_probe_feedback_over(&mut self, sample: &Sample) -> bool {
        self.probe.is_sample = false;
        self.probe.ack_phase = AckPhase::Init;
        if !self.state.is_probe_bw() {
            return false;
        }
        if !sample.is_app_limited {
            self.max_bw.advance();
        }
        // Draft §5.3.3.6: the precaution was not needed.
        let is_safe = self.probe.was_precautionary && !self.probe.was_too_high;
        if is_safe {
            self.start_probe_refill();
        }
        is_safe
    }

    /// `RaiseInflightLongtermSlope()`
    fn raise_slope(&mut self) {
        let growth = 1_u64 << self.probe.up_rounds.min(MAX_SLOPE_ROUNDS);
        self.probe.up_rounds = (self.probe.up_rounds + 1).min(MAX_SLOPE_ROUNDS);
        self.probe.up_acked_per_segment = (self.cwnd / growth).max(self.mss);
    }

    /// `ProbeInflightLongtermUpward()`
    fn probe_longterm_upward(&mut self, sample: &Sample) {
        if !self.usage.is_limited() || self.cwnd < self.bounds.inflight_longterm {
            return;
        }
        let per_segment = self.probe.up_acked_per_segment.max(1);
        self.probe.up_acked = self.probe.up_acked.saturating_add(sample.newly_acked);
        let segments = self.probe.up_acked / per_segment;
        self.probe.up_acked %= per_segment;
        let growth = segments.saturating_mul(self.mss);
        self.bounds.inflight_longterm = self.bounds.inflight_longterm.saturating_add(growth);
        if self.rounds.is_start {
            self.raise_slope();
        }
    }

    /// `HandleInflightTooHigh()`: the probe has shown that `tx_in_flight` is too much.
    pub(super) fn handle_inflight_too_high(
        &mut self,
        now: Timestamp,
        tx_in_flight: u64,
        is_app_limited: bool,
    ) {
        self.probe.was_too_high = true;
        self.probe.is_sample = false;
        if !is_app_limited {
            let least = percent(self.target_inflight(), BETA);
            self.bounds.inflight_longterm = tx_in_flight.max(least);
        }
        if self.state == State::ProbeUp {
            self.undoable.state = Some(State::ProbeUp);
            self.start_probe_down(now);
        }
    }

    /// What is in flight at `bw` without a queue (draft §5.6.4.2 `Inflight(1.0)`).
    pub(super) fn inflight(&self, bw: Bandwidth) -> u64 {
        self.with_budget(self.bdp_of(bw))
    }
}
