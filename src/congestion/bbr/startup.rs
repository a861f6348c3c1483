//! Startup and Drain: finding the bandwidth, and giving back the queue that this took (draft §5.3.1, §5.3.2).

use super::full_pipe::FullPipe;
use super::state::State;
use super::undo::Repair;
use super::{Bbr, Sample};

/// Draft §5.3.1.3 `BBRStartupFullLossCnt`
const FULL_LOSS_RANGES: u32 = 6;
/// Draft §5.3.2: Drain gives up after so many round trips.
const DRAIN_ROUNDS: u64 = 3;

/// The losses of one round trip of Startup.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StartupLosses {
    /// Discontiguous ranges that were lost in it.
    pub(super) ranges: u32,
    /// The round in which the recovery began.
    pub(super) recovery_round: u64,
}

impl Bbr {
    /// `CheckFullBWReached()`
    pub(super) fn check_full_pipe(&mut self, sample: &Sample) {
        if !self.rounds.is_start || sample.is_app_limited {
            return;
        }
        self.full_pipe.on_round(sample.rate);
        self.has_filled_pipe |= self.full_pipe.is_full;
    }

    /// `CheckStartupDone()`
    pub(super) fn check_startup_done(&mut self, sample: &Sample) {
        self.check_startup_losses(sample);
        if self.state == State::Startup && self.has_filled_pipe {
            self.enter_drain();
        }
    }

    /// `CheckStartupHighLoss()`, draft §5.3.1.3
    fn check_startup_losses(&mut self, sample: &Sample) {
        let is_round_over = self.signals.is_loss_round_start;
        let losses = self.startup_losses;
        if is_round_over {
            self.startup_losses.ranges = 0;
        }
        if self.state != State::Startup || self.repair != Repair::Fast {
            return;
        }
        let is_high = if self.has_sack {
            is_round_over
                && losses.ranges >= FULL_LOSS_RANGES
                && self.rounds.count > losses.recovery_round
                && self.is_inflight_too_high(sample.lost, sample.tx_in_flight)
        } else {
            losses.ranges > 0
        };
        if is_high {
            self.leave_startup_for_loss();
        }
    }

    /// The path has lost, or marked, too much for Startup to go on.
    pub(super) fn leave_startup_for_loss(&mut self) {
        self.undoable.state = Some(State::Startup);
        self.has_filled_pipe = true;
        self.bounds.inflight_longterm = self
            .bdp()
            .max(self.signals.inflight_latest)
            .max(self.min_pipe());
    }

    pub(super) fn enter_startup(&mut self) {
        self.state = State::Startup;
        self.full_pipe = FullPipe::default();
    }

    pub(super) fn enter_drain(&mut self) {
        self.state = State::Drain {
            start_round: self.rounds.count,
        };
    }

    /// `CheckDrainDone()`
    pub(super) fn check_drain_done(&mut self, sample: &Sample) {
        let State::Drain { start_round } = self.state else {
            return;
        };
        let is_long = self.rounds.count > start_round.saturating_add(DRAIN_ROUNDS);
        if is_long || self.in_flight <= self.inflight(self.bw) {
            self.start_probe_down(sample.now);
        }
    }
}
