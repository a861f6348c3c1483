//! What a round trip has shown: how much was delivered in it and how fast, whether something was lost; and the
//! short-term model that follows from it (draft §5.5.10.3).

use super::arithmetic::{Bandwidth, narrow, percent};
use super::control::PACED;
use super::state::{PROBE_RTT_CWND, State};
use super::{BETA, Bbr, LOSS_THRESHOLD, MILLION, Sample};

/// The signals of the present round trip.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signals {
    /// `BBR.bw_latest`
    pub(super) bw_latest: Bandwidth,
    /// `BBR.inflight_latest`
    pub(super) inflight_latest: u64,
    /// The same two, had everything been sent that was not only asked for because of a gain or margin.
    bw_at_full: Bandwidth,
    inflight_at_full: u64,
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
            self.bw_at_full = at_full(sample.rate, sample.asked);
            self.inflight_at_full = scale_up(sample.delivered, sample.asked);
        }
    }

    /// `ResetCongestionSignals()`
    pub(super) fn reset(&mut self) {
        self.is_loss_in_round = false;
        self.bw_latest = Bandwidth::ZERO;
        self.inflight_latest = 0;
        self.bw_at_full = Bandwidth::ZERO;
        self.inflight_at_full = 0;
    }
}

/// How much of the known bandwidth was asked for when what is acknowledged was sent: less than all of it where
/// the state holds the rate or the window down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// The numbers of bytes delivered between which a sampled segment was sent, if its sample holds data that was
    /// held down; and to how many percent.
    held: Option<(u64, u64, u64)>,
}

impl Asked {
    /// An ACK was processed in `state`.
    pub(super) fn on_acked(&mut self, state: State, delivered: u64, in_flight: u64) {
        let percent = match state {
            State::ProbeRtt => PROBE_RTT_CWND,
            State::Startup
            | State::Drain { .. }
            | State::ProbeDown
            | State::ProbeCruise
            | State::ProbeRefill
            | State::ProbeUp => state.pacing_gain().min(100),
        };
        if percent == 100 {
            return;
        }
        let known = self.held.filter(|(.., held)| *held == percent);
        let from = known.map_or(delivered, |(from, ..)| from);
        // Until that is delivered, every sample counts some of what is in flight now.
        self.held = Some((from, delivered.saturating_add(in_flight), percent));
    }

    /// Returns it in millionths for a sample whose segment was sent when `prior_delivered` bytes were delivered.
    pub(super) fn get(&self, prior_delivered: u64) -> u64 {
        let percent = self
            .held
            .filter(|(from, to, _)| (*from..=*to).contains(&prior_delivered))
            .map_or(100, |(.., percent)| percent);
        percent * PACED * (MILLION / 10_000)
    }
}

impl Bbr {
    // Deviation from draft §2.8, where the threshold was raised: see `ConfigBuilder::bbr_loss_threshold`.
    /// Of what is asked for, what is to be delivered in millionths: all but the losses that are tolerated above
    /// the draft's threshold.
    pub(super) fn expected(&self, asked: u64) -> u64 {
        let tolerated = self.loss_threshold.saturating_sub(LOSS_THRESHOLD);
        asked.saturating_mul(MILLION.saturating_sub(tolerated)) / MILLION
    }

    /// `UpdateLatestDeliverySignals()`
    pub(super) fn update_latest_delivery_signals(&mut self, sample: &Sample) {
        let signals = &mut self.signals;
        signals.bw_latest = signals.bw_latest.max(sample.rate);
        signals.inflight_latest = signals.inflight_latest.max(sample.delivered);
        let (bw, inflight) = (
            at_full(sample.rate, sample.asked),
            scale_up(sample.delivered, sample.asked),
        );
        signals.bw_at_full = signals.bw_at_full.max(bw);
        signals.inflight_at_full = signals.inflight_at_full.max(inflight);
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
        let Signals {
            bw_latest,
            inflight_latest,
            bw_at_full,
            inflight_at_full,
            ..
        } = self.signals;
        // Deviation from draft §5.5.10.3: what was delivered is put in relation to what was asked for. The pseudo-code
        // takes it as it is, and with each round of losses sends less by the pacing margin, by a tenth after DOWN and
        // by three after ProbeRTT, however little is lost; while by its text X % of loss are to cost X %.
        bounds.bw_shortterm = bw_at_full
            .min(bounds.bw_shortterm)
            .max(bw_latest)
            .max(bounds.bw_shortterm.percent(BETA));
        bounds.inflight_shortterm = inflight_at_full
            .min(bounds.inflight_shortterm)
            .max(inflight_latest)
            .max(percent(bounds.inflight_shortterm, BETA));
    }
}

fn at_full(rate: Bandwidth, asked: u64) -> Bandwidth {
    Bandwidth::new(scale_up(rate.bytes_per_second(), asked))
}

/// The value of which `value` is so many millionths.
fn scale_up(value: u64, millionths: u64) -> u64 {
    narrow(u128::from(value) * u128::from(MILLION) / u128::from(millionths.max(1)))
}
