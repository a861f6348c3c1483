//! The next departing segments: asks each part what it must say, and builds one run of equal-sized
//! segments, the shape of one GSO send.
//!
//! Order: a pending RST; SYN or SYN-ACK; duplicate ACKs and SACK reports, each a segment of its own;
//! keepalive probes; retransmissions, new data, zero-window probes, all of which carry the newest ACK; and a
//! pure ACK if one is still owed. Sequence numbers are narrowed here, once.

use std::ops::Range;

use bytes::Bytes;
use tracing::trace;

use crate::Timestamp;
use crate::connection::limits::Limit;
use crate::connection::receiver::AckReport;
use crate::connection::run::{MAX_SLICES, Output, Run, Template, Walk};
use crate::connection::sender::Plan;
use crate::connection::{Connection, Event, Offset, State, Transmit};
use crate::ecn::Ecn;
use crate::wire::{
    Flags, HEADER_LEN, Header, Integrity, Options, SackBlock, SackBlocks, SeqNumber,
};

/// Runs of fewer payload bytes are copied into the buffer: that costs less than to refer to them.
const GATHER_FROM: usize = 8 * 1024;

/// What a connection may have in its send buffer to count as terse, in bytes.
const TERSE: u64 = 256;

/// Things to send that no part of the connection owns.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// A RST; the last thing that leaves.
    pub(super) reset: Option<Box<Reset>>,
    /// Whether a keepalive probe is due.
    pub(super) keepalive_due: bool,
    /// The window field of the newest segment without SYN.
    pub(super) last_window_field: u16,
}

/// A RST to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reset {
    pub(super) seq: SeqNumber,
    /// `None` leaves the ACK flag off.
    pub(super) ack: Option<SeqNumber>,
    pub(super) integrity: Integrity,
}

impl Connection {
    /// Writes the next segments into `buf` and says what they are; `None` when there is nothing to send
    /// now. Call it until it returns `None`.
    ///
    /// All segments of one call have the same size, but for the last, which may be shorter. `buf` must
    /// hold at least one datagram of the configured size.
    pub fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        self.transmit(now, max_segments, Output { buf, pieces: None })
    }

    /// Does what [`poll_transmit`](Self::poll_transmit) does, but may leave the payloads of a long run where
    /// they lie: then `buf` holds nothing but the headers, [`Transmit::header_len`] is set, and `pieces`, which
    /// comes in empty, refers to the payloads in order; `Walk` leads over them.
    pub fn poll_transmit_gathered(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
        pieces: &mut Vec<Bytes>,
    ) -> Option<Transmit> {
        let pieces = Some(pieces);
        self.transmit(now, max_segments, Output { buf, pieces })
    }

    fn transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        output: Output<'_>,
    ) -> Option<Transmit> {
        let Some(transmit) = self.next_run(now, max_segments.max(1), output) else {
            self.note_limit(now);
            return None;
        };
        self.counters.segments_sent += transmit.segments as u64;
        if self.sender.take_writable() {
            // What has left makes room under the limit on what is not sent.
            self.events.push(Event::Writable);
        }
        trace!(
            segments = transmit.segments,
            len = transmit.len,
            "departure"
        );
        Some(transmit)
    }

    /// Says whether a command of the application may have given [`poll_transmit`](Self::poll_transmit)
    /// something to do; asked after the command. What waits for the peer or for a timer is left out: it
    /// had its turn, and has another one when that comes.
    pub fn has_transmit(&self) -> bool {
        if self.outbox.reset.is_some() {
            return true;
        }
        match self.state {
            State::Closed => false,
            State::SynSent | State::SynReceived => self
                .handshake
                .as_ref()
                .is_some_and(|handshake| handshake.is_due),
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                self.outbox.keepalive_due
                    || self.receiver.pending_acks() > 0
                    || self.receiver.has_window_update()
                    || (self.state != State::TimeWait && self.sender.has_unsent())
            }
        }
    }

    /// Says whether no more than a few bytes are in the send buffer, so that whatever
    /// [`poll_transmit`](Self::poll_transmit) has to send is short.
    pub fn is_terse(&self) -> bool {
        (self.sender.data_end()).saturating_since(self.sender.snd_una()) <= TERSE
    }

    /// Says whether a segment may have given [`poll_transmit`](Self::poll_transmit) something to do. If not,
    /// notes what holds the connection back from here on, as that would.
    pub fn wants_turn(&mut self, now: Timestamp) -> bool {
        let wants = self.has_transmit()
            || self.handshake.is_some()
            || (self.state.is_synchronized()
                && (self.receiver.ack_due(now) || self.sender.has_business()));
        if !wants {
            self.note_limit(now);
        }
        wants
    }

    /// There is nothing to send now: notes what holds the connection back from here on.
    fn note_limit(&mut self, now: Timestamp) {
        match self.state {
            State::Closed => self.limits.stop(now),
            // Both sides have finished.
            State::TimeWait => self.limits.set(now, Limit::Application),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.limits.set(now, Limit::of(&self.sender)),
        }
    }

    fn next_run(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        output: Output<'_>,
    ) -> Option<Transmit> {
        let Output { buf, pieces } = output;
        if let Some(reset) = self.outbox.reset.take() {
            return self.emit_reset(now, *reset, buf);
        }
        match self.state {
            State::Closed => None,
            State::SynSent | State::SynReceived => self.emit_handshake(now, buf),
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                if self.receiver.queued_reports() > 0 {
                    return self.emit_acks(now, max_segments, buf);
                }
                if self.outbox.keepalive_due {
                    return self.emit_keepalive(now, buf);
                }
                if self.state != State::TimeWait
                    && let Some(transmit) =
                        self.emit_data(now, max_segments, Output { buf, pieces })
                {
                    return Some(transmit);
                }
                if self.receiver.ack_due(now) || self.receiver.has_window_update() {
                    return self.emit_acks(now, 1, buf);
                }
                None
            }
        }
    }

    /// Queues a RST for a synchronized peer, the last thing this connection sends (RFC 9293 §3.5.2).
    pub(super) fn reset_peer(&mut self) {
        let Some(integrity) = self.agreed_integrity() else {
            // SYN-SENT: the peer has no connection to reset (RFC 9293 §3.10.5).
            return;
        };
        let seq = match self.handshake {
            Some(_) => Offset::FIRST,
            None => self.sender.snd_nxt(),
        };
        self.outbox.reset = Some(Box::new(Reset {
            seq: seq.narrow(self.iss),
            ack: Some(self.receiver.rcv_nxt().narrow(self.irs)),
            integrity,
        }));
    }

    fn emit_reset(&mut self, now: Timestamp, reset: Reset, buf: &mut [u8]) -> Option<Transmit> {
        // RFC 7323 §3.2: a RST should carry them too.
        let timestamps = self.timestamps(now);
        let flags = if reset.ack.is_some() {
            Flags::RST | Flags::ACK
        } else {
            Flags::RST
        };
        let header = Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: reset.seq,
            ack: reset.ack.unwrap_or_default(),
            flags,
            options: Options {
                timestamps,
                ..Options::default()
            },
            ..Header::default()
        };
        emit_bare(&Template::new(&header, reset.integrity)?, &header, buf)
    }

    /// Sends the SYN or SYN-ACK if it is due (RFC 9293 §3.5).
    fn emit_handshake(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        let tsval = self.tsval(now);
        let tsecr = self.ts_recent.map_or(0, |(tsval, _)| tsval);
        let handshake = self
            .handshake
            .as_mut()
            .filter(|handshake| handshake.is_due)?;
        let options = handshake.options(&self.config, tsval, tsecr);
        let is_answer = self.state == State::SynReceived;
        let offer = (handshake.offers).offer(self.config.ecn, is_answer, handshake.retries);
        let header = Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: self.iss,
            ack: if is_answer {
                self.irs + 1
            } else {
                SeqNumber::default()
            },
            flags: if is_answer {
                Flags::SYN | Flags::ACK | offer
            } else {
                Flags::SYN | offer
            },
            // RFC 7323 §2.2: never scaled.
            window: self.receiver.window_field_syn(),
            options,
        };
        let transmit = emit_bare(&Template::new(&header, Integrity::Sum)?, &header, buf)?;
        if handshake.sent_at.is_some() {
            self.counters.rare().segments_retransmitted += 1;
        }
        handshake.on_sent(now, &self.config);
        if is_answer {
            self.last_ack_sent = Offset::FIRST;
        }
        Some(transmit)
    }

    /// Sends pure ACKs: the queued reports, as many as have the same size, or one that is owed.
    fn emit_acks(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Transmit> {
        let mut run = Run::new(buf);
        let mut queued = self.receiver.queued_reports();
        loop {
            let report = self.receiver.next_ack();
            let ack = report.rcv_nxt;
            let seq = self.sender.ack_seq();
            let header = self.header(now, seq, self.echo.flags(), &report);
            let template = Template::new(&header, self.integrity())?;
            let out = run.next(template.len)?;
            template.write(out, header.seq, header.flags, |_| {});
            self.on_ack_departed(ack, header.window);
            queued = queued.saturating_sub(1);
            // The next report has the same size if it names as many blocks; else it begins a new run.
            if queued == 0
                || run.segments() >= max_segments
                || self.receiver.next_ack_blocks() != report.sack.len()
                || !run.takes(template.len)
            {
                return run.finish();
            }
        }
    }

    /// RFC 9293 §3.8.4: an old number without data, which a living peer answers.
    fn emit_keepalive(&mut self, now: Timestamp, buf: &mut [u8]) -> Option<Transmit> {
        self.outbox.keepalive_due = false;
        let report = self.receiver.next_ack();
        let seq = self.sender.snd_nxt().saturating_back(1);
        let header = self.header(now, seq, self.echo.flags(), &report);
        let transmit = emit_bare(&Template::new(&header, self.integrity())?, &header, buf)?;
        self.counters.rare().keepalive_probes += 1;
        self.on_ack_departed(report.rcv_nxt, header.window);
        Some(transmit)
    }

    /// Sends retransmissions, new data or a zero-window probe, if any may go now.
    fn emit_data(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        output: Output<'_>,
    ) -> Option<Transmit> {
        let Output { buf, pieces } = output;
        self.negotiated?;
        let report = self.receiver.next_ack();
        let header_len = HEADER_LEN + self.options(now, &report).encoded_len();
        self.update_path_mtu(now);
        let limit = self.path_mtu.size();
        let mut payload_max = limit.saturating_sub(header_len).max(1);
        let fit = buf.len() / (header_len + payload_max);
        let max_segments = max_segments.min(fit);
        if max_segments == 0 {
            return None;
        }
        let probe = self.path_mtu.wanted(now).filter(|&size| size <= buf.len());
        (self.sender).want_path_probe(probe.map(|size| size.saturating_sub(header_len) as u64));
        let mut plan = self.sender.plan(now, payload_max as u64, max_segments)?;
        let header = self.header(now, Offset::ZERO, self.echo.flags(), &report);
        let template = Template::new(&header, self.integrity())?;
        let is_marked = self.sender.is_to_mark(&plan);
        if let (Plan::PathProbe(range), Some(size)) = (&plan, probe) {
            payload_max = self.payload_len(range);
            self.path_mtu.on_probe_sent(size);
        }
        let pieces = pieces.filter(|_| template.may_stand_apart());
        let pieces = pieces.and_then(|pieces| self.share(&plan, payload_max, pieces));
        let mut run = match pieces {
            Some(_) => Run::of_headers(buf, template.len),
            None => Run::new(buf),
        };
        loop {
            let range = match &plan {
                Plan::Retransmit(range)
                | Plan::New(range)
                | Plan::PathProbe(range)
                | Plan::Probe(range) => range.clone(),
            };
            if !run.takes(template.len + self.payload_len(&range).min(payload_max)) {
                break;
            }
            let cwr = if self.sender.take_cwr(&plan) {
                Flags::CWR
            } else {
                Flags::EMPTY
            };
            if is_marked {
                self.sender.on_marked(&range);
            }
            let walk = pieces.map(Walk::new);
            self.write_segments(&mut run, &template, &range, (payload_max, cwr), walk);
            self.count_data(&plan, &range, payload_max);
            self.sender.on_departure(now, &plan, range);
            let Plan::Retransmit(_) = plan else { break };
            if run.segments() >= max_segments {
                break;
            }
            match self
                .sender
                .plan(now, payload_max as u64, max_segments - run.segments())
            {
                Some(next @ Plan::Retransmit(_)) => plan = next,
                Some(Plan::New(_) | Plan::PathProbe(_) | Plan::Probe(_)) | None => break,
            }
        }
        self.on_ack_departed(report.rcv_nxt, header.window);
        let ecn = is_marked.then_some(Ecn::Ect0);
        run.finish().map(|transmit| Transmit { ecn, ..transmit })
    }

    /// Refers to the payload of a long run instead of copying it, if it lies in few places.
    fn share<'a>(
        &mut self,
        plan: &Plan,
        payload_max: usize,
        pieces: &'a mut Vec<Bytes>,
    ) -> Option<&'a [Bytes]> {
        let (Plan::New(range) | Plan::PathProbe(range)) = plan else {
            return None;
        };
        let len = self.payload_len(range);
        if len < GATHER_FROM {
            return None;
        }
        self.sender.share_payload(range, pieces);
        if 2 * len.div_ceil(payload_max.max(1)) + pieces.len() > MAX_SLICES {
            pieces.clear();
            return None;
        }
        Some(pieces)
    }

    /// Writes `range` as segments of at most `payload_max` bytes, or their headers, if `walk` leads over the
    /// payloads. A range that fits the run's remaining segments is written whole. Its first segment also
    /// carries `cwr`.
    fn write_segments(
        &self,
        run: &mut Run<'_>,
        template: &Template,
        range: &Range<Offset>,
        (payload_max, cwr): (usize, Flags),
        mut walk: Option<Walk<'_>>,
    ) {
        let data_end = self.sender.data_end();
        let mut start = range.start;
        loop {
            let rest = start..range.end;
            let len = self.payload_len(&rest).min(payload_max);
            let mut end = start + len as u64;
            let mut flags = self.echo.flags();
            if start == range.start {
                flags |= cwr;
            }
            if end >= data_end {
                if len > 0 {
                    // The last byte written so far: nothing more to wait for (RFC 9293 §3.9.1.2). A FIN
                    // alone has nothing to push (§3.6, Figure 12).
                    flags |= Flags::PSH;
                }
                if range.end > data_end {
                    flags |= Flags::FIN;
                    end += 1;
                }
            }
            let Some(out) = run.next(template.len + len) else {
                return;
            };
            let seq = start.narrow(self.iss);
            match &mut walk {
                Some(walk) => template.write_apart(out, seq, flags, walk.take(len)),
                None => template.write(out, seq, flags, |payload| {
                    let range = start..start + len as u64;
                    self.sender.copy_payload(&range, payload);
                }),
            }
            start = end;
            if start >= range.end {
                return;
            }
        }
    }

    /// Bytes of `range` that are data and not the FIN's number.
    fn payload_len(&self, range: &Range<Offset>) -> usize {
        let end = range.end.min(self.sender.data_end());
        usize::try_from(end.saturating_since(range.start)).unwrap_or(usize::MAX)
    }

    fn count_data(&mut self, plan: &Plan, range: &Range<Offset>, payload_max: usize) {
        let bytes = self.payload_len(range) as u64;
        let segments = bytes.div_ceil(payload_max as u64).max(1);
        self.counters.bytes_sent += bytes;
        match plan {
            Plan::Retransmit(_) => {
                let counters = self.counters.rare();
                counters.segments_retransmitted += segments;
                counters.bytes_retransmitted += bytes;
            }
            Plan::New(_) | Plan::PathProbe(_) | Plan::Probe(_) => {}
        }
    }

    /// Builds a header with everything that the connection has to say besides data.
    fn header(&mut self, now: Timestamp, seq: Offset, flags: Flags, report: &AckReport) -> Header {
        Header {
            src_port: self.local_port,
            dst_port: self.remote_port,
            seq: seq.narrow(self.iss),
            ack: report.rcv_nxt.narrow(self.irs),
            flags,
            window: self.receiver.advertise(report),
            options: self.options(now, report),
        }
    }

    /// The options of a segment without SYN: timestamps and SACK blocks, as agreed.
    fn options(&self, now: Timestamp, report: &AckReport) -> Options {
        let timestamps = self.timestamps(now);
        // RFC 2018 §3: three blocks beside timestamps, else four.
        let most = if timestamps.is_some() {
            3
        } else {
            SackBlocks::MAX
        };
        let mut sack_blocks = SackBlocks::new();
        for range in report.sack.as_slice().iter().take(most) {
            sack_blocks.push(SackBlock {
                left: range.start.narrow(self.irs),
                right: range.end.narrow(self.irs),
            });
        }
        Options {
            sack_blocks,
            timestamps,
            ..Options::default()
        }
    }

    fn integrity(&self) -> Integrity {
        self.negotiated
            .map_or(Integrity::Sum, |negotiated| negotiated.integrity())
    }

    /// A segment left that acknowledges up to `ack`.
    fn on_ack_departed(&mut self, ack: Offset, window_field: u16) {
        self.receiver.on_ack_sent();
        if ack > self.last_ack_sent {
            self.previous_ack_sent = self.last_ack_sent;
            self.last_ack_sent = ack;
        }
        self.outbox.last_window_field = window_field;
    }
}

/// Writes a single segment without payload.
fn emit_bare(template: &Template, header: &Header, buf: &mut [u8]) -> Option<Transmit> {
    let mut run = Run::new(buf);
    let out = run.next(template.len)?;
    template.write(out, header.seq, header.flags, |_| {});
    run.finish()
}
