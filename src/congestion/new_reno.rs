//! NewReno: slow start, congestion avoidance, and halving once per recovery episode.
//!
//! Decides the window of RFC 5681 §3 from acknowledged bytes and loss events. Detecting the loss,
//! walking through partial ACKs (RFC 6582 §3.2, RFC 6675 §5) and spreading the reduction over a
//! round trip (RFC 9937) are the core's; so the window here is constant during a recovery episode
//! and already has the value with which the episode will end. The inflation of RFC 5681 §3.2 by
//! duplicate ACKs is left out on purpose: the core's `pipe` counts what they report.
//!
//! Also here: the window after idleness (RFC 5681 §4.1), no growth while the application is the
//! limit (RFC 7661 §4), the gentler answer to ECN (RFC 8511) and taking a spurious reduction
//! back (RFC 4015 §3).

use crate::congestion::{
    Acked, CongestionController, ControllerParams, IdleRestart, RecoveryEntered, RecoveryExited,
    TimedOut, Undo, WindowUnused, initial_window,
};

/// The classic window algorithm of TCP: one segment more per round trip, half after a loss.
///
/// Invariants:
/// - `mss >= 1` and `cwnd >= mss`;
/// - only a timeout, an ECN echo or the initial window can make `cwnd` smaller than two segments;
/// - `ssthresh >= 2 * mss`;
/// - `credit <= cwnd`: an ACK never buys more than one segment of congestion avoidance.
#[derive(Debug)]
pub struct NewReno {
    /// Effective send MSS in bytes.
    mss: u64,
    /// The initial window in segments; also the window after idleness.
    initial_segments: u64,
    cwnd: u64,
    ssthresh: u64,
    /// Bytes acknowledged in congestion avoidance since `cwnd` last grew.
    credit: u64,
    in_recovery: bool,
    is_paced: bool,
    /// In the slow start that follows a timeout, until `cwnd` reaches `ssthresh`.
    is_repairing: bool,
    /// The state before the latest reduction, until it is taken back.
    before_reduction: Option<Window>,
}

/// What an undo restores.
#[derive(Debug, Clone, Copy)]
struct Window {
    cwnd: u64,
    ssthresh: u64,
    credit: u64,
}

impl NewReno {
    /// Makes the controller of one connection.
    pub fn new(params: &ControllerParams) -> Self {
        let mss = params.mss.max(1);
        Self {
            mss,
            initial_segments: params.initial_window.div_ceil(mss).max(1),
            cwnd: params.initial_window.max(mss),
            // RFC 5681 §3.1: arbitrarily high, so that the network and not a guess ends slow start.
            ssthresh: u64::MAX,
            credit: 0,
            in_recovery: false,
            is_paced: params.is_paced,
            is_repairing: false,
            before_reduction: None,
        }
    }

    /// The smallest window after a loss (RFC 5681 §3.1, equation 4).
    fn min_window(&self) -> u64 {
        self.mss.saturating_mul(2)
    }

    fn remember_window(&mut self) {
        self.before_reduction = Some(Window {
            cwnd: self.cwnd,
            ssthresh: self.ssthresh,
            credit: self.credit,
        });
    }

    /// Spends `bytes` on slow start and returns what is left once `cwnd` has reached `ssthresh`.
    fn slow_start(&mut self, bytes: u64) -> u64 {
        // Deviation from RFC 5681 §3.1: not limited to one segment per ACK, because one ACK may
        // cover a whole received batch; the growth per round trip is the same.
        let step = bytes.min(self.ssthresh.saturating_sub(self.cwnd));
        self.cwnd = self.cwnd.saturating_add(step);
        bytes.saturating_sub(step)
    }

    /// RFC 5681 §3.1: one segment more once a whole window is acknowledged, which takes a round trip.
    fn avoid_congestion(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_add(bytes);
        // A round trip carries whole segments: the part of one that a halved window may end in is never sent,
        // and waiting for its acknowledgment would make the growth slower than one segment per round trip.
        let window = self.cwnd.saturating_sub(self.cwnd % self.mss).max(self.mss);
        if self.credit >= window {
            self.credit = self.credit.saturating_sub(window);
            self.cwnd = self.cwnd.saturating_add(self.mss);
        }
        self.credit = self.credit.min(self.cwnd);
    }

    #[cfg(test)]
    fn check_invariants(&self) {
        assert!(self.mss >= 1);
        assert!(
            self.cwnd >= self.mss,
            "cwnd {} below one segment of {}",
            self.cwnd,
            self.mss
        );
        assert!(
            self.ssthresh >= self.min_window(),
            "ssthresh {}",
            self.ssthresh
        );
        assert!(
            self.credit <= self.cwnd,
            "credit {} above cwnd {}",
            self.credit,
            self.cwnd
        );
    }
}

impl CongestionController for NewReno {
    fn on_acked(&mut self, event: &Acked) {
        // RFC 7661 §4: what was not used is not validated, so it must not grow.
        if event.in_recovery || !event.is_cwnd_limited {
            return;
        }
        // RFC 3465 §2.3: after a timeout, and when recovery ends, the ACK that fills a hole also covers
        // what had arrived before; only what left the network now may open the window.
        let bytes = if self.is_repairing || self.in_recovery {
            event.bytes.min(event.delivered)
        } else {
            event.bytes
        };
        if self.in_recovery {
            // RFC 6582 §3.2 step 3: the ACK that ends recovery leaves cwnd at ssthresh. What it delivered
            // counts with the next one.
            self.credit = self.credit.saturating_add(bytes).min(self.cwnd);
            return;
        }
        let rest = self.slow_start(bytes);
        if self.cwnd >= self.ssthresh {
            self.is_repairing = false;
        }
        if rest > 0 {
            self.avoid_congestion(rest);
        }
    }

    fn on_recovery_entered(&mut self, event: &RecoveryEntered) {
        if self.in_recovery {
            return;
        }
        self.in_recovery = true;
        self.remember_window();
        // RFC 5681 §3.2 step 2: what limited transmit (RFC 3042) sent beyond cwnd does not count.
        let flight_size = event.flight_size.min(self.cwnd);
        let target = if event.by_ecn && self.cwnd >= self.ssthresh {
            // RFC 8511 §3: 0.8 and not a half for an ECN echo in congestion avoidance.
            flight_size.saturating_sub(flight_size.div_ceil(5))
        } else {
            // RFC 5681 §3.1, equation 4
            flight_size / 2
        };
        self.ssthresh = target.max(self.min_window());
        self.cwnd = if event.by_ecn {
            // RFC 3168 §6.1.2: down to one segment, for as long as the echoes go on.
            target.max(self.mss)
        } else {
            self.ssthresh
        };
        self.credit = 0;
        self.is_repairing = false;
    }

    fn on_recovery_exited(&mut self, event: &RecoveryExited) {
        // RFC 6582 §3.2 step 3: cwnd ends at ssthresh, where it already is.
        self.in_recovery = false;
        if event.excess > 0 {
            // RFC 7661 §4.4.1: (max(pipeACK, LossFlightSize) - R) / 2, of which half the maximum is cwnd now.
            let target = self.cwnd.saturating_sub(event.excess.div_ceil(2));
            self.cwnd = self.cwnd.min(target.max(self.min_window()));
            self.ssthresh = self.cwnd.max(self.min_window());
            self.credit = self.credit.min(self.cwnd);
        }
    }

    fn on_timeout(&mut self, event: &TimedOut) {
        // RFC 5681 §3.1: ssthresh keeps its value when the same segment times out again.
        if event.consecutive <= 1 {
            self.remember_window();
            let target = (event.flight_size / 2).max(self.min_window());
            // Within a recovery episode ssthresh is halved already; the timeout must not raise it.
            self.ssthresh = if self.in_recovery {
                self.ssthresh.min(target)
            } else {
                target
            };
        }
        // RFC 5681 §3.1: the loss window is one segment.
        self.cwnd = self.mss;
        self.credit = 0;
        self.in_recovery = false;
        self.is_repairing = true;
    }

    fn on_undo(&mut self, event: &Undo) {
        self.in_recovery = false;
        if let Some(mut before) = self.before_reduction.take() {
            if !self.is_paced {
                before.ssthresh = before.ssthresh.max(before.cwnd);
                let initial_window = initial_window(self.mss, self.initial_segments);
                before.cwnd = event.unpaced_window(before.cwnd, initial_window);
                before.credit = before.credit.min(before.cwnd);
            }
            self.cwnd = self.cwnd.max(before.cwnd);
            self.ssthresh = self.ssthresh.max(before.ssthresh);
            self.credit = self.credit.max(before.credit);
            self.is_repairing = false;
        }
    }

    fn on_idle_restart(&mut self, _event: &IdleRestart) {
        // RFC 5681 §4.1: the restart window is min(IW, cwnd).
        self.cwnd = self
            .cwnd
            .min(initial_window(self.mss, self.initial_segments));
        self.credit = 0;
    }

    fn on_window_unused(&mut self, _event: &WindowUnused) {
        // RFC 7661 §4.4.3
        self.ssthresh = self.ssthresh.max(self.cwnd - self.cwnd / 4);
        let initial_window = initial_window(self.mss, self.initial_segments);
        let target = (self.cwnd / 2).max(initial_window).max(self.min_window());
        self.cwnd = self.cwnd.min(target);
        self.credit = self.credit.min(self.cwnd);
    }

    fn on_mss_changed(&mut self, mss: u64) {
        let mss = mss.max(1);
        // The window is in bytes and stays; only its floor moves, and a loss window remains one.
        if self.cwnd <= self.mss {
            self.cwnd = mss;
        } else {
            let floor = if self.cwnd < self.min_window() {
                mss
            } else {
                mss.saturating_mul(2)
            };
            self.cwnd = self.cwnd.max(floor);
        }
        self.mss = mss;
        self.ssthresh = self.ssthresh.max(self.min_window());
        self.credit = self.credit.min(self.cwnd);
    }

    fn name(&self) -> &'static str {
        "NewReno"
    }

    fn cwnd(&self) -> u64 {
        self.cwnd
    }

    fn ssthresh(&self) -> u64 {
        self.ssthresh
    }
}

#[cfg(test)]
mod tests;
