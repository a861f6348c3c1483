//! What a round trip has shown: how much was delivered in it and how fast, whether something was lost; and the
//! short-term model that follows from it (draft §5.5.10.3).

use super::arithmetic::{Bandwidth, percent};
use super::{BETA, Bbr, Sample};

/// The signals of the present round trip.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signals {
    /// `BBR.bw_latest`
    pub(super) bw_latest: Bandwidth,
    /// `BBR.inflight_latest`
    pub(super) inflight_latest: u64,
    /// `BBR.loss_round_delivered`
    pub(super) loss_round_delivered: u64,
    /// `BBR.loss_round_start`
    pub(super) is_loss_round_start: bool,
    /// `BBR.is_loss_in_round`
    pub(super) is_loss_in_round: bool,
}

impl Signals {
    /// `AdvanceLatestDeliverySignals()`
    pub(super) fn advance(&mut self, sample: &Sample) {
        if self.is_loss_round_start {
            self.bw_latest = sample.rate;
            self.inflight_latest = sample.delivered;
        }
    }

    /// `ResetCongestionSignals()`
    pub(super) fn reset(&mut self) {
        self.is_loss_in_round = false;
        self.bw_latest = Bandwidth::ZERO;
        self.inflight_latest = 0;
    }
}

impl Bbr {
    /// `UpdateLatestDeliverySignals()`
    pub(super) fn update_latest_delivery_signals(&mut self, sample: &Sample) {
        let signals = &mut self.signals;
        signals.bw_latest = signals.bw_latest.max(sample.rate);
        signals.inflight_latest = signals.inflight_latest.max(sample.delivered);
        signals.is_loss_round_start = sample
            .prior_delivered
            .is_some_and(|prior| prior >= signals.loss_round_delivered);
        if signals.is_loss_round_start {
            signals.loss_round_delivered = self.delivered;
        }
    }

    /// `UpdateCongestionSignals()`
    pub(super) fn update_congestion_signals(&mut self, sample: &Sample) {
        self.update_max_bw(sample);
        if !self.signals.is_loss_round_start {
            return;
        }
        // `AdaptLowerBoundsFromCongestion()`
        if self.signals.is_loss_in_round && !self.state.is_probing() {
            self.lower_shortterm();
        }
        self.signals.is_loss_in_round = false;
    }

    /// `UpdateMaxBw()`
    fn update_max_bw(&mut self, sample: &Sample) {
        self.rounds.on_acked(sample.prior_delivered, self.delivered);
        if self.rounds.is_start {
            self.usage.on_round();
        }
        if sample.rate > Bandwidth::ZERO
            && (sample.rate >= self.max_bw.get() || !sample.is_app_limited)
        {
            self.max_bw.take(sample.rate);
        }
    }

    /// `InitLowerBounds()` and `LossLowerBounds()`
    fn lower_shortterm(&mut self) {
        let bounds = &mut self.bounds;
        if bounds.bw_shortterm == Bandwidth::INFINITE {
            bounds.bw_shortterm = self.max_bw.get();
        }
        if bounds.inflight_shortterm == u64::MAX {
            bounds.inflight_shortterm = self.cwnd;
        }
        let signals = &self.signals;
        bounds.bw_shortterm = (signals.bw_latest).max(bounds.bw_shortterm.percent(BETA));
        bounds.inflight_shortterm =
            (signals.inflight_latest).max(percent(bounds.inflight_shortterm, BETA));
    }
}
