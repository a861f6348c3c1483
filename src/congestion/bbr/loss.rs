//! What a lost segment, or a congestion echo, says about the path (draft §5.5.10).

use super::undo::Repair;
use super::{Bbr, MILLION, narrow};
use crate::congestion::{Lost, RecoveryEntered};

impl Bbr {
    /// `IsInflightTooHigh()`
    pub(super) fn is_inflight_too_high(&self, lost: u64, tx_in_flight: u64) -> bool {
        let tolerated = u128::from(tx_in_flight) * u128::from(self.loss_threshold);
        u128::from(lost) * u128::from(MILLION) > tolerated || (lost > 0 && !self.has_sack)
    }

    /// `NoteLoss()`
    fn note_loss(&mut self) {
        if !self.signals.is_loss_in_round {
            self.signals.loss_round_delivered = self.delivered;
        }
        self.signals.is_loss_in_round = true;
        if self.repair == Repair::No {
            self.save_state();
            self.repair = Repair::Suspected;
        }
    }

    /// `HandleLostPacket()`
    pub(super) fn handle_lost(&mut self, event: &Lost) {
        self.note_loss();
        let losses = &mut self.startup_losses;
        losses.ranges = losses.ranges.saturating_add(u32::from(event.starts_range));
        if !self.probe.is_sample {
            return;
        }
        let lost = event.total_lost.saturating_sub(event.prior_lost);
        if self.is_inflight_too_high(lost, event.tx_in_flight) {
            let tx_in_flight = self.inflight_at_loss(event.tx_in_flight, lost, event.bytes);
            let is_limited =
                event.is_app_limited || self.probe_rtt.has_limited(event.prior_delivered);
            self.handle_inflight_too_high(event.now, tx_in_flight, is_limited);
        }
    }

    /// `InflightAtLoss()`: how much was in flight when the loss rate crossed the threshold, of `tx_in_flight`
    /// of which `lost` are lost, the last `size` bytes of both belonging to one segment.
    fn inflight_at_loss(&self, tx_in_flight: u64, lost: u64, size: u64) -> u64 {
        let inflight_prev = tx_in_flight.saturating_sub(size);
        let lost_prev = lost.saturating_sub(size);
        let tolerated = u128::from(inflight_prev) * u128::from(self.loss_threshold);
        let excess = tolerated.saturating_sub(u128::from(lost_prev) * u128::from(MILLION));
        let lost_prefix = narrow(excess / u128::from(MILLION - self.loss_threshold).max(1));
        inflight_prev.saturating_add(lost_prefix)
    }

    /// Draft §5.6.4.4 `OnEnterFastRecovery()`
    pub(super) fn begin_recovery(&mut self) {
        // Not every episode has begun with a loss: one that a probe has repaired is not reported.
        self.note_loss();
        self.repair = Repair::Fast;
        self.startup_losses.recovery_round = self.rounds.count;
    }

    // Deviation from draft §3.7: it has no response to ECN, and RFC 3168 §5 wants one like that to a loss.
    pub(super) fn handle_echo(&mut self, event: &RecoveryEntered) {
        if !self.has_filled_pipe {
            self.leave_startup_for_loss();
        } else if self.probe.is_sample {
            self.handle_inflight_too_high(event.now, event.in_flight, false);
        }
    }
}
