//! The sender: bytes the application wrote, on their way to the peer.
//!
//! Decides *what may be sent now*: retransmissions first, then new data as far as the congestion window
//! (through [`Recovery`]), the peer's window, silly-window avoidance and Nagle's algorithm allow
//! (RFC 9293 §3.7.4, §3.8.6). It builds no segment; `egress` does, and reports back what left.

mod buffer;
mod plan;
mod window;

use std::ops::Range;

use bytes::Bytes;

pub use self::buffer::SendBuffer;
pub use self::plan::Plan;
use self::window::{Persist, SendWindow};
use crate::connection::Offset;
use crate::connection::path_mtu::ProbeOutcome;
use crate::connection::recovery::{AckArrival, AckOutcome, Recovery, RecoveryStart};
use crate::ecn::EcnState;
use crate::timestamp::Nanos;
use crate::{Config, Timestamp};

/// Bytes that wait to be sent for the first time where buffers are tuned: they stay in a core's cache. On loopback,
/// bytes that waited in a buffer of 26 MB cost twice the processor time.
const OWN_LOWAT: u32 = 512 * 1024;

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
    /// Most bytes that may wait to be sent for the first time, but for one segment.
    notsent_lowat: Option<u32>,
    /// Whether there is such a limit of our own where the application has set none.
    has_own_lowat: bool,
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
    /// Payload of the probe of the path's MTU that is wanted.
    path_probe: Option<u16>,
    /// Payload of a full segment in the run being planned: `mss` less what SACK blocks take.
    payload_max: u64,
    max_rto: Nanos,
    /// The longest wait before a closed window is probed again, if the RTO allows it: the user timeout
    /// must leave room for several probes.
    patience: Option<Nanos>,
    blocked: Blocked,
    /// Whether the application found the buffer full and waits to be told.
    writer_waits: bool,
    /// Whether the peer was heard since the retransmission timer last fired.
    heard_since_timeout: bool,
    /// Silence before does not count for the user timeout: the peer's window was closed, and it had
    /// answered.
    excused_until: Timestamp,
    zero_window_probes: u32,
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
            buffer: SendBuffer::new(config.initial_send_buffer(), config.send_buffer),
            notsent_lowat: config.notsent_lowat.map(narrow),
            has_own_lowat: config.buffer_tuning,
            recovery: Recovery::new(config),
            window: SendWindow::new(),
            persist: Persist::default(),
            probe: Probe::None,
            is_finished: false,
            nodelay: config.nodelay,
            push_point: Offset::FIRST,
            small_end: Offset::FIRST,
            mss: 0,
            path_probe: None,
            payload_max: 0,
            max_rto: config.max_rto.into(),
            patience: config.user_timeout.map(|limit| (limit / 4).into()),
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
        self.grow_buffer();
    }

    /// The handshake has agreed on this.
    pub fn start_ecn(&mut self, state: EcnState) {
        self.recovery.start_ecn(state);
    }

    /// Says whether what the plan sends is to leave as ECT(0): new data, but no retransmission (RFC 3168 §6.1.5),
    /// window probe (§6.1.6) or FIN alone.
    pub fn is_to_mark(&self, plan: &Plan) -> bool {
        match plan {
            Plan::New(range) | Plan::PathProbe(range) => {
                range.start < self.buffer.end() && self.recovery.marks_new_data()
            }
            Plan::Retransmit(_) | Plan::Probe(_) => false,
        }
    }

    /// Takes the CWR that the first segment of the plan has to carry, if it is new data (RFC 3168 §6.1.2).
    pub fn take_cwr(&mut self, plan: &Plan) -> bool {
        match plan {
            Plan::New(range) | Plan::PathProbe(range) => {
                range.start < self.buffer.end() && self.recovery.take_cwr()
            }
            Plan::Retransmit(_) | Plan::Probe(_) => false,
        }
    }

    /// New data is about to leave as ECT(0).
    pub fn on_marked(&mut self, range: &Range<Offset>) {
        self.recovery.on_marked(range.start, range.end);
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

    /// Changes it: what is sent from now on, new or again, is cut to this size.
    pub fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.recovery.set_mss(mss);
    }

    /// Says how much payload a probe of the path's MTU would carry, if one is wanted; it goes out once there is
    /// that much to send and room for it.
    pub fn want_path_probe(&mut self, payload: Option<u64>) {
        // A datagram has no more.
        self.path_probe = payload.map(|payload| u16::try_from(payload).unwrap_or(u16::MAX));
    }

    /// Takes what became of the latest such probe.
    pub fn take_path_probe_outcome(&mut self) -> Option<ProbeOutcome> {
        self.recovery.take_path_probe_outcome()
    }

    /// The system refused what was sent last.
    pub fn on_refused(&mut self) {
        self.recovery.on_refused();
    }

    /// Returns why nothing new went out at the last [`plan`](Self::plan).
    pub fn blocked(&self) -> Blocked {
        self.blocked
    }

    /// Says whether the application waits for room.
    pub fn is_writer_waiting(&self) -> bool {
        self.writer_waits
    }

    /// Returns how many zero-window probes were sent.
    pub fn zero_window_probes(&self) -> u64 {
        self.zero_window_probes.into()
    }

    /// Returns the number of bytes written and not acknowledged.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the bytes of memory held.
    pub fn memory(&self) -> usize {
        self.buffer.memory()
    }

    /// Returns the number of bytes that the buffer takes at most now.
    pub fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns the number of bytes written and never sent.
    pub fn unsent(&self) -> u64 {
        self.buffer.end().saturating_since(self.snd_nxt())
    }

    /// Copies a prefix of `data` into the buffer and returns its length; 0 means full.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let allowed = data.len().min(self.unsent_room());
        let taken = self.buffer.write(&data[..allowed]);
        self.writer_waits = taken < data.len();
        taken
    }

    /// Takes a prefix of `data` into the buffer and returns its length; 0 means full.
    pub fn write_chunk(&mut self, data: &mut Bytes) -> usize {
        let taken = self.buffer.write_chunk(data, self.unsent_room());
        self.writer_waits = !data.is_empty();
        taken
    }

    /// More is about to be written: if nothing was left to send, the application has been the limit
    /// (draft-ietf-ccwg-bbr §4.1.2.4).
    pub fn before_write(&mut self, now: Timestamp) {
        if self.unsent() == 0 {
            self.recovery.on_app_limited(now);
        }
    }

    /// Limits the bytes that may wait to be sent for the first time; `None` leaves it to the buffer.
    pub fn set_notsent_lowat(&mut self, limit: Option<usize>) {
        self.notsent_lowat = limit.map(narrow);
    }

    /// Returns that limit.
    pub fn notsent_lowat(&self) -> Option<usize> {
        let limit = self.notsent_lowat?;
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Bytes that the limit on what is not sent still takes.
    fn unsent_room(&self) -> usize {
        let Some(limit) = self.lowat() else {
            return usize::MAX;
        };
        // Less than a segment would wait for Nagle's algorithm, and that for the rest of it.
        let limit = u64::from(limit).max(self.mss);
        usize::try_from(limit.saturating_sub(self.unsent())).unwrap_or(usize::MAX)
    }

    /// The limit on what is not sent, in bytes.
    fn lowat(&self) -> Option<u32> {
        let own = self.has_own_lowat.then_some(OWN_LOWAT);
        self.notsent_lowat.or(own)
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

    /// Says whether the application waits for room and now has enough of it to be woken: a third of the
    /// buffer, and half of what may wait unsent, so that a bulk writer is not woken for every segment. While a
    /// loss keeps the buffer full of what has arrived, less has to do, before there is nothing left to send.
    pub fn take_writable(&mut self) -> bool {
        if !self.writer_waits {
            return false;
        }
        let (room, capacity) = (self.buffer.room(), self.buffer.capacity());
        let runs_dry = self.unsent() <= room as u64;
        let has_room = room >= capacity / if runs_dry { 8 } else { 3 };
        let may_queue = self.lowat().is_none_or(|limit| {
            let limit = u64::from(limit).max(self.mss);
            self.unsent() <= limit / 2
        });
        let wake = has_room && may_queue;
        if wake {
            self.writer_waits = false;
        }
        wake
    }

    /// What is under way and as much again: while a loss is repaired, the window's worth of new data waits
    /// behind the window's worth that it holds up; and a writer needs time to wake up.
    fn grow_buffer(&mut self) {
        let cwnd = self.recovery.controller().cwnd();
        self.buffer.grow_to(cwnd.saturating_mul(2));
    }

    /// The peer was heard: any acceptable segment.
    pub fn on_heard(&mut self, now: Timestamp) {
        self.heard_since_timeout = true;
        self.persist.on_heard(now);
    }

    /// Takes the window of an acceptable segment (RFC 9293 §3.10.7.4) and says whether it changed.
    pub fn update_window(&mut self, now: Timestamp, seq: Offset, ack: Offset, wnd: u64) -> bool {
        let was_shut = self.usable() == 0;
        let was_exceeded = self.right_edge() < self.snd_nxt();
        let changed = self.window.update(seq, ack, wnd);
        if was_exceeded && self.right_edge() >= self.snd_nxt() {
            self.recovery.on_window_restored(now);
        }
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
        let unsent = self.buffer.end().saturating_since(self.snd_nxt());
        self.recovery.note_waiting(now, unsent.min(self.usable()));
        let outcome = self.recovery.on_ack(now, arrival);
        self.buffer.release_below(self.recovery.snd_una());
        self.grow_buffer();
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

    /// Whether anything is not acknowledged or was never sent, something was held back, or [`plan`](Self::plan) did
    /// not find out yet that there is no more.
    pub fn has_business(&self) -> bool {
        self.has_unsent()
            || self.snd_una() < self.snd_nxt()
            || self.blocked != Blocked::No
            || self.persist.deadline().is_some()
            || !self.recovery.has_sent_all()
    }

    /// Copies the payload of `range` into `out`; the FIN's number carries no byte.
    pub fn copy_payload(&self, range: &Range<Offset>, out: &mut [u8]) {
        self.buffer
            .copy_to(&(range.start..range.end.min(self.buffer.end())), out);
    }

    /// Appends the payload of `range` to `pieces` by reference.
    pub fn share_payload(&mut self, range: &Range<Offset>, pieces: &mut Vec<Bytes>) {
        let end = range.end.min(self.buffer.end());
        self.buffer.share(&(range.start..end), pieces);
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
            Plan::PathProbe(_) => {
                self.probe = Probe::None;
                self.persist.stop();
                self.path_probe = None;
                self.recovery.on_path_probe_sent(now, range);
            }
            Plan::Probe(_) => {
                self.probe = Probe::Sent;
                self.zero_window_probes += 1;
                let rto = self.recovery.current_rto();
                self.persist.on_probe_sent(
                    now,
                    rto,
                    self.max_rto.get(),
                    self.patience.map(Nanos::get),
                );
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
        self.right_edge().saturating_since(self.snd_nxt())
    }

    fn right_edge(&self) -> Offset {
        self.snd_una() + self.window.wnd()
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

/// No buffer holds more.
fn narrow(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}
