//! An arriving segment: is it acceptable, and what does it mean for handshake, sender, receiver, state.
//!
//! RFC 9293 §3.10.7 in its order of checks, with RFC 5961 (blind reset, SYN and data injection), RFC 7323
//! §5 (PAWS, in `timestamps`) and RFC 2018 / RFC 5681 §2 (what counts as a duplicate ACK). Sequence numbers are widened
//! here, once; nothing behind this file sees them.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use bytes::Bytes;
use tracing::trace;

use crate::connection::egress::Reset;
use crate::connection::handshake::{Confirmation, Negotiated};
use crate::connection::receiver::SackRanges;
use crate::connection::recovery::AckArrival;
use crate::connection::{Connection, Event, Offset, State};
use crate::wire::{Flags, Header, Integrity, SackBlocks, Segment, SeqNumber};
use crate::{ConnectionError, Timestamp};

/// Shortest delay of an ACK, unless the user wants a shorter one: the application gets this long to
/// answer, so that the ACK can ride on the answer.
const MIN_ACK_DELAY: Duration = Duration::from_millis(1);
/// What became of a segment's acknowledgment field.
enum AckVerdict {
    /// Processed, or harmlessly old: go on with text and FIN.
    GoOn,
    /// The segment was dropped or ended the connection.
    Stop,
}

/// A segment's place in the peer's stream, SYN stripped.
struct Placed {
    start: Offset,
    /// Payload plus FIN.
    len: u64,
    has_fin: bool,
}

impl Placed {
    fn end(&self) -> Offset {
        self.start + self.len
    }
}

impl Connection {
    /// Processes an arriving segment whose integrity was verified. `datagram` is the buffer in which the
    /// segment's payload lies, so that it can be kept without copying.
    pub fn handle_segment(&mut self, now: Timestamp, segment: &Segment<'_>, datagram: &Bytes) {
        bump(&mut self.counters.segments_received);
        match self.state {
            // The endpoint answers what arrives for a closed connection.
            State::Closed => {}
            State::SynSent => self.handle_in_syn_sent(now, segment, datagram),
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.handle_in_window(now, segment, datagram),
        }
        self.forget_mark();
    }

    /// Says whether the reader waits for this segment's text: nothing is readable, and the text is next.
    pub fn awaits(&self, segment: &Segment<'_>) -> bool {
        let rcv_nxt = self.receiver.rcv_nxt();
        self.receiver.readable_bytes() == 0
            && Offset::widen(segment.header.seq, self.irs, rcv_nxt)
                .is_some_and(|start| start <= rcv_nxt)
    }

    /// The system reported that a datagram with our segment `seq` could not be delivered.
    ///
    /// RFC 5927 §4.1, §5.2: it counts only while connecting, and only for the SYN that is out. It also
    /// ends the wait for the acknowledgment of a FIN that is all that is missing, as a RST would: the peer
    /// had finished and is gone, and nothing is lost by believing it.
    pub fn handle_unreachable(&mut self, _now: Timestamp, seq: SeqNumber) {
        if self.state == State::SynSent && seq == self.iss {
            self.close_with(ConnectionError::Refused);
        } else if self.is_only_fin_unacked() && seq == self.sender.snd_una().narrow(self.iss) {
            self.on_reset();
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn handle_in_syn_sent(&mut self, now: Timestamp, segment: &Segment<'_>, datagram: &Bytes) {
        let header = &segment.header;
        let has_ack = header.flags.contains(Flags::ACK);
        // Only the SYN was sent: the one acceptable acknowledgment is ISS + 1.
        let is_acceptable = has_ack && header.ack == self.iss + 1;
        if has_ack && !is_acceptable {
            bump(&mut self.counters.rare().segments_unacceptable);
            if !header.flags.contains(Flags::RST) {
                self.refuse(segment);
            }
            return;
        }
        if header.flags.contains(Flags::RST) {
            if is_acceptable {
                self.on_reset();
            }
            return;
        }
        if !header.flags.contains(Flags::SYN) {
            bump(&mut self.counters.rare().segments_unacceptable);
            return;
        }
        self.last_heard = now;
        self.take_syn(now, segment);
        if !is_acceptable {
            self.state.on_syn_received();
            return;
        }
        let window = u64::from(header.window);
        self.sender
            .update_window(now, Offset::ZERO, Offset::FIRST, window);
        self.establish(now);
        self.receiver.demand_ack();
        // Text on a SYN-ACK is allowed (RFC 9293 §3.10.7.3, fourth, last paragraph).
        let placed = Placed {
            start: Offset::FIRST,
            len: payload_and_fin(segment),
            has_fin: header.flags.contains(Flags::FIN),
        };
        if placed.len > 0 {
            self.take_text(now, segment, &placed, datagram);
        }
    }

    /// Takes the peer's SYN, whatever else the segment holds: ISN, options, window.
    pub(super) fn take_syn(&mut self, now: Timestamp, segment: &Segment<'_>) {
        let header = &segment.header;
        self.irs = header.seq;
        let negotiated = Negotiated::from_peer(&self.config, &header.options);
        if negotiated.timestamps {
            self.start_ts_recent(now, header);
        }
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        self.sender
            .update_window(now, Offset::ZERO, Offset::ZERO, u64::from(header.window));
        let is_simultaneous = self.state == State::SynSent && !header.flags.contains(Flags::ACK);
        if let Some(handshake) = &mut self.handshake {
            handshake.offers.hear(header.flags);
            if is_simultaneous {
                handshake.on_simultaneous_open(negotiated);
            } else {
                handshake.negotiated = Some(negotiated);
            }
        }
    }

    /// Both SYNs are acknowledged: data may flow.
    fn establish(&mut self, now: Timestamp) {
        let Some(handshake) = self.handshake.take() else {
            return;
        };
        let Some(negotiated) = handshake.negotiated else {
            return;
        };
        self.receiver
            .negotiate(negotiated.rcv_window_shift, negotiated.sack);
        let [iss, irs] = [self.iss, self.irs].map(|isn| u64::from(isn.get()));
        self.sender.start(
            now,
            handshake.recovery_start(now, &self.config, &negotiated, iss << 32 | irs),
        );
        if handshake.is_due {
            // The SYN-ACK that the peer waits for never left.
            self.receiver.demand_ack();
        }
        let ecn = handshake.offers.outcome();
        self.echo.start(ecn);
        self.sender.start_ecn(ecn);
        self.confirmation = Confirmation::begin(now, handshake.is_passive, &negotiated);
        self.negotiated = Some(negotiated);
        self.start_path_mtu(now);
        self.limits.start(now);
        self.measure_round_trip();
        self.adapt_ack_delay();
        self.state.on_established();
        self.events.push(Event::Connected);
        if self.sender.is_finished() {
            self.state.on_finish();
        }
    }

    /// RFC 9293 §3.10.7.4: every state from SYN-RECEIVED on.
    fn handle_in_window(&mut self, now: Timestamp, segment: &Segment<'_>, datagram: &Bytes) {
        let header = &segment.header;
        if self.lacks_timestamps(header) {
            // RFC 7323 §3.2: silently dropped.
            bump(&mut self.counters.rare().segments_unacceptable);
            return;
        }
        if !self.passes_paws(now, header) {
            bump(&mut self.counters.rare().segments_unacceptable);
            self.answer_unacceptable(now, segment.sequence_len() > 0);
            return;
        }
        let Some((placed, has_syn)) = self.place(now, segment) else {
            return;
        };
        if !self.is_acceptable(&placed, has_syn) {
            self.handle_unacceptable(now, segment, &placed, datagram);
            return;
        }
        if header.flags.contains(Flags::RST) {
            // RFC 5961 §3.2
            if placed.start == self.receiver.rcv_nxt() {
                self.on_reset();
            } else {
                self.challenge(now);
            }
            return;
        }
        if has_syn {
            // RFC 5961 §4.2
            self.challenge(now);
            return;
        }
        if !header.flags.contains(Flags::ACK) {
            bump(&mut self.counters.rare().segments_unacceptable);
            return;
        }
        self.on_heard(now);
        self.confirmation = None;
        self.renew_ts_recent(now, header, placed.start);
        if let AckVerdict::Stop = self.take_ack(now, segment, &placed) {
            return;
        }
        if placed.len > 0 {
            self.take_mark(header);
        }
        if placed.len > 0 && self.state.may_receive() {
            self.take_text(now, segment, &placed, datagram);
        }
    }

    /// Widens the sequence number and strips a SYN that belongs to this handshake. `None` means that the
    /// segment is dealt with.
    fn place(&mut self, now: Timestamp, segment: &Segment<'_>) -> Option<(Placed, bool)> {
        let header = &segment.header;
        let rcv_nxt = self.receiver.rcv_nxt();
        let Some(start) = Offset::widen(header.seq, self.irs, rcv_nxt) else {
            // From before the peer's ISN: an old duplicate.
            bump(&mut self.counters.rare().segments_unacceptable);
            if !header.flags.contains(Flags::RST) {
                self.answer_unacceptable(now, segment.sequence_len() > 0);
            }
            return None;
        };
        let mut has_syn = header.flags.contains(Flags::SYN);
        let mut start = start;
        if has_syn && self.state == State::SynReceived && start == Offset::ZERO {
            if let Some(handshake) = &mut self.handshake {
                handshake.offers.hear(header.flags);
            }
            if !header.flags.contains(Flags::ACK) {
                // The peer's SYN again: our SYN-ACK was lost. The same one answers.
                if let Some(handshake) = &mut self.handshake {
                    handshake.is_due = true;
                }
                return None;
            }
            // The SYN-ACK of a simultaneous open: its SYN is known, its ACK is what we wait for.
            has_syn = false;
            start = Offset::FIRST;
        }
        let has_fin = header.flags.contains(Flags::FIN);
        Some((
            Placed {
                start,
                len: payload_and_fin(segment),
                has_fin,
            },
            has_syn,
        ))
    }

    /// RFC 9293 §3.10.7.4, first: the four cases of acceptability.
    fn is_acceptable(&self, placed: &Placed, has_syn: bool) -> bool {
        let rcv_nxt = self.receiver.rcv_nxt();
        let edge = rcv_nxt + self.receiver.rcv_wnd();
        let len = placed.len.saturating_add(u64::from(has_syn));
        let in_window = |offset: Offset| rcv_nxt <= offset && offset < edge;
        if len == 0 {
            // Deviation from RFC 9293 §3.10.7.4: up to the right edge and the FIN behind it, which waits for
            // no window. There a peer stands that has filled our window; while any of what it sent is
            // missing, its ACKs would all be refused.
            return rcv_nxt <= placed.start && placed.start <= edge + 1;
        }
        let last = (placed.start + len).saturating_back(1);
        let is_bare_fin = placed.has_fin && len == 1;
        in_window(placed.start)
            || in_window(last)
            // Wraps around the whole window.
            || (edge > rcv_nxt && placed.start < rcv_nxt && last >= edge)
            || (is_bare_fin && placed.start == edge)
    }

    fn handle_unacceptable(
        &mut self,
        now: Timestamp,
        segment: &Segment<'_>,
        placed: &Placed,
        datagram: &Bytes,
    ) {
        bump(&mut self.counters.rare().segments_unacceptable);
        let flags = segment.header.flags;
        trace!(seq = ?placed.start, len = placed.len, ?flags, "unacceptable segment");
        let rcv_nxt = self.receiver.rcv_nxt();
        if flags.contains(Flags::RST) {
            // RFC 9293 §3.10.7.4: a zero window still takes a RST at RCV.NXT.
            if placed.start == rcv_nxt {
                self.on_reset();
            }
            return;
        }
        if self.state == State::TimeWait && placed.has_fin && placed.end() == rcv_nxt {
            // RFC 9293 §3.10.7.4, eighth: the peer's FIN again.
            self.restart_time_wait(now);
        }
        let is_old_text = placed.len > 0 && placed.end() <= rcv_nxt;
        // A keepalive has no length, but its sender relies on the answer.
        let is_keepalive = placed.start + 1 == rcv_nxt && placed.end() <= rcv_nxt;
        let is_from_peer = self.acceptable_ack(&segment.header).is_some();
        if (is_old_text || is_keepalive) && is_from_peer {
            // Not what we wait for, but the peer is there.
            self.on_heard(now);
            if !flags.contains(Flags::SYN) {
                self.confirmation = None;
            }
        }
        if is_old_text && self.negotiated.is_some() {
            if is_from_peer && placed.end() > self.previous_ack_sent {
                // Part of what was acknowledged last came again, so that ACK was lost. The next one must echo
                // this copy, or the peer takes all the time since the first for the RTT. RFC 7323 §5.3 R2 and
                // R3 would not, but of old duplicates only these are as hard to forge as text in the window.
                self.renew_ts_recent(now, &segment.header, placed.start);
            }
            // The receiver acknowledges it at once and reports the duplicate (RFC 2883).
            let _ = self.receiver.on_segment(
                now,
                placed.start,
                segment.payload,
                placed.has_fin,
                datagram,
            );
        } else {
            self.answer_unacceptable(now, is_keepalive || segment.sequence_len() > 0);
        }
        // RFC 9293 §3.10.7.4: while the window is closed, valid ACKs are still taken.
        let is_at_closed_window = self.receiver.rcv_wnd() == 0 && placed.start == rcv_nxt;
        // RFC 9293 appendix A.2: so is what is new in an ACK from just before RCV.NXT. A peer that takes it that
        // what it sent into our closed window was refused stays there (see `Sender::ack_seq`); if we do the same,
        // each would refuse for ever what the other has to say.
        let is_just_before = is_keepalive || (is_old_text && placed.end() > self.previous_ack_sent);
        let is_synchronized = self.negotiated.is_some();
        let is_news = self.acceptable_ack(&segment.header) > Some(self.sender.snd_una());
        let is_late_answer = is_just_before && is_synchronized && is_news;
        let is_ack = flags.contains(Flags::ACK) && !flags.contains(Flags::SYN);
        if (is_at_closed_window || is_late_answer) && is_ack {
            self.on_heard(now);
            let _ = self.take_ack(now, segment, placed);
        }
    }

    /// RFC 9293 §3.10.7.4, fifth: the ACK field.
    fn take_ack(&mut self, now: Timestamp, segment: &Segment<'_>, placed: &Placed) -> AckVerdict {
        let header = &segment.header;
        if self.state == State::SynReceived {
            if header.ack != self.iss + 1 {
                bump(&mut self.counters.rare().segments_unacceptable);
                self.refuse(segment);
                return AckVerdict::Stop;
            }
            self.establish(now);
        }
        let Some(negotiated) = self.negotiated else {
            return AckVerdict::Stop;
        };
        let snd_una = self.sender.snd_una();
        let Some(ack) = self.acceptable_ack(header) else {
            // RFC 5961 §5.2, RFC 9293 §3.10.7.4: of data never sent, or far too old.
            bump(&mut self.counters.rare().segments_unacceptable);
            if Offset::widen(header.ack, self.iss, snd_una) > Some(self.sender.max_ackable()) {
                bump(&mut self.counters.rare().acks_of_unsent_data);
            }
            self.challenge(now);
            return AckVerdict::Stop;
        };
        // RFC 7323 §2.2: the window of a SYN-ACK is never scaled, nor in a simultaneous open.
        let shift = if header.flags.contains(Flags::SYN) {
            0
        } else {
            u32::from(negotiated.snd_window_shift)
        };
        let window = u64::from(header.window)
            .checked_shl(shift)
            .unwrap_or(u64::MAX);
        if ack == snd_una && self.says_nothing_new(header, window) {
            // Most segments of a stream in one direction.
            self.sender.on_answer(now);
            self.sender.update_window(now, placed.start, ack, window);
        } else if ack >= snd_una {
            let mut blocks = SackRanges::default();
            if negotiated.sack {
                self.widen_sack(&header.options.sack_blocks, &mut blocks);
            }
            self.sender.on_answer(now);
            // RFC 5681 §2: (a) data outstanding, (b) no text, (c) no SYN or FIN, (d) the same
            // acknowledgment, (e) the same window.
            let is_duplicate = ack == snd_una
                && self.sender.snd_nxt() > snd_una
                && placed.len == 0
                && window == self.sender.snd_wnd();
            let tsecr = header.options.timestamps.filter(|_| negotiated.timestamps);
            let arrival = AckArrival {
                ack,
                sack: blocks.as_slice(),
                is_duplicate,
                rtt: tsecr.and_then(|ts| self.echoed_rtt(now, ts.tsecr)),
                rtt_tsecr: tsecr.map(|ts| ts.tsecr),
                // On a SYN-ACK it is not an echo but part of the handshake.
                ecn_echo: header.flags.contains(Flags::ECE) && !header.flags.contains(Flags::SYN),
            };
            let was_fin_acked = self.sender.is_fin_acked();
            let outcome = self.sender.on_ack(now, &arrival);
            if outcome.made_progress && !negotiated.timestamps {
                self.measure_round_trip();
            }
            self.adapt_ack_delay();
            self.sender.update_window(now, placed.start, ack, window);
            if self.sender.take_writable() {
                self.events.push(Event::Writable);
            }
            if !was_fin_acked && self.sender.is_fin_acked() {
                self.on_fin_acked(now);
            }
            self.note_last_ack(now);
        }
        if self.state == State::Closed {
            AckVerdict::Stop
        } else {
            AckVerdict::GoOn
        }
    }

    /// Whether a segment that acknowledges SND.UNA again has nothing to say to the sender: nothing is outstanding,
    /// and window and marks are as before.
    fn says_nothing_new(&self, header: &Header, window: u64) -> bool {
        self.sender.max_ackable() == self.sender.snd_una()
            && window == self.sender.snd_wnd()
            && header.options.sack_blocks.is_empty()
            && !header.flags.intersects(Flags::ECE | Flags::SYN)
            && self.state == State::Established
    }

    /// Widens the acknowledgment number, if there is one that this connection can have got (RFC 5961 §5.2).
    fn acceptable_ack(&self, header: &Header) -> Option<Offset> {
        let snd_una = self.sender.snd_una();
        let oldest = snd_una.saturating_back(self.sender.max_snd_wnd());
        Offset::widen(header.ack, self.iss, snd_una)
            .filter(|_| header.flags.contains(Flags::ACK))
            .filter(|ack| oldest <= *ack && *ack <= self.sender.max_ackable())
    }

    /// The peer is there.
    fn on_heard(&mut self, now: Timestamp) {
        self.last_heard = now;
        self.keepalive_probes = 0;
        self.sender.on_heard(now);
    }

    /// Keeps the delay of ACKs in proportion to the path: a peer whose window is a few segments would
    /// otherwise wait for the timer longer than for the path. RFC 9293 §3.8.6.3 only bounds it.
    fn adapt_ack_delay(&mut self) {
        let most = self.config.ack_delay;
        if let Some(min_rtt) = self.sender.recovery().rtt().min_rtt() {
            let delay = MIN_ACK_DELAY.max(min_rtt / 4);
            self.receiver.set_ack_delay(most.min(delay));
        }
    }

    /// Tells the receiver of the sender's newest RTT sample.
    fn measure_round_trip(&mut self) {
        if let Some(sample) = self.sender.recovery().rtt().latest_rtt() {
            self.receiver.on_rtt_sample(sample);
        }
    }

    fn on_fin_acked(&mut self, now: Timestamp) {
        self.state.on_fin_acked();
        self.events.push(Event::Finished);
        match self.state {
            State::TimeWait => self.restart_time_wait(now),
            // `on_fin_acked` led from LAST-ACK to CLOSED.
            State::Closed => self.close_orderly(),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {}
        }
    }

    /// Widens SACK blocks that make sense: not inverted, and not beyond what was sent.
    fn widen_sack(&self, blocks: &SackBlocks, ranges: &mut SackRanges) {
        let snd_una = self.sender.snd_una();
        for block in blocks.as_slice() {
            let left = Offset::widen(block.left, self.iss, snd_una);
            let right = Offset::widen(block.right, self.iss, snd_una);
            if let (Some(left), Some(right)) = (left, right)
                && left < right
                && right <= self.sender.snd_nxt()
            {
                ranges.push(left..right);
            }
        }
    }

    /// RFC 9293 §3.10.7.4, seventh and eighth: text and FIN.
    fn take_text(
        &mut self,
        now: Timestamp,
        segment: &Segment<'_>,
        placed: &Placed,
        datagram: &Bytes,
    ) {
        let text_end = placed.start + segment.payload.len() as u64;
        if self.is_released() && text_end > self.receiver.rcv_nxt() && !segment.payload.is_empty() {
            // RFC 1122 §4.2.2.13: nobody will read it, and the peer must learn that.
            self.reset_peer();
            self.close_with(ConnectionError::Aborted);
            return;
        }
        let timestamps = segment.header.options.timestamps;
        let uses_timestamps = self.negotiated.is_some_and(|agreed| agreed.timestamps);
        if let Some(timestamps) = timestamps.filter(|_| uses_timestamps)
            && let Some(sample) = self.echoed_rtt(now, timestamps.tsecr)
        {
            // From our ACK to what the peer sent after it.
            self.receiver.on_rtt_sample(sample);
        }
        let arrival =
            self.receiver
                .on_segment(now, placed.start, segment.payload, placed.has_fin, datagram);
        if arrival.newly_readable > 0 || arrival.fin_reached {
            self.events.push(Event::Readable);
        }
        if arrival.fin_reached {
            self.state.on_fin_received();
            if self.state == State::TimeWait {
                self.restart_time_wait(now);
            }
            self.note_last_ack(now);
        }
    }

    /// Answers a segment that is not acceptable (RFC 9293 §3.10.7.4). One that takes no sequence number may
    /// itself be such an answer: two sides that refuse each other's would go on for ever, so that these
    /// answers are limited like challenge ACKs (RFC 5961 §7).
    fn answer_unacceptable(&mut self, now: Timestamp, wants_answer: bool) {
        if wants_answer && self.state != State::SynReceived {
            self.receiver.on_unacceptable();
        } else {
            self.challenge(now);
        }
    }

    /// Answers with a challenge ACK, within the limit of RFC 5961 §7.
    fn challenge(&mut self, now: Timestamp) {
        if self.challenge_acks.admits(now) {
            bump(&mut self.counters.rare().challenge_acks);
            match &mut self.handshake {
                // SYN-RECEIVED: the SYN-ACK again.
                Some(handshake) => handshake.is_due = true,
                None => self.receiver.demand_ack(),
            }
        }
    }

    /// Answers an unacceptable acknowledgment during the handshake: <SEQ=SEG.ACK><CTL=RST>, with the
    /// integrity check that the segment itself carried.
    fn refuse(&mut self, segment: &Segment<'_>) {
        self.outbox.reset = Some(Box::new(Reset {
            seq: segment.header.ack,
            ack: None,
            integrity: segment.integrity().unwrap_or(Integrity::Sum),
        }));
    }
}

fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

/// Payload bytes plus one for a FIN.
fn payload_and_fin(segment: &Segment<'_>) -> u64 {
    let fin = u64::from(segment.header.flags.contains(Flags::FIN));
    (segment.payload.len() as u64).saturating_add(fin)
}
