//! The timer of loss recovery: what is waited for, and what its expiry does (RFC 8985 §8).

use std::time::Duration;

use super::ack::Delivery;
use super::losses::Losses;
use super::rack::Rack;
use super::scoreboard::Piece;
use super::tlp::{Outstanding, Tlp};
use super::undo::Episode;
use super::{Phase, Recovery};
use crate::Timestamp;
use crate::congestion::TimedOut;
use crate::connection::Offset;

/// What an expiry of the timer means; at any time one of them is waited for (RFC 8985 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryTimer {
    /// The retransmission timeout: [`Recovery::on_rto`].
    Timeout,
    /// What was overtaken counts as lost: [`Recovery::on_reordering_timeout`].
    Reordering,
    /// The tail of what was sent is to be probed: [`Recovery::on_probe_timeout`].
    Probe,
}

impl Recovery {
    /// The retransmission timer expired. Does nothing but double the RTO while nothing is outstanding.
    pub fn on_rto(&mut self, now: Timestamp) {
        // RFC 6298 §5.5
        self.rto.on_expired();
        self.counters.get_or_insert_default().rto_count += 1;
        let flight_size = self.flight_size();
        if flight_size == 0 {
            self.rto.stop();
            return;
        }
        let snapshot = self.rate.on_sent(now, self.pipe(), false);
        let reneged = self.scoreboard.forget_reneged(snapshot);
        if reneged > 0 {
            self.counters.get_or_insert_default().reneging_count += 1;
        }
        self.counted_ahead += reneged;
        self.duplicates.reset();
        self.limited_transmit = 0;
        self.mark_timed_out(now, reneged > 0);
        self.reset_probe();
        let was_in_recovery = self.is_in_recovery();
        let (snd_una, snd_nxt) = (self.snd_una(), self.snd_nxt());
        self.frto.on_timeout(snd_una, snd_nxt, was_in_recovery);

        let recovery_point = self.snd_nxt();
        self.phase = Phase::Loss { recovery_point };
        self.ecn.on_reduced(recovery_point);
        self.ecn.on_flight_lost(snd_una, snd_nxt);
        self.recover = Some(recovery_point);
        self.owes_retransmission = true;
        self.owes_episode = false;
        self.usage.on_timeout();
        let consecutive = self.rto.consecutive();
        // The controller keeps the window from before the first of several timeouts.
        if consecutive <= 1 {
            self.episode = Some(Box::new(Episode::new(true)));
        }
        self.controller.on_timeout(&TimedOut {
            now,
            flight_size,
            in_flight: self.pipe(),
            consecutive,
        });
        // RFC 6298 §5.6
        self.rto.restart(now);
        tracing::debug!(flight_size, consecutive, rto = ?self.rto.current(), "timeout");
    }

    /// The peer, which had drawn its window back from what is outstanding and so refused it (RFC 9293
    /// §3.8.6), has opened it again: what timed out meanwhile need not wait for the backed-off timer. Once per
    /// expiry, so that a window that flaps buys no retransmissions.
    pub fn on_window_restored(&mut self, now: Timestamp) {
        if self.flight_size() == 0 || !self.rto.end_backoff() {
            return;
        }
        let mss = self.mss;
        let mut losses = Losses::new(self, now);
        losses.scoreboard.mark_head_lost(mss, &mut |piece| {
            losses.report.on_lost(piece);
        });
        self.owes_retransmission = true;
        self.rto.restart(now);
    }

    /// RFC 8985 §6.3: of what is outstanding, the first segment is lost, and what was sent too long ago.
    /// Everything is where nothing tells the one from the other, or where the peer has discarded data.
    fn mark_timed_out(&mut self, now: Timestamp, has_reneged: bool) {
        let reo_wnd = self.reo_wnd().unwrap_or_default();
        let mss = self.mss;
        let Losses {
            scoreboard,
            rack,
            mut report,
        } = Losses::new(self, now);
        let mut visit = |piece: &Piece| {
            report.on_lost(piece);
        };
        match rack {
            Some(rack) if !has_reneged => {
                scoreboard.mark_head_lost(mss, &mut visit);
                rack.on_timeout(now, reo_wnd, scoreboard, &mut visit);
            }
            Some(rack) => {
                scoreboard.mark_all_lost(&mut visit);
                rack.on_nothing_in_flight();
            }
            None => scoreboard.mark_all_lost(&mut visit),
        }
    }

    /// The reordering timer expired: what was overtaken and is late now counts as lost (RFC 8985 §6.2,
    /// step 5).
    pub fn on_reordering_timeout(&mut self, now: Timestamp) {
        if self.flight_size() > 0 {
            // RFC 8985 §8: while this timer ran, it stood in place of the retransmission timer.
            self.rto.restart(now);
        }
        if self.mark_by_time(now) {
            self.owes_retransmission = true;
            if matches!(self.phase, Phase::Open | Phase::Cwr { .. }) {
                self.enter_recovery(now, &Delivery::default());
            }
        } else {
            // An undo has left the timer to what has arrived since; it kept the probe from being scheduled.
            self.schedule_probe(now);
        }
    }

    /// The probe timer expired (RFC 8985 §7.3).
    pub fn on_probe_timeout(&mut self, now: Timestamp) {
        let flight_size = self.flight_size();
        if let Some(tlp) = &mut self.tlp {
            tlp.on_expired();
            if flight_size > 0 {
                // RFC 8985 §7.3: whether a probe can be sent or not.
                self.rto.restart(tlp.timeout_from(now));
            }
        }
    }

    /// Says whether a tail loss probe is due: the next transmission is one, whatever the congestion window
    /// and the pacer say.
    pub fn is_probe_due(&self) -> bool {
        self.tlp.as_ref().is_some_and(Tlp::is_due)
    }

    /// Returns when to call back and what for, `None` if and only if nothing is outstanding.
    pub fn timer(&self) -> Option<(Timestamp, RecoveryTimer)> {
        let late = self.rack.as_ref().and_then(Rack::deadline);
        // RFC 8985 §8: the timers exclude each other. This one takes the least time, and what it finds out
        // would otherwise be taken for a timeout.
        let probe = self.tlp.as_ref().and_then(Tlp::deadline);
        late.map(|deadline| (deadline, RecoveryTimer::Reordering))
            .or_else(|| Some((probe?, RecoveryTimer::Probe)))
            .or_else(|| Some((self.rto_deadline()?, RecoveryTimer::Timeout)))
    }

    /// Returns when the retransmission timer expires, `None` if and only if nothing is outstanding.
    pub fn rto_deadline(&self) -> Option<Timestamp> {
        self.rto.deadline()
    }

    /// Returns the retransmission timeout with its back-off.
    pub fn current_rto(&self) -> Duration {
        self.rto.current()
    }

    /// Returns how often the timer expired since `snd_una` last moved.
    pub fn consecutive_timeouts(&self) -> u32 {
        self.rto.consecutive()
    }

    /// RFC 8985 §7.2: starts the probe timer anew, or stops it if something else will tell of losses.
    pub(super) fn schedule_probe(&mut self, now: Timestamp) {
        let flight_size = self.flight_size();
        let tail = self.has_sent_all.then_some(&self.scoreboard);
        let tail_since = tail.and_then(|tail| Some(tail.head()?.sent_at));
        // RFC 8985 §7.2 wants nothing to be SACKed, for then the reordering timer runs. It does not after an
        // undo, which takes it that everything is still on its way.
        let is_watched = self
            .rack
            .as_ref()
            .is_some_and(|rack| rack.deadline().is_some());
        let is_undisturbed = matches!(self.phase, Phase::Open | Phase::Cwr { .. });
        let is_quiet = is_undisturbed && !is_watched && !self.scoreboard.has_lost();
        let Some(tlp) = &mut self.tlp else {
            return;
        };
        match self.rto.deadline() {
            Some(rto_deadline) if is_quiet && flight_size > 0 => tlp.schedule(
                now,
                &self.rtt,
                &Outstanding {
                    sent_at: self.last_sent_at.unwrap_or(now),
                    tail_since,
                    flight_size,
                    mss: self.mss,
                    rto_deadline,
                },
            ),
            Some(_) | None => tlp.cancel(),
        }
    }

    /// Says whether that is known.
    pub fn has_sent_all(&self) -> bool {
        self.has_sent_all
    }

    /// Everything that was written is sent: what is outstanding is a tail, until more is written.
    pub fn on_all_sent(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.has_sent_all, true) {
            self.schedule_probe(now);
            self.release_memory();
        }
    }

    /// A transmission was made, of new data or again up to `resent`: if a probe was due, that was it.
    pub(super) fn note_probe(&mut self, now: Timestamp, resent: Option<Offset>) {
        let (end, flight_size) = (self.snd_nxt(), self.flight_size());
        if let Some(tlp) = &mut self.tlp
            && tlp.on_sent(end, resent, flight_size)
        {
            self.counters.get_or_insert_default().tlp_count += 1;
            // RFC 8985 §7.3
            self.rto.restart(tlp.timeout_from(now));
        }
    }

    pub(super) fn reset_probe(&mut self) {
        if let Some(tlp) = &mut self.tlp {
            tlp.reset();
        }
    }
}
