//! From the model to what the core asks for: the pacing rate and the window (draft §5.4, §5.6).

use std::time::Duration;

use super::arithmetic::{Bandwidth, percent};
use super::state::{PROBE_RTT_CWND, STARTUP_PACING, State};
use super::{Bbr, Sample};
use crate::Timestamp;

/// Draft §2.5 `BBR.PacingMarginPercent`: what is sent of the bandwidth, in percent.
pub(super) const PACED: u64 = 99;
/// Draft §5.6.2: the RTT while none is known.
const NOMINAL_RTT: Duration = Duration::from_millis(1);
/// Draft §5.6.3
const QUANTUM_TIME: Duration = Duration::from_millis(1);
const MAX_QUANTUM: u64 = 64 * 1024;
const MIN_QUANTUM_SEGMENTS: u64 = 2;
/// Draft §5.5.8.1 `BBR.offload_budget`, in quanta: one that waits here, one that is sent and one that the peer
/// has not acknowledged yet.
const BUDGET_QUANTA: u64 = 3;

impl Bbr {
    /// `InitPacingRate()`
    pub(super) fn initialise_pacing_rate(&mut self, rtt: Option<Duration>) {
        let rtt = rtt.filter(|rtt| !rtt.is_zero()).unwrap_or(NOMINAL_RTT);
        let nominal = Bandwidth::over(self.initial_window, rtt);
        let rate = nominal.percent(STARTUP_PACING);
        self.pacing_rate = rate.bytes_per_second().max(1);
    }

    /// Draft §5.6.2: a connection that began without an RTT (Karn's rule, a SYN cookie) has been paced by a guess that
    /// fits a LAN. It would stay, for until the pipe is full the rate only grows.
    pub(super) fn take_first_rtt(&mut self, rtt: Option<Duration>) {
        if rtt.is_some() && self.min_rtt.get().is_none() && !self.has_filled_pipe {
            self.initialise_pacing_rate(rtt);
        }
    }

    /// `UpdateControlParameters()`
    pub(super) fn update_control(&mut self, sample: &Sample) {
        self.set_pacing_rate(self.state.pacing_gain());
        self.set_cwnd(sample.newly_acked);
    }

    /// `SetPacingRateWithGain()`
    fn set_pacing_rate(&mut self, gain: u64) {
        let rate = self.bw.percent(gain).percent(PACED).bytes_per_second();
        // Without a bandwidth there is nothing to go by.
        if rate > 0 && (self.has_filled_pipe || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// `HandleRestartFromIdle()`
    pub(super) fn restart_from_idle(&mut self, now: Timestamp) {
        self.is_restarting = true;
        self.extra_acked.restart(now);
        if self.state.is_probe_bw() {
            self.set_pacing_rate(100);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// `BBR.bdp`
    pub(super) fn bdp(&self) -> u64 {
        self.bdp_of(self.bw)
    }

    /// `BDPMultiple(1.0)`
    pub(super) fn bdp_of(&self, bw: Bandwidth) -> u64 {
        self.min_rtt
            .get()
            .map_or(self.initial_window, |min_rtt| bw.bytes_in(min_rtt))
    }

    /// `BDPMultiple(gain)`
    fn bdp_multiple(&self, gain: u64) -> u64 {
        if self.min_rtt.get().is_none() {
            return self.initial_window;
        }
        percent(self.bdp(), gain)
    }

    /// `QuantizationBudget()`
    pub(super) fn with_budget(&self, inflight: u64) -> u64 {
        // `SetSendQuantum()`
        let quantum = Bandwidth::new(self.pacing_rate)
            .bytes_in(QUANTUM_TIME)
            .min(MAX_QUANTUM)
            .max(self.mss.saturating_mul(MIN_QUANTUM_SEGMENTS));
        let budget = quantum.saturating_mul(BUDGET_QUANTA);
        let inflight = inflight.max(budget).max(self.min_pipe());
        if self.state == State::ProbeUp {
            inflight.saturating_add(self.mss.saturating_mul(2))
        } else {
            inflight
        }
    }

    /// `UpdateMaxInflight()`
    fn max_inflight(&self) -> u64 {
        let inflight = self.bdp_multiple(self.state.cwnd_gain());
        self.with_budget(inflight.saturating_add(self.extra_acked.get()))
    }

    /// `ProbeRTTCwnd()`
    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp_multiple(PROBE_RTT_CWND).max(self.min_pipe())
    }

    /// `SetCwnd()`
    fn set_cwnd(&mut self, newly_acked: u64) {
        let max_inflight = self.max_inflight();
        let grown = self.cwnd.saturating_add(newly_acked);
        if self.has_filled_pipe {
            self.cwnd = grown.min(max_inflight);
        } else if self.cwnd < max_inflight || self.delivered < self.initial_window {
            self.cwnd = grown;
        }
        self.cwnd = self.cwnd.max(self.min_pipe());
        // `BoundCwndForProbeRTT()`
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        // `BoundCwndForModel()`
        let bound = match self.state {
            State::ProbeDown | State::ProbeRefill | State::ProbeUp => self.bounds.inflight_longterm,
            State::ProbeCruise | State::ProbeRtt => self.inflight_with_headroom(),
            // The summary in draft §5.6.1 has `inflight_longterm` for Drain, the pseudo-code has not; what
            // Startup has lost is then allowed for as long as Drain lasts.
            State::Startup | State::Drain { .. } => u64::MAX,
        };
        let bound = bound
            .min(self.bounds.inflight_shortterm)
            .max(self.min_pipe());
        self.cwnd = self.cwnd.min(bound);
    }
}
