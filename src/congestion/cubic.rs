//! CUBIC: a window that grows by a cubic function of the time since the last reduction (RFC 9438).
//!
//! After a reduction the window first approaches the size at which the loss happened, stays near it, and
//! then probes beyond; how fast does not depend on the RTT. Where NewReno would be faster, it is followed
//! (§4.3). The first slow start ends by HyStart++ (RFC 9406).
//!
//! As with [`NewReno`](super::NewReno), detection of losses, retransmission and the spreading of a
//! reduction over a round trip are the core's.
//!
//! Windows are kept in bytes and the cubic function is evaluated in segments and seconds, as the RFC
//! writes it, in `f64`: no window that memory can hold loses precision there, and every result is clamped
//! before it becomes bytes again.

use std::time::Duration;

use super::hystart::HyStart;
use crate::Timestamp;
use crate::congestion::{
    Acked, CongestionController, ControllerParams, IdleRestart, RecoveryEntered, RecoveryExited,
    Sent, TimedOut, Undo, WindowUnused, initial_window,
};

/// RFC 9438 §4.1, §5: `C`, in segments per second cubed.
const C: f64 = 0.4;
/// RFC 9438 §4.6: `β_cubic`
const BETA: f64 = 0.7;
/// RFC 8511 §3, §5: the answer of CUBIC to an ECN echo.
const BETA_ECN: f64 = 0.85;
/// RFC 9438 §4.3: `α_cubic = 3 · (1 - β_cubic) / (1 + β_cubic)`
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// RFC 9438 §4.2: the target is at most this many times the window.
const MAX_TARGET: f64 = 1.5;

/// Largest window in segments that the curve may ask for; far above any that can be used.
const MAX_WINDOW: f64 = 1e15;

/// The window algorithm of Linux, Windows and macOS.
///
/// Invariants:
/// - `mss >= 1` and `cwnd >= mss`;
/// - only a timeout, an ECN echo or the initial window can make `cwnd` smaller than two segments;
/// - `ssthresh >= 2 * mss`;
/// - no number in the curve is infinite or not a number.
#[derive(Debug)]
pub struct Cubic {
    /// Effective send MSS in bytes.
    mss: u64,
    /// The initial window in segments; also the window after idleness.
    initial_segments: u32,
    window: Window,
    is_paced: bool,
    in_recovery: bool,
    /// The state before the latest reduction, until it is taken back.
    before_reduction: Option<Box<Window>>,
    /// Since when the application and not the window has been the limit.
    limited_since: Option<Timestamp>,
    /// Since when nothing has been in flight, until something is sent.
    idle_since: Option<Timestamp>,
}

/// Everything that a reduction changes and an undo restores (RFC 9438 §4.9).
#[derive(Debug, Clone)]
struct Window {
    cwnd: u64,
    ssthresh: u64,
    /// Bytes of growth not yet made, or if negative made ahead; less than one segment.
    credit: f64,
    /// `W_max` in segments, 0 before the first reduction.
    w_max: f64,
    /// `cwnd_prior` in segments.
    cwnd_prior: f64,
    /// The present congestion-avoidance stage, `None` in slow start and until the first ACK after it.
    epoch: Option<Epoch>,
    /// HyStart++ of the first slow start, `None` after it.
    hystart: Option<Box<HyStart>>,
    /// In the slow start that follows a timeout, until `cwnd` reaches `ssthresh`.
    is_repairing: bool,
}

impl Window {
    fn on_mss_changed(&mut self, old: u64, mss: u64) {
        // The window is in bytes and stays; only its floor moves, and a loss window remains one.
        if self.cwnd <= old {
            self.cwnd = mss;
        } else {
            let is_small = self.cwnd < old.saturating_mul(2);
            let floor = if is_small { mss } else { mss.saturating_mul(2) };
            self.cwnd = self.cwnd.max(floor);
        }
        // What is counted in segments keeps its bytes.
        let scale = real(old) / real(mss);
        self.w_max = (self.w_max * scale).min(MAX_WINDOW);
        self.cwnd_prior = (self.cwnd_prior * scale).min(MAX_WINDOW);
        self.epoch = None;
        self.credit = 0.0;
        self.ssthresh = self.ssthresh.max(mss.saturating_mul(2));
    }
}

/// A congestion-avoidance stage.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    /// `t_epoch`, moved by the time that the application was the limit (RFC 9438 §5.8).
    start: Timestamp,
    /// `W_max` of this stage in segments.
    w_max: f64,
    /// `K` in seconds.
    k: f64,
    /// `W_est` in segments (RFC 9438 §4.3).
    w_est: f64,
}

impl Epoch {
    /// Begins a stage with a window of `cwnd` segments.
    fn new(now: Timestamp, cwnd: f64, w_max: f64) -> Self {
        // RFC 9438 §4.10: after a slow start that no loss has ended, K is 0 and W_max the window.
        let w_max = w_max.max(cwnd);
        Self {
            start: now,
            w_max,
            // RFC 9438 §4.2, equation 2
            k: ((w_max - cwnd) / C).cbrt(),
            w_est: cwnd,
        }
    }

    /// RFC 9438 §4.2, equation 1: the window in segments `t` after the beginning.
    fn w_cubic(&self, t: Duration) -> f64 {
        let distance = t.as_secs_f64() - self.k;
        C * distance * distance * distance + self.w_max
    }
}

impl Cubic {
    /// Makes the controller of one connection.
    pub fn new(params: &ControllerParams) -> Self {
        let mss = params.mss.max(1);
        Self {
            mss,
            initial_segments: u32::try_from(params.initial_window.div_ceil(mss).max(1))
                .unwrap_or(u32::MAX),
            window: Window {
                cwnd: params.initial_window.max(mss),
                ssthresh: u64::MAX,
                credit: 0.0,
                w_max: 0.0,
                cwnd_prior: 0.0,
                epoch: None,
                hystart: Some(Box::new(HyStart::new(params.is_paced))),
                is_repairing: false,
            },
            is_paced: params.is_paced,
            in_recovery: false,
            before_reduction: None,
            limited_since: None,
            idle_since: None,
        }
    }

    /// The smallest window after a loss (RFC 9438 §4.6).
    fn min_window(&self) -> u64 {
        self.mss.saturating_mul(2)
    }

    fn in_segments(&self, bytes: u64) -> f64 {
        real(bytes) / real(self.mss)
    }

    /// RFC 9438 §5.8: the time since `began`, in which the window was not updated, does not move the curve.
    fn leave_out(&mut self, began: Timestamp, now: Timestamp) {
        if let Some(epoch) = &mut self.window.epoch {
            epoch.start = epoch.start + now.saturating_since(began.max(epoch.start));
        }
    }

    /// Spends `bytes` on slow start and returns what is left once `cwnd` has reached `ssthresh`.
    fn slow_start(&mut self, event: &Acked, bytes: u64) -> u64 {
        let window = &mut self.window;
        let mut growth = bytes;
        if let Some(hystart) = &mut window.hystart {
            if hystart.on_acked(event) {
                // RFC 9406 §4.2: congestion avoidance begins here.
                window.ssthresh = window.cwnd.max(self.mss.saturating_mul(2));
                window.hystart = None;
                // RFC 9438 §4.10
                window.cwnd_prior = real(window.cwnd) / real(self.mss);
                return bytes;
            }
            growth = hystart.growth(bytes, self.mss);
        }
        // Deviation from RFC 5681 §3.1: not limited to one segment per ACK, because one ACK may cover a
        // whole received batch; the growth per round trip is the same.
        let step = growth.min(window.ssthresh.saturating_sub(window.cwnd));
        window.cwnd = window.cwnd.saturating_add(step);
        growth.saturating_sub(step)
    }

    /// RFC 9438 §4.2 to §4.5: `bytes` were acknowledged in congestion avoidance.
    fn avoid_congestion(&mut self, event: &Acked, bytes: u64) {
        // With the growth that is not made yet, or what W_est is ahead would be counted with every ACK.
        let cwnd = self.in_segments(self.window.cwnd) + self.window.credit / real(self.mss);
        let acked = self.in_segments(bytes);
        let Window {
            w_max, cwnd_prior, ..
        } = self.window;
        let epoch = self
            .window
            .epoch
            .get_or_insert_with(|| Epoch::new(event.now, cwnd, w_max));

        // RFC 9438 §4.3, equation 4: as fast as Reno once the window from before the reduction is reached.
        let alpha = if epoch.w_est >= cwnd_prior {
            1.0
        } else {
            ALPHA
        };
        epoch.w_est = (epoch.w_est + alpha * acked / cwnd).min(MAX_WINDOW);

        let t = event.now.saturating_since(epoch.start);
        let growth = if epoch.w_cubic(t) < epoch.w_est {
            // The Reno-friendly region.
            epoch.w_est - cwnd
        } else {
            // RFC 9438 §4.4, §4.5: over the next round trip the window moves to where the curve will be.
            let target = epoch.w_cubic(t.saturating_add(event.rtt.srtt));
            (target.clamp(cwnd, MAX_TARGET * cwnd) - cwnd) * acked / cwnd
        };
        // No ACK buys more than half of itself: the curve is a rate over a round trip (RFC 9438 §4.2).
        let growth = growth.clamp(0.0, (MAX_TARGET - 1.0) * acked.max(1.0)) * real(self.mss);
        let window = &mut self.window;
        let credit = window.credit + growth;
        // To whole segments, the nearest: a part of one is never sent, and that which a reduction left counts
        // towards the next.
        let nearest = whole(credit + real(self.mss) / 2.0);
        let total = window.cwnd.saturating_add(nearest);
        let step = (total - total % self.mss).saturating_sub(window.cwnd);
        window.credit = credit - real(step);
        window.cwnd = window.cwnd.saturating_add(step);
    }

    /// RFC 9438 §4.6, §4.7: the threshold that remains of `flight_size`, in bytes before its lower bound.
    fn reduce(&mut self, flight_size: u64, beta: f64) -> u64 {
        // With the growth that is not made yet.
        let cwnd = self.in_segments(self.window.cwnd) + self.window.credit / real(self.mss);
        let w_max = self.window.w_max;
        self.window.cwnd_prior = cwnd;
        // RFC 9438 §4.7: a window that did not reach the last peak makes room for others.
        // Deviation from RFC 9438 §4.7: one that is less than a segment short of the peak has reached it, because the
        // curve nears it by less and less, and a part of a segment is never sent.
        self.window.w_max = if cwnd + 1.0 <= w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        let target = whole(real(flight_size) * beta);
        self.window.ssthresh = target.max(self.min_window());
        self.window.epoch = None;
        self.window.credit = 0.0;
        self.window.hystart = None;
        self.window.is_repairing = false;
        target
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        let window = &self.window;
        assert!(window.cwnd >= self.mss, "cwnd {}", window.cwnd);
        assert!(window.ssthresh >= self.min_window());
        assert!(window.credit.abs() <= real(self.mss), "{window:?}");
        let mut numbers = vec![window.w_max, window.cwnd_prior];
        if let Some(epoch) = window.epoch {
            numbers.extend([epoch.k, epoch.w_est, epoch.w_max]);
        }
        assert!(
            numbers.iter().all(|n| n.is_finite() && *n >= 0.0),
            "{window:?}"
        );
    }
}

impl CongestionController for Cubic {
    fn on_acked(&mut self, event: &Acked) {
        // The ACK that ends recovery leaves cwnd at ssthresh (RFC 6582 §3.2 step 3).
        if self.in_recovery || event.in_recovery {
            return;
        }
        if event.in_flight == 0 {
            self.idle_since = Some(event.now);
        }
        // RFC 7661 §4: what was not used is not validated, so it must not grow.
        if !event.is_cwnd_limited {
            self.limited_since.get_or_insert(event.now);
            return;
        }
        if let Some(since) = self.limited_since.take() {
            self.leave_out(since, event.now);
        }
        // RFC 3465 §2.3: after a timeout, the ACK that fills a hole also covers what had arrived
        // before; only what left the network now may open the window.
        let bytes = if self.window.is_repairing {
            event.bytes.min(event.delivered)
        } else {
            event.bytes
        };
        let rest = if self.window.cwnd < self.window.ssthresh {
            self.slow_start(event, bytes)
        } else {
            bytes
        };
        if self.window.cwnd >= self.window.ssthresh {
            self.window.is_repairing = false;
            if rest > 0 {
                self.avoid_congestion(event, rest);
            }
        }
    }

    fn on_sent(&mut self, event: &Sent) {
        // Where the application is known to be the limit, that time is left out as a whole.
        if let Some(since) = self.idle_since.take()
            && self.limited_since.is_none()
        {
            self.leave_out(since, event.now);
        }
    }

    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        if self.in_recovery {
            return;
        }
        self.in_recovery = true;
        self.before_reduction = Some(Box::new(self.window.clone()));
        // RFC 5681 §3.2 step 2: what limited transmit (RFC 3042) sent beyond cwnd does not count.
        let flight_size = event.flight_size.min(self.window.cwnd);
        let is_gentle = event.by_ecn && self.window.cwnd >= self.window.ssthresh;
        let target = self.reduce(flight_size, if is_gentle { BETA_ECN } else { BETA });
        self.window.cwnd = if event.by_ecn {
            // RFC 9438 §4.6: down to one segment, for as long as the echoes go on.
            target.max(self.mss)
        } else {
            self.window.ssthresh
        };
    }

    fn on_recovery_exited(&mut self, event: &RecoveryExited) {
        self.in_recovery = false;
        if event.excess > 0 {
            // RFC 7661 §4.4.1, with the part of it that CUBIC keeps.
            let excess = whole(real(event.excess) * BETA);
            let target = self.window.cwnd.saturating_sub(excess);
            self.window.cwnd = self.window.cwnd.min(target.max(self.min_window()));
            self.window.ssthresh = self.window.cwnd.max(self.min_window());
        }
    }

    fn on_timeout(&mut self, event: &TimedOut) {
        // RFC 5681 §3.1: ssthresh keeps its value when the same segment times out again.
        if event.consecutive <= 1 {
            self.before_reduction = Some(Box::new(self.window.clone()));
            let ssthresh = self.window.ssthresh;
            self.reduce(event.flight_size, BETA);
            if self.in_recovery {
                // The episode has reduced it already; the timeout must not raise it.
                self.window.ssthresh = ssthresh.min(self.window.ssthresh);
            }
        }
        // RFC 9438 §4.8: the curve begins anew where the next slow start ends, with K = 0.
        self.window.w_max = 0.0;
        self.window.epoch = None;
        self.window.hystart = None;
        // RFC 5681 §3.1: the loss window is one segment.
        self.window.cwnd = self.mss;
        self.window.credit = 0.0;
        self.window.is_repairing = true;
        self.in_recovery = false;
    }

    fn on_undo(&mut self, event: &Undo) {
        self.in_recovery = false;
        // RFC 9438 §4.9.2: a window that has grown beyond it meanwhile stays, and its curve.
        if let Some(mut before) = self.before_reduction.take()
            && self.window.cwnd < before.cwnd
        {
            if !self.is_paced {
                before.ssthresh = before.ssthresh.max(before.cwnd);
                let initial_window = initial_window(self.mss, self.initial_segments.into());
                let cwnd = event.unpaced_window(before.cwnd, initial_window);
                before.cwnd = self.window.cwnd.max(cwnd);
                before.credit = 0.0;
            }
            self.window = *before;
        }
    }

    fn on_idle_restart(&mut self, _event: &IdleRestart) {
        // RFC 5681 §4.1: the restart window is min(IW, cwnd).
        let restart = initial_window(self.mss, self.initial_segments.into());
        self.window.cwnd = self.window.cwnd.min(restart);
        self.window.epoch = None;
        self.window.credit = 0.0;
        self.limited_since = None;
        self.idle_since = None;
    }

    fn on_window_unused(&mut self, _event: &WindowUnused) {
        // RFC 7661 §4.4.3
        let initial_window = initial_window(self.mss, self.initial_segments.into());
        let floor = initial_window.max(self.min_window());
        let window = &mut self.window;
        window.ssthresh = window.ssthresh.max(window.cwnd - window.cwnd / 4);
        window.cwnd = window.cwnd.min((window.cwnd / 2).max(floor));
        window.epoch = None;
        window.credit = 0.0;
    }

    fn on_mss_changed(&mut self, mss: u64) {
        let mss = mss.max(1);
        self.window.on_mss_changed(self.mss, mss);
        // The second timeout makes the segments smaller, and may prove spurious as the first.
        if let Some(before) = &mut self.before_reduction {
            before.on_mss_changed(self.mss, mss);
        }
        self.mss = mss;
    }

    fn name(&self) -> &'static str {
        "CUBIC"
    }

    fn phase(&self) -> &'static str {
        match &self.window.hystart {
            Some(hystart) if hystart.is_conservative() => "conservative slow start",
            _ if self.window.cwnd < self.window.ssthresh => "slow start",
            _ => "congestion avoidance",
        }
    }

    fn cwnd(&self) -> u64 {
        self.window.cwnd
    }

    fn ssthresh(&self) -> u64 {
        self.window.ssthresh
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "of a window beyond 2^53 bytes the last digits do not matter"
)]
fn real(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion rounds down and saturates, which is what a window needs"
)]
fn whole(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests;
