//! What is kept while losses are repaired: the window to come back to, and the model to come back to if nothing
//! was lost (draft §5.5.11, §5.6.4.4).

use super::full_pipe::FullPipe;
use super::state::State;
use super::{Bbr, Bounds};
use crate::congestion::{Acked, TimedOut};

/// Whether losses are being repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// Nothing is lost.
    No,
    /// Something is, and what follows from it is not decided yet.
    Suspected,
    /// Fast recovery.
    Fast,
    /// After a timeout.
    Timeout,
}

/// What an undo restores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undoable {
    /// `BBR.undo_state`: the state that the loss has ended.
    pub(super) state: Option<State>,
    bounds: Bounds,
}

impl Default for Undoable {
    fn default() -> Self {
        Self {
            state: None,
            // Restoring takes the larger one.
            bounds: Bounds {
                inflight_longterm: 0,
                inflight_shortterm: 0,
                bw_shortterm: super::Bandwidth::ZERO,
            },
        }
    }
}

impl Bbr {
    /// `SaveStateUponLoss()`
    pub(super) fn save_state(&mut self) {
        self.save_cwnd();
        self.undoable = Undoable {
            state: None,
            bounds: self.bounds,
        };
    }

    /// `SaveCwnd()`
    pub(super) fn save_cwnd(&mut self) {
        let is_whole =
            matches!(self.repair, Repair::No | Repair::Suspected) && self.state != State::ProbeRtt;
        self.prior_cwnd = if is_whole {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }

    /// `RestoreCwnd()`
    pub(super) fn restore_cwnd(&mut self) {
        self.cwnd = self.cwnd.max(self.prior_cwnd);
    }

    /// `OnEnterRTO()`
    pub(super) fn begin_timeout(&mut self, event: &TimedOut) {
        // What was lost with the first of several timeouts has saved the state, unless a recovery was in
        // progress.
        if event.consecutive <= 1 && self.repair != Repair::Suspected {
            self.save_state();
        }
        self.repair = Repair::Timeout;
        self.cwnd = event.in_flight.saturating_add(self.mss);
    }

    /// Before an ACK changes the model: ends the repair if the core has.
    pub(super) fn end_repair(&mut self, event: &Acked) {
        let is_over = match self.repair {
            Repair::No => false,
            Repair::Suspected => true,
            Repair::Fast => !event.in_recovery,
            Repair::Timeout => !event.after_timeout,
        };
        if is_over {
            self.finish_repair();
        }
    }

    /// Draft §5.6.4.4: gives the window back that the repair has taken.
    pub(super) fn finish_repair(&mut self) {
        match std::mem::replace(&mut self.repair, Repair::No) {
            Repair::No | Repair::Suspected => {}
            Repair::Fast | Repair::Timeout => self.restore_cwnd(),
        }
    }

    /// `HandleSpuriousLossDetection()`
    pub(super) fn handle_undo(&mut self) {
        self.repair = Repair::No;
        self.restore_cwnd();
        self.signals.is_loss_in_round = false;
        self.full_pipe = FullPipe::default();
        let Undoable { state, bounds } = std::mem::take(&mut self.undoable);
        self.bounds.bw_shortterm = self.bounds.bw_shortterm.max(bounds.bw_shortterm);
        let inflight = &mut self.bounds.inflight_shortterm;
        *inflight = (*inflight).max(bounds.inflight_shortterm);
        let inflight = &mut self.bounds.inflight_longterm;
        *inflight = (*inflight).max(bounds.inflight_longterm);
        match state {
            Some(State::Startup) if self.state != State::Startup => {
                self.has_filled_pipe = false;
                if self.state != State::ProbeRtt {
                    self.enter_startup();
                }
            }
            Some(State::ProbeUp)
                if self.state != State::ProbeUp && self.state != State::ProbeRtt =>
            {
                self.start_probe_refill();
            }
            Some(_) | None => {}
        }
    }
}
