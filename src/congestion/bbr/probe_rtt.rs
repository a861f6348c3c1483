//! The smallest RTT, and `ProbeRTT`, which empties the queue to see it (draft §5.3.4, §5.5.7).

use std::time::Duration;

use super::probe_bw::AckPhase;
use super::state::State;
use super::{Bbr, Sample};
use crate::Timestamp;

/// Draft §2.16.1 `BBR.MinRTTFilterLen`
const MIN_RTT_MEMORY: Duration = Duration::from_secs(10);
/// Draft §2.16.2 `BBR.ProbeRTTInterval`
const INTERVAL: Duration = Duration::from_secs(5);
/// Draft §2.16.2 `BBR.ProbeRTTDuration`
const DURATION: Duration = Duration::from_millis(200);

/// `BBR.min_rtt` and what it is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct MinRtt {
    /// `BBR.min_rtt`
    value: Option<Duration>,
    /// `BBR.min_rtt_stamp`
    stamp: Timestamp,
    /// `BBR.probe_rtt_min_delay`: the smallest since the latest `ProbeRTT`.
    recent: Option<Duration>,
    /// `BBR.probe_rtt_min_stamp`
    recent_stamp: Timestamp,
    /// `BBR.probe_rtt_expired`
    is_expired: bool,
}

impl MinRtt {
    pub(super) const fn new(now: Timestamp, initial: Option<Duration>) -> Self {
        Self {
            value: initial,
            stamp: now,
            recent: initial,
            recent_stamp: now,
            is_expired: false,
        }
    }

    /// Returns `BBR.min_rtt`, `None` before the first sample.
    pub(super) const fn get(&self) -> Option<Duration> {
        self.value
    }

    /// `UpdateMinRTT()`
    pub(super) fn on_acked(&mut self, now: Timestamp, rtt: Option<Duration>) {
        self.is_expired = now.saturating_since(self.recent_stamp) > INTERVAL;
        if let Some(rtt) = rtt
            && (self.is_expired || self.recent.is_none_or(|recent| rtt < recent))
        {
            self.recent = Some(rtt);
            self.recent_stamp = now;
        }
        let Some(recent) = self.recent else {
            return;
        };
        let is_forgotten = now.saturating_since(self.stamp) > MIN_RTT_MEMORY;
        if is_forgotten || self.value.is_none_or(|value| recent < value) {
            self.value = Some(recent);
            self.stamp = self.recent_stamp;
        }
    }
}

/// The course of `ProbeRTT`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProbeRtt {
    /// `BBR.probe_rtt_done_stamp`
    done_at: Option<Timestamp>,
    /// `BBR.probe_rtt_round_done`
    is_round_done: bool,
    /// Of what is sent while so many bytes are delivered, `ProbeRTT` limits the rate.
    limited: Option<(u64, u64)>,
}

impl ProbeRtt {
    /// `MarkConnectionAppLimited()`, kept here, for only this controller's samples are meant.
    fn limit(&mut self, delivered: u64, in_flight: u64) {
        let from = self.limited.map_or(delivered, |(from, _)| from);
        self.limited = Some((from, delivered.saturating_add(in_flight)));
    }

    /// Says whether what was sent when `prior_delivered` bytes were delivered was limited by `ProbeRTT`.
    pub(super) fn has_limited(&self, prior_delivered: u64) -> bool {
        self.limited
            .is_some_and(|(from, to)| (from..=to).contains(&prior_delivered))
    }
}

impl Bbr {
    /// `CheckProbeRTT()`
    pub(super) fn check_probe_rtt(&mut self, sample: &Sample) {
        if self.state != State::ProbeRtt && self.min_rtt.is_expired && !self.is_restarting {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt = ProbeRtt::default();
            self.probe.ack_phase = AckPhase::Stopping;
            self.rounds.restart(self.delivered);
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(sample.now);
        }
        if sample.delivered > 0 {
            self.is_restarting = false;
        }
    }

    /// `HandleProbeRTT()`
    fn handle_probe_rtt(&mut self, now: Timestamp) {
        self.probe_rtt.limit(self.delivered, self.in_flight);
        if self.probe_rtt.done_at.is_none() {
            if self.in_flight <= self.probe_rtt_cwnd() {
                self.probe_rtt.done_at = Some(now + DURATION);
                self.probe_rtt.is_round_done = false;
                self.rounds.restart(self.delivered);
            }
            return;
        }
        self.probe_rtt.is_round_done |= self.rounds.is_start;
        if self.probe_rtt.is_round_done {
            self.check_probe_rtt_done(now);
        }
    }

    /// `CheckProbeRTTDone()`
    pub(super) fn check_probe_rtt_done(&mut self, now: Timestamp) {
        if self.probe_rtt.done_at.is_none_or(|done_at| now <= done_at) {
            return;
        }
        self.probe_rtt.done_at = None;
        self.min_rtt.recent_stamp = now;
        self.restore_cwnd();
        // `ExitProbeRTT()`
        self.bounds.reset_shortterm();
        if self.has_filled_pipe {
            self.start_probe_down(now);
            self.start_probe_cruise();
        } else {
            self.enter_startup();
        }
    }
}
