//! The sender: bytes the application wrote, on their way to the peer.
//!
//! Decides *what may be sent now*: retransmissions first, then new data as far as the congestion window
//! (through [`Recovery`]), the peer's window, silly-window avoidance and Nagle's algorithm allow
//! (RFC 9293 §3.7.4, §3.8.6). It builds no segment; `egress` does, and reports back what left.

mod buffer;
mod window;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

pub use self::buffer::SendBuffer;
use self::window::{Demand, Persist, SendWindow, Verdict, verdict};
use crate::connection::Offset;
use crate::connection::recovery::{AckArrival, AckOutcome, Recovery, RecoveryStart};
use crate::{Config, Timestamp};

/// What to put into the next run of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Bytes (or the FIN) that were declared lost; at most one segment.
    Retransmit(Range<Offset>),
    /// Data never sent before, in segments of the size asked about; includes the FIN's number if the
    /// range reaches beyond the last byte.
    New(Range<Offset>),
    /// One byte beyond a closed window (RFC 9293 §3.8.6.1).
    Probe(Range<Offset>),
}

/// Why nothing new goes out although something is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocked {
    /// Nothing is waiting, or it may go.
    #[default]
    No,
    /// The congestion window is full.
    Congestion,
    /// The pacer's next departure lies ahead.
    Pacing(Timestamp),
    /// The peer's window is closed.
    Window,
    /// Nagle's algorithm waits.
    Nagle,
}

/// The sending half of a connection.
///
/// Invariants:
/// - `snd_una <= snd_nxt <= end of buffer (+ 1 once the FIN was sent)`;
/// - the persist timer runs only while nothing is outstanding and something is waiting;
/// - the buffer holds exactly the written bytes from `snd_una` on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
pub struct Sender {
    buffer: SendBuffer,
    recovery: Recovery,
    window: SendWindow,
    persist: Persist,
    /// Whether a zero-window probe is due, and whether its byte is on its way beyond `snd_nxt`.
    probe: Probe,
    /// Whether the application finished: the FIN follows the last byte.
    is_finished: bool,
    nodelay: bool,
    /// Data below goes out whatever Nagle says (`flush`).
    push_point: Offset,
    /// End of the newest segment that was shorter than the MSS.
    small_end: Offset,
    /// Effective send MSS.
    mss: u64,
    /// Payload of a full segment in the run being planned: `mss` less what SACK blocks take.
    payload_max: u64,
    max_rto: Duration,
    /// The longest wait before a closed window is probed again, if the RTO allows it: the user timeout
    /// must leave room for several probes.
    patience: Option<Duration>,
    blocked: Blocked,
    /// Whether the application found the buffer full and waits to be told.
    writer_waits: bool,
    /// Whether the peer was heard since the retransmission timer last fired.
    heard_since_timeout: bool,
    /// Silence before does not count for the user timeout: the peer's window was closed, and it had
    /// answered.
    excused_until: Timestamp,
    zero_window_probes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    None,
    Due,
    /// The byte at `snd_nxt` was sent as a probe and may be acknowledged.
    Sent,
}

impl Sender {
    /// Makes the sender of a connection whose handshake is not finished.
    pub fn new(config: &Config) -> Self {
        Self {
            buffer: SendBuffer::new(config.send_buffer),
            recovery: Recovery::new(config),
            window: SendWindow::new(),
            persist: Persist::default(),
            probe: Probe::None,
            is_finished: false,
            nodelay: config.nodelay,
            push_point: Offset::FIRST,
            small_end: Offset::FIRST,
            mss: 0,
            payload_max: 0,
            max_rto: config.max_rto,
            patience: config.user_timeout.map(|limit| limit / 4),
            blocked: Blocked::No,
            writer_waits: false,
            heard_since_timeout: false,
            excused_until: Timestamp::ZERO,
            zero_window_probes: 0,
        }
    }

    /// Begins transmission: the handshake is done.
    pub fn start(&mut self, now: Timestamp, start: RecoveryStart) {
        self.mss = start.mss;
        self.recovery.start(now, start);
    }

    /// Returns loss recovery, for its numbers.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Returns the peer's window in bytes.
    pub fn snd_wnd(&self) -> u64 {
        self.window.wnd()
    }

    /// Returns the largest window that the peer ever offered, in bytes.
    pub fn max_snd_wnd(&self) -> u64 {
        self.window.max_wnd()
    }

    /// Returns SND.UNA.
    pub fn snd_una(&self) -> Offset {
        self.recovery.snd_una()
    }

    /// Returns SND.NXT; a zero-window probe's byte does not count until it is acknowledged.
    pub fn snd_nxt(&self) -> Offset {
        self.recovery.snd_nxt()
    }

    /// Returns the number that a segment without data carries: SND.NXT.
    ///
    /// If the window is closed and what was sent into it, such as the FIN, has not got through, the peer
    /// would refuse that: RFC 9293 §3.10.7.4 takes nothing but RCV.NXT then, which is our SND.UNA.
    pub fn ack_seq(&self) -> Offset {
        if self.window.wnd() == 0 && self.recovery.consecutive_timeouts() > 0 {
            return self.snd_una();
        }
        self.snd_nxt()
    }

    /// Returns the highest acknowledgment number that is not a lie: SND.NXT, or one more while a
    /// zero-window probe is out.
    pub fn max_ackable(&self) -> Offset {
        self.snd_nxt() + u64::from(self.probe == Probe::Sent)
    }

    /// Returns the effective send MSS in bytes.
    pub fn mss(&self) -> u64 {
        self.mss
    }

    /// Returns why nothing new went out at the last [`plan`](Self::plan).
    pub fn blocked(&self) -> Blocked {
        self.blocked
    }

    /// Returns how many zero-window probes were sent.
    pub fn zero_window_probes(&self) -> u64 {
        self.zero_window_probes
    }

    /// Returns the number of bytes written and not acknowledged.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the bytes of memory held.
    pub fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Copies a prefix of `data` into the buffer and returns its length; 0 means full.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let taken = self.buffer.write(data);
        self.writer_waits = taken < data.len();
        taken
    }

    /// Takes a prefix of `data` into the buffer and returns its length; 0 means full.
    pub fn write_chunk(&mut self, data: &mut Bytes) -> usize {
        let taken = self.buffer.write_chunk(data);
        self.writer_waits = !data.is_empty();
        taken
    }

    /// Lets everything written so far go out whatever Nagle's algorithm says.
    pub fn flush(&mut self) {
        self.push_point = self.buffer.end();
    }

    /// Turns Nagle's algorithm off or on.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.nodelay = nodelay;
    }

    /// Says whether Nagle's algorithm is off.
    pub fn nodelay(&self) -> bool {
        self.nodelay
    }

    /// Puts the FIN behind the last byte. Nothing can be written afterwards.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Says whether [`finish`](Self::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Returns the FIN's position, once it has one.
    pub fn fin(&self) -> Option<Offset> {
        self.is_finished.then(|| self.buffer.end())
    }

    /// Says whether the peer acknowledged the FIN, and so every byte.
    pub fn is_fin_acked(&self) -> bool {
        self.fin().is_some_and(|fin| self.snd_una() > fin)
    }

    /// Says whether every byte written, but not necessarily the FIN, is acknowledged.
    pub fn is_all_data_acked(&self) -> bool {
        self.snd_una() >= self.buffer.end()
    }

    /// Says whether the application waits for room and now has enough of it to be woken: a quarter of
    /// the buffer, so that a bulk writer is not woken for every segment.
    pub fn take_writable(&mut self) -> bool {
        let has_room = self.buffer.room() >= self.buffer.capacity() / 4;
        let wake = self.writer_waits && has_room;
        if wake {
            self.writer_waits = false;
        }
        wake
    }

    /// The peer was heard: any acceptable segment.
    pub fn on_heard(&mut self, now: Timestamp) {
        self.heard_since_timeout = true;
        self.persist.on_heard(now);
    }

    /// Takes the window of an acceptable segment (RFC 9293 §3.10.7.4) and says whether it changed.
    pub fn update_window(&mut self, seq: Offset, ack: Offset, wnd: u64) -> bool {
        let was_shut = self.usable() == 0;
        let changed = self.window.update(seq, ack, wnd);
        // A window that is open but too small goes on waiting for the override timeout: were the timer
        // stopped here, a peer that is heard often would put it off for ever.
        if was_shut && self.usable() > 0 {
            self.persist.stop();
            if self.probe == Probe::Due {
                self.probe = Probe::None;
            }
        }
        changed
    }

    /// Processes an acceptable acknowledgment, `snd_una <= ack <= max_ackable`.
    pub fn on_ack(&mut self, now: Timestamp, arrival: &AckArrival<'_>) -> AckOutcome {
        if arrival.ack > self.snd_nxt() {
            // The peer had room for the probe's byte after all. It enters the scoreboard now, as sent
            // twice, because when it was sent is not known exactly (Karn, RFC 6298 §3).
            let byte = self.snd_nxt()..arrival.ack;
            self.recovery.on_sent(now, byte.clone());
            self.recovery.on_retransmitted(now, byte);
            self.probe = Probe::None;
            self.persist.stop();
        }
        let outcome = self.recovery.on_ack(now, arrival);
        self.buffer.release_below(self.recovery.snd_una());
        outcome
    }

    /// The retransmission timer fired.
    pub fn on_rto(&mut self, now: Timestamp) {
        if self.window.wnd() == 0 && self.heard_since_timeout {
            self.excused_until = now;
        }
        self.heard_since_timeout = false;
        self.recovery.on_rto(now);
    }

    /// What was overtaken counts as lost now.
    pub fn on_reordering_timeout(&mut self, now: Timestamp) {
        self.recovery.on_reordering_timeout(now);
    }

    /// The tail of what was sent is to be probed.
    pub fn on_probe_timeout(&mut self, now: Timestamp) {
        self.recovery.on_probe_timeout(now);
    }

    /// Says whether the same data was retransmitted `limit` times by timeout without effect, so that
    /// one more expiry ends the connection.
    ///
    /// While the peer's window is closed and the peer answers, retransmissions are probes and do not
    /// count (RFC 9293 §3.8.6.1).
    pub fn is_retry_limit_reached(&self, limit: u32) -> bool {
        let answered = self.window.wnd() == 0 && self.heard_since_timeout;
        self.recovery.consecutive_timeouts() >= limit && !answered
    }

    /// Returns when the persist timer fires.
    pub fn persist_deadline(&self) -> Option<Timestamp> {
        self.persist.deadline()
    }

    /// An acceptable acknowledgment arrived, whose window was not taken yet.
    pub fn on_answer(&mut self, now: Timestamp) {
        if self.window.wnd() == 0 {
            self.excused_until = now;
        }
    }

    /// Returns the number of zero-window probes that the peer left unanswered in a row.
    pub fn unanswered_probes(&self) -> u32 {
        self.persist.unanswered()
    }

    /// Returns since when sent data or probes have been unanswered, for the user timeout.
    ///
    /// A peer that refuses what was sent, such as the FIN, because its window is closed has answered it
    /// (RFC 9293 §3.8.6.1).
    pub fn unanswered_since(&self) -> Option<Timestamp> {
        let is_excused = self.window.wnd() == 0 && self.heard_since_timeout;
        let data = self.recovery.oldest_unacked_since();
        let data = data
            .filter(|_| !is_excused)
            .map(|since| since.max(self.excused_until));
        let probes = self.persist.silent_since();
        [data, probes].into_iter().flatten().min()
    }

    /// The persist timer fired: a probe is due.
    pub fn on_persist_timeout(&mut self) {
        self.probe = Probe::Due;
    }

    /// Whether anything waits to be sent for the first time, the FIN included.
    pub fn has_unsent(&self) -> bool {
        self.snd_nxt() < self.buffer.end() + u64::from(self.is_finished)
    }

    /// Says what to send next, in segments of at most `payload_max` bytes and at most `max_segments`.
    pub fn plan(&mut self, now: Timestamp, payload_max: u64, max_segments: usize) -> Option<Plan> {
        self.payload_max = payload_max;
        if self.recovery.is_probe_due()
            && let Some(plan) = self.plan_tail_probe(payload_max)
        {
            return Some(plan);
        }
        let pacing = self
            .recovery
            .pacing_deadline(now)
            .filter(|deadline| *deadline > now);
        if let Some(range) = self.recovery.next_retransmission(payload_max) {
            let len = range.end.saturating_since(range.start);
            let is_fin_only = self.fin() == Some(range.start);
            if let Some(deadline) = pacing.filter(|_| !is_fin_only) {
                self.blocked = Blocked::Pacing(deadline);
                return None;
            }
            if is_fin_only || self.recovery.send_allowance(now) >= len.min(self.mss) {
                return Some(Plan::Retransmit(range));
            }
            self.blocked = Blocked::Congestion;
            return None;
        }
        if let Some(plan) = self.plan_new(now, payload_max, max_segments, pacing) {
            return Some(plan);
        }
        // RFC 6675 §4, NextSeg rule 3: nothing else can be sent, but ACKs have to keep coming.
        let is_idle = matches!(self.blocked, Blocked::No | Blocked::Window | Blocked::Nagle);
        let range = self.recovery.next_speculative_retransmission(payload_max)?;
        let may_go = is_idle && pacing.is_none() && self.recovery.send_allowance(now) >= self.mss;
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

    fn plan_new(
        &mut self,
        now: Timestamp,
        payload_max: u64,
        max_segments: usize,
        pacing: Option<Timestamp>,
    ) -> Option<Plan> {
        let snd_nxt = self.snd_nxt();
        let end = self.buffer.end();
        let unsent = end.saturating_since(snd_nxt);
        if unsent == 0 {
            self.blocked = Blocked::No;
            self.persist.stop();
            // The FIN alone waits for no window, congestion or pacing.
            let is_fin_due = self.is_finished && snd_nxt == end;
            if !is_fin_due && self.recovery.send_allowance(now) > 0 {
                self.recovery.on_app_limited();
            }
            return is_fin_due.then(|| Plan::New(end..end + 1));
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
                self.recovery.on_app_limited();
                return None;
            }
            Verdict::Closed => return self.plan_probe(now, unsent.min(usable), outstanding),
        };
        self.persist.stop();
        if let Some(deadline) = pacing {
            self.blocked = Blocked::Pacing(deadline);
            return None;
        }
        let allowance = self.recovery.send_allowance(now);
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

    /// Copies the payload of `range` into `out`; the FIN's number carries no byte.
    pub fn copy_payload(&self, range: &Range<Offset>, out: &mut [u8]) {
        self.buffer
            .copy_to(&(range.start..range.end.min(self.buffer.end())), out);
    }

    /// Returns one past the last byte written; a number at or beyond it is the FIN's.
    pub fn data_end(&self) -> Offset {
        self.buffer.end()
    }

    /// A plan was carried out, of which `range` is what really left.
    pub fn on_departure(&mut self, now: Timestamp, plan: &Plan, range: Range<Offset>) {
        match plan {
            Plan::Retransmit(_) => self.recovery.on_retransmitted(now, range),
            Plan::New(_) => {
                let data_len = range
                    .end
                    .min(self.buffer.end())
                    .saturating_since(range.start);
                if !data_len.is_multiple_of(self.payload_max.max(1)) {
                    self.small_end = range.end;
                }
                self.probe = Probe::None;
                self.persist.stop();
                self.recovery.on_sent(now, range);
            }
            Plan::Probe(_) => {
                self.probe = Probe::Sent;
                self.zero_window_probes += 1;
                let rto = self.recovery.current_rto();
                self.persist
                    .on_probe_sent(now, rto, self.max_rto, self.patience);
            }
        }
    }

    /// Drops all data: the connection is over.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.persist.stop();
        self.probe = Probe::None;
    }

    /// Bytes of the peer's window beyond `snd_nxt`.
    fn usable(&self) -> u64 {
        (self.snd_una() + self.window.wnd()).saturating_since(self.snd_nxt())
    }

    /// Panics if an invariant of the struct does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        self.buffer.check_invariants();
        self.recovery.check_invariants();
        let fin = u64::from(self.is_finished);
        assert!(self.snd_una() <= self.snd_nxt(), "snd_una beyond snd_nxt");
        assert!(
            self.snd_nxt() <= self.buffer.end() + fin,
            "snd_nxt beyond what was written"
        );
        if self.persist.deadline().is_some() {
            assert_eq!(
                self.recovery.flight_size(),
                0,
                "persist timer beside outstanding data"
            );
        }
    }
}
