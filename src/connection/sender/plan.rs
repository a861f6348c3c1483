//! What to send now: retransmissions first, then new data, then a probe of a closed window.

use std::ops::Range;

use super::window::{Demand, Verdict, verdict};
use super::{Blocked, Probe, Sender};
use crate::Timestamp;
use crate::connection::Offset;

/// Bytes that the peer has to have acknowledged before the path is probed, an initial window (RFC 6928 §2): what is done after so little
/// gains nothing by larger segments, and must not wait for the repair of a probe that is lost.
const UNPROBED: u64 = 14_600;
/// How many times a probe of the path's MTU the windows have to hold: the other half keeps data flowing.
const MIN_PROBED_WINDOW: u64 = 2;

/// What is to be done about a probe of the path's MTU.
enum PathProbe {
    /// There is none to be sent now.
    No,
    /// It goes as soon as there is room, and nothing new before it.
    Waits(Blocked),
    /// It goes.
    Goes(Range<Offset>),
}

/// What to put into the next run of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Bytes (or the FIN) that were declared lost; at most one segment.
    Retransmit(Range<Offset>),
    /// Data never sent before, in segments of the size asked about; includes the FIN's number if the
    /// range reaches beyond the last byte.
    New(Range<Offset>),
    /// Data never sent before, in one segment larger than the path is known to carry (RFC 4821 §10.1).
    PathProbe(Range<Offset>),
    /// One byte beyond a closed window (RFC 9293 §3.8.6.1).
    Probe(Range<Offset>),
}

impl Sender {
    /// Says what to send next, in segments of at most `payload_max` bytes and at most `max_segments`.
    pub fn plan(&mut self, now: Timestamp, payload_max: u64, max_segments: usize) -> Option<Plan> {
        self.payload_max = payload_max;
        if self.recovery.is_probe_due()
            && let Some(plan) = self.plan_tail_probe(payload_max)
        {
            return Some(plan);
        }
        if self.recovery.new_data_wanted() >= payload_max {
            // RFC 5682 §2.1, step 2b. What SACK blocks have taken of its segments is not wanted any more.
            let plan = self.plan_new(now, payload_max, max_segments);
            if plan.is_some() || matches!(self.blocked, Blocked::Pacing(_)) {
                return plan;
            }
            self.recovery.on_no_new_data();
        }
        if let Some(range) = self.recovery.next_retransmission(payload_max) {
            let len = range.end.saturating_since(range.start);
            let is_fin_only = self.fin() == Some(range.start);
            if !is_fin_only && let Some(deadline) = self.recovery.pacing_deadline(now, self.mss) {
                self.blocked = Blocked::Pacing(deadline);
                return self.plan_bare_fin();
            }
            if is_fin_only || self.recovery.send_allowance(now) >= len.min(self.mss) {
                return Some(Plan::Retransmit(range));
            }
            self.blocked = Blocked::Congestion;
            return self.plan_bare_fin();
        }
        match self.plan_path_probe(now) {
            PathProbe::No => {}
            PathProbe::Waits(blocked) => {
                self.blocked = blocked;
                return None;
            }
            PathProbe::Goes(range) => {
                self.blocked = Blocked::No;
                return Some(Plan::PathProbe(range));
            }
        }
        if let Some(plan) = self.plan_new(now, payload_max, max_segments) {
            return Some(plan);
        }
        // RFC 6675 §4, NextSeg rule 3: nothing else can be sent, but ACKs have to keep coming.
        let is_idle = matches!(self.blocked, Blocked::No | Blocked::Window | Blocked::Nagle);
        let range = self.recovery.next_speculative_retransmission(payload_max)?;
        let may_go = is_idle
            && self.recovery.send_allowance(now) >= self.mss
            && self.recovery.pacing_deadline(now, self.mss).is_none();
        may_go.then_some(Plan::Retransmit(range))
    }

    /// RFC 8985 §7.3: one segment of new data if the peer has room for it, else the last one again.
    fn plan_tail_probe(&self, payload_max: u64) -> Option<Plan> {
        let (snd_nxt, end) = (self.snd_nxt(), self.buffer.end());
        let len = end.saturating_since(snd_nxt).min(payload_max);
        if len > 0 && self.usable() >= len {
            let mut range = snd_nxt..snd_nxt + len;
            if self.is_finished && range.end == end {
                range.end += 1;
            }
            return Some(Plan::New(range));
        }
        let run = self.recovery.last_run()?;
        let data_end = end.min(run.end);
        let len = data_end.saturating_since(run.start);
        let tail = if len > 0 {
            (len - 1) % payload_max.max(1) + 1
        } else {
            // The FIN left alone. What precedes it goes along, for SACK reports no FIN.
            payload_max
        };
        let start = data_end.saturating_back(tail).max(self.snd_una());
        Some(Plan::Retransmit(start..run.end))
    }

    /// Says whether the probe of the path's MTU goes that is wanted, if one is (RFC 4821 §7.4).
    fn plan_path_probe(&mut self, now: Timestamp) -> PathProbe {
        let Some(payload) = self.path_probe.map(u64::from) else {
            return PathProbe::No;
        };
        let (snd_nxt, wnd) = (self.snd_nxt(), self.window.wnd());
        if self.snd_una().saturating_since(Offset::FIRST) < UNPROBED {
            return PathProbe::No;
        }
        // Something has to follow it, or nobody would miss it soon.
        let has_data = self.buffer.end().saturating_since(snd_nxt) > payload;
        if !has_data || !self.recovery.may_probe_path() {
            return PathProbe::No;
        }
        let is_idle = self.recovery.flight_size() == 0;
        if is_idle {
            self.recovery.on_idle(now);
        }
        // A window of few segments would pass on with pauses, and without the ACKs that tell of a loss.
        let cwnd = self.recovery.controller().cwnd();
        let least = payload.saturating_mul(MIN_PROBED_WINDOW);
        if cwnd.min(wnd) < least || self.window.max_wnd() < least * 2 {
            return PathProbe::No;
        }
        // As segments leave one by one as others arrive, there would never be room for a larger one.
        if self.usable() < payload {
            return if is_idle {
                PathProbe::No
            } else {
                PathProbe::Waits(Blocked::Window)
            };
        }
        if self.recovery.send_allowance(now) < payload {
            return PathProbe::Waits(Blocked::Congestion);
        }
        if let Some(deadline) = self.recovery.pacing_deadline(now, self.mss) {
            return PathProbe::Waits(Blocked::Pacing(deadline));
        }
        PathProbe::Goes(snd_nxt..snd_nxt + payload)
    }

    fn plan_new(&mut self, now: Timestamp, payload_max: u64, max_segments: usize) -> Option<Plan> {
        let snd_nxt = self.snd_nxt();
        let end = self.buffer.end();
        let unsent = end.saturating_since(snd_nxt);
        if unsent == 0 {
            self.recovery.on_all_sent(now);
            self.blocked = Blocked::No;
            self.persist.stop();
            let fin = self.plan_bare_fin();
            if fin.is_none() && self.recovery.send_allowance(now) > 0 {
                self.recovery.on_app_limited(now);
            }
            return fin;
        }
        let outstanding = self.recovery.flight_size() > 0;
        if !outstanding {
            self.recovery.on_idle(now);
        }
        let usable = self.usable();
        let decision = verdict(&Demand {
            unsent,
            usable,
            mss: payload_max,
            max_wnd: self.window.max_wnd(),
            small_outstanding: self.small_end > self.snd_una(),
            outstanding,
            is_pushed: self.nodelay || self.is_finished || self.push_point >= end,
        });
        let wanted = match decision {
            Verdict::Send(bytes) => bytes,
            Verdict::Empty => return None,
            Verdict::HeldByNagle => {
                self.blocked = Blocked::Nagle;
                self.recovery.on_app_limited(now);
                return None;
            }
            Verdict::Closed => return self.plan_probe(now, unsent.min(usable), outstanding),
        };
        self.persist.stop();
        let allowance = self.recovery.send_allowance(now);
        if allowance >= payload_max.min(wanted)
            && let Some(deadline) = self.recovery.pacing_deadline(now, wanted.min(allowance))
        {
            self.blocked = Blocked::Pacing(deadline);
            return None;
        }
        let burst = self.recovery.pacing_budget(now) / payload_max.max(1);
        let most = payload_max.saturating_mul(burst.clamp(1, max_segments as u64));
        let mut len = wanted.min(most);
        if len > allowance {
            len = allowance - allowance % payload_max.max(1);
            self.blocked = Blocked::Congestion;
            if len == 0 {
                return None;
            }
        } else {
            self.blocked = Blocked::No;
        }
        let mut range = snd_nxt..snd_nxt + len;
        if self.is_finished && range.end == end {
            range.end += 1;
        }
        Some(Plan::New(range))
    }

    /// The FIN alone, if it is next, waits for no window, congestion or pacing, nor for what is to be sent again.
    fn plan_bare_fin(&self) -> Option<Plan> {
        let end = self.buffer.end();
        (self.is_finished && self.snd_nxt() == end).then(|| Plan::New(end..end + 1))
    }

    /// The window is closed: asks for a probe if one is due, else sees that the timer runs.
    fn plan_probe(&mut self, now: Timestamp, fits: u64, outstanding: bool) -> Option<Plan> {
        self.blocked = Blocked::Window;
        if outstanding {
            return None;
        }
        let start = self.snd_nxt();
        if self.probe == Probe::Due {
            // RFC 9293 §3.8.6.2.1 (4): the override timeout sends what fits, however little.
            let is_override = fits > 0;
            return Some(if is_override {
                Plan::New(start..start + fits)
            } else {
                Plan::Probe(start..start + 1)
            });
        }
        self.persist.start(now, self.recovery.current_rto());
        None
    }
}
