//! An arriving datagram: is it a segment, is it intact, whose is it.
//!
//! A live connection's key decides first, then a TIME-WAIT record's, then a listener's port. What is left
//! belongs to nobody and is answered as RFC 9293 §3.10.7.1 says, unless a live connection has the same port
//! pair: then the peer may have moved behind its NAT, and a reset would kill what is about to follow it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::demux::{Key, without_flow};
use super::listen::Listener;
use super::slot::{Handle, Origin};
use super::stateless::{Answer, reset_for};
use super::time_wait::{Verdict, is_newer_incarnation};
use super::{Arrival, Endpoint, Opening};
use crate::connection::{State, TimeWaitRecord};
use crate::tap::Direction;
use crate::timestamp::Timestamp;
use crate::wire::{Flags, Header, Integrity, Segment, SeqNumber, peek_ports, peek_seq};

impl Endpoint {
    /// Takes in datagrams that arrived together.
    pub fn handle_arrival(&mut self, now: Timestamp, arrival: &Arrival<'_>) {
        let len = arrival.bytes.len();
        self.stats.bytes_received += len as u64;
        if len == 0 {
            self.stats.datagrams_received += 1;
            self.stats.dropped_malformed += 1;
        }
        let stride = if arrival.stride == 0 {
            len
        } else {
            arrival.stride
        };
        // A train mostly belongs to one connection, which is looked after once at its end.
        let mut touched = None;
        let mut latest = None;
        for datagram in arrival.bytes.chunks(stride.max(1)) {
            let next = self.handle_datagram(now, arrival, datagram, &mut latest);
            if let Some(previous) = touched.filter(|_| touched != next) {
                self.after_arrival(now, previous);
            }
            touched = next;
        }
        if let Some(index) = touched {
            self.after_arrival(now, index);
        }
    }

    /// Takes in an ICMP "unreachable" error; `quoted` is what it quotes of a datagram that we sent to
    /// `remote`.
    pub fn handle_unreachable(&mut self, now: Timestamp, remote: SocketAddr, quoted: &[u8]) {
        let (Some((local_port, remote_port)), Some(seq)) = (peek_ports(quoted), peek_seq(quoted))
        else {
            return;
        };
        let Some(index) = self.demux.get(&Key::new(remote, remote_port, local_port)) else {
            return;
        };
        let is_waiting = self.is_waiting_for_rendezvous(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if !is_waiting {
            slot.connection.handle_unreachable(now, seq);
        }
        if slot.connection.state() != State::Closed {
            self.stats.icmp_errors += 1;
        }
        self.after_input(now, index);
    }

    /// Takes in one datagram; returns the slot of the connection that it was handed to. `latest` is where the
    /// one right before it in its train went, so that nothing was removed since.
    fn handle_datagram(
        &mut self,
        now: Timestamp,
        arrival: &Arrival<'_>,
        datagram: &[u8],
        latest: &mut Option<(Key, usize)>,
    ) -> Option<usize> {
        self.stats.datagrams_received += 1;
        // Whatever comes of this one: behind a datagram that went nowhere the connection was looked after.
        let before = latest.take();
        let segment = match Segment::decode(datagram) {
            Ok(segment) if segment.header.src_port != 0 && segment.header.dst_port != 0 => segment,
            Ok(_) => {
                self.stats.dropped_malformed += 1;
                return None;
            }
            Err(error) => {
                tracing::trace!(remote = %arrival.remote, %error, "dropped a malformed datagram");
                self.stats.dropped_malformed += 1;
                return None;
            }
        };
        let key = Key::new(
            arrival.remote,
            segment.header.src_port,
            segment.header.dst_port,
        );
        let incoming = Incoming {
            arrival,
            datagram,
            segment: &segment,
            key,
        };
        let found = match before {
            Some((same, index)) if same == key => Some(index),
            _ => self.demux.get(&key),
        };
        if let Some(index) = found {
            if let Some(record) = self.outdated(&incoming, index) {
                self.show_incoming(now, &incoming);
                let slot = self.slots.get_mut(index)?;
                slot.connection.give_way();
                let length = slot.connection.config().time_wait;
                self.settle(now, index);
                // Until there is room for the new connection, TIME-WAIT remains in force.
                self.time_wait.insert(key, record, length);
                return self.on_syn_to_listener(now, &incoming, Some(record.snd_nxt));
            }
            match self.judge_half_open(now, &incoming, index) {
                HalfOpenVerdict::Deliver => {
                    let delivered = self.deliver(now, &incoming, index);
                    *latest = delivered.map(|index| (key, index));
                    return delivered;
                }
                HalfOpenVerdict::Ignore => {
                    self.show_incoming(now, &incoming);
                    self.stats.dropped_no_connection += 1;
                    return None;
                }
                HalfOpenVerdict::Replace => {
                    self.abandon(index);
                    self.remove(index);
                }
            }
        }
        if !is_answerable(arrival) {
            self.stats.dropped_no_connection += 1;
            return None;
        }
        self.time_wait.expire(now);
        if let Some(verdict) = self.time_wait.judge(now, &key, &segment) {
            return self.on_time_wait(now, &incoming, verdict);
        }
        let integrity = if segment.header.flags.contains(Flags::SYN) {
            Some(Integrity::Sum).filter(|&sum| segment.verify(sum))
        } else {
            segment.integrity()
        };
        let Some(integrity) = integrity else {
            self.drop_damaged(&incoming);
            return None;
        };
        self.show_incoming(now, &incoming);
        if self.listeners.contains_key(&key.local_port) {
            return self.on_listening(now, &incoming, integrity);
        }
        self.refuse(now, &incoming, integrity);
        None
    }

    /// RFC 6191 §2, for a connection in TIME-WAIT whose socket the application still holds: returns what has to
    /// be remembered of it, if the segment proves that it asks for the next one.
    fn outdated(&self, incoming: &Incoming<'_>, index: usize) -> Option<TimeWaitRecord> {
        let connection = &self.slots.get(index)?.connection;
        if connection.state() != State::TimeWait {
            return None;
        }
        let record = connection.time_wait()?;
        let is_proven = self.listeners.contains_key(&incoming.key.local_port)
            && incoming.segment.verify(Integrity::Sum)
            && is_newer_incarnation(&record, incoming.segment);
        is_proven.then_some(record)
    }

    /// Looks for an answer to a cookie among the segments for a half-open connection: the SYN came again
    /// once there was room and was answered with another number, but the peer knows only the first one.
    fn judge_half_open(
        &self,
        now: Timestamp,
        incoming: &Incoming<'_>,
        index: usize,
    ) -> HalfOpenVerdict {
        let header = &incoming.segment.header;
        let is_other_ack = self.slots.get(index).is_some_and(|slot| {
            matches!(slot.handle, Handle::HalfOpen(_))
                && slot.connection.state() == State::SynReceived
                && header.flags.contains(Flags::ACK)
                && !header.flags.intersects(Flags::SYN | Flags::RST)
                && header.ack != slot.connection.iss() + 1
        });
        let is_other_ack = is_other_ack && incoming.segment.integrity().is_some();
        let listener = self.listeners.get(&incoming.key.local_port);
        let Some(listener) = listener.filter(|l| is_other_ack && l.expects_cookies(now)) else {
            return HalfOpenVerdict::Deliver;
        };
        let is_cookie = self
            .taste(now, &incoming.opening(listener), incoming.segment)
            .is_some_and(|(_, negotiated)| incoming.segment.verify(negotiated.integrity()));
        if is_cookie {
            HalfOpenVerdict::Replace
        } else {
            // Deviation from RFC 9293 §3.10.7.4: no reset while cookies are under way, because it may be
            // later data of such a peer.
            HalfOpenVerdict::Ignore
        }
    }

    /// Hands a segment to the connection that it belongs to.
    fn deliver(&mut self, now: Timestamp, incoming: &Incoming<'_>, index: usize) -> Option<usize> {
        let segment = incoming.segment;
        let flags = segment.header.flags;
        let connection = &self.slots.get(index)?.connection;
        let expected = connection.expected_integrity(flags);
        let is_intact = expected.map_or_else(
            || segment.integrity().is_some(),
            |check| segment.verify(check),
        );
        if !is_intact {
            self.drop_damaged(incoming);
            return None;
        }
        self.show_incoming(now, incoming);
        if flags.contains(Flags::RST) && self.is_waiting_for_rendezvous(index) {
            return None;
        }
        if self.is_too_much(index, segment) {
            self.stats.dropped_memory += 1;
            return None;
        }
        let slot = self.slots.get_mut(index)?;
        if let Handle::HalfOpen(budget) = &mut slot.handle {
            budget.on_received(incoming.datagram.len());
        }
        slot.local_ip = incoming.arrival.local_ip.or(slot.local_ip);
        slot.connection.note_mark(incoming.arrival.ecn);
        // The payload lies inside the train's buffer too: no reference count per segment.
        slot.connection
            .handle_segment(now, segment, incoming.arrival.bytes);
        Some(index)
    }

    /// Whether a connection holds more than its share of an exhausted memory and must not add to it. What
    /// its reader waits for it may, or a full memory would keep itself full.
    fn is_too_much(&self, index: usize, segment: &Segment<'_>) -> bool {
        if segment.payload.is_empty() || self.memory <= self.config.max_memory {
            return false;
        }
        let share = self.config.max_memory / self.slots.len().max(1);
        self.slots
            .get(index)
            .is_some_and(|slot| slot.memory > share && !slot.connection.awaits(segment))
    }

    /// A segment without a connection, to a port that is listened on (RFC 9293 §3.10.7.2).
    fn on_listening(
        &mut self,
        now: Timestamp,
        incoming: &Incoming<'_>,
        integrity: Integrity,
    ) -> Option<usize> {
        let flags = incoming.segment.header.flags;
        if flags.contains(Flags::ACK) && !flags.contains(Flags::RST) {
            let listener = self.listeners.get(&incoming.key.local_port)?;
            let cookie = SeqNumber::new(incoming.segment.header.ack.get().wrapping_sub(1));
            if self.spent_cookies.contains(&incoming.key, cookie) {
                // The connection has come to its end: this is as if there had been no cookie.
            } else if listener.expects_cookies(now) && !flags.contains(Flags::SYN) {
                // Deviation from RFC 9293 §3.10.7.2: no reset while cookies are under way, because it may
                // be later data of a peer whose ACK of a cookie was lost or found no room.
                let opening = incoming.opening(listener);
                let index = self.on_cookie(now, &opening, incoming.segment)?;
                let slot = self.slots.get_mut(index)?;
                slot.connection.note_mark(incoming.arrival.ecn);
                slot.connection
                    .handle_segment(now, incoming.segment, incoming.arrival.bytes);
                return Some(index);
            }
            self.refuse(now, incoming, integrity);
            return None;
        }
        if flags.contains(Flags::SYN) && !flags.intersects(Flags::RST | Flags::FIN) {
            return self.on_syn_to_listener(now, incoming, None);
        }
        self.stats.dropped_no_connection += 1;
        None
    }

    fn on_syn_to_listener(
        &mut self,
        now: Timestamp,
        incoming: &Incoming<'_>,
        after: Option<SeqNumber>,
    ) -> Option<usize> {
        let listener = self.listeners.get(&incoming.key.local_port)?;
        let opening = Opening {
            after,
            ..incoming.opening(listener)
        };
        self.on_syn(now, &opening, incoming.segment, incoming.datagram.len())
    }

    /// A segment that belongs to nobody.
    fn refuse(&mut self, now: Timestamp, incoming: &Incoming<'_>, integrity: Integrity) {
        if self.demux.is_pair_alive(&incoming.key) {
            self.stats.dropped_foreign_address += 1;
            return;
        }
        self.stats.dropped_no_connection += 1;
        let Some(header) = reset_for(incoming.segment) else {
            return;
        };
        if !self.resets.take(now) {
            self.stats.resets_suppressed += 1;
            return;
        }
        if self.send_answer(incoming.answer(header, integrity)) {
            self.stats.resets_sent += 1;
        }
    }

    /// A segment that met a TIME-WAIT record.
    fn on_time_wait(
        &mut self,
        now: Timestamp,
        incoming: &Incoming<'_>,
        verdict: Verdict,
    ) -> Option<usize> {
        match verdict {
            Verdict::Damaged => self.drop_damaged(incoming),
            Verdict::Ignore => {
                self.show_incoming(now, incoming);
                self.stats.dropped_time_wait += 1;
            }
            Verdict::Answer(header, integrity) => {
                self.show_incoming(now, incoming);
                self.stats.dropped_time_wait += 1;
                self.send_answer(incoming.answer(*header, integrity));
            }
            Verdict::Reopen(after) => {
                self.show_incoming(now, incoming);
                if self.listeners.contains_key(&incoming.key.local_port) {
                    return self.on_syn_to_listener(now, incoming, Some(after));
                }
                self.refuse(now, incoming, Integrity::Sum);
            }
        }
        None
    }

    /// Whether the connection is a rendezvous whose peer has not appeared yet: what refuses it may only
    /// mean that the peer is late.
    fn is_waiting_for_rendezvous(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| {
            slot.origin == Origin::Rendezvous && slot.connection.state() == State::SynSent
        })
    }

    /// Queues an answer; returns whether there was room.
    pub(super) fn send_answer(&mut self, answer: Answer) -> bool {
        let is_queued = self.outbox.push(answer);
        if !is_queued {
            self.stats.answers_dropped += 1;
        }
        is_queued
    }

    fn drop_damaged(&mut self, incoming: &Incoming<'_>) {
        tracing::trace!(remote = %incoming.arrival.remote, "dropped a damaged segment");
        self.stats.dropped_checksum += 1;
    }

    fn show_incoming(&mut self, now: Timestamp, incoming: &Incoming<'_>) {
        let arrival = incoming.arrival;
        self.show(
            now,
            Direction::Incoming,
            (arrival.remote, arrival.local_ip),
            incoming.datagram,
            incoming.datagram.len(),
        );
    }
}

/// Whether somebody without a connection may get an answer. Not what was sent to many (RFC 9293
/// §3.9.2.3; of broadcasts only the limited one shows itself), nor what names no sender: to send from
/// such an address or to port 0 is refused by the system in the words in which it refuses
/// segmentation offload, and the unspecified address would lead back to this host.
fn is_answerable(arrival: &Arrival<'_>) -> bool {
    let is_shared = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    let remote = arrival.remote.ip().to_canonical();
    let local = arrival.local_ip.map(|ip| ip.to_canonical());
    arrival.remote.port() != 0
        && !remote.is_unspecified()
        && !is_shared(remote)
        && !local.is_some_and(is_shared)
}

/// What to do with a segment whose key is that of a connection.
enum HalfOpenVerdict {
    /// Hand it to the connection.
    Deliver,
    /// Drop it.
    Ignore,
    /// It proves a cookie, whose connection takes the half-open one's place.
    Replace,
}

/// One datagram that holds a segment.
struct Incoming<'a> {
    arrival: &'a Arrival<'a>,
    datagram: &'a [u8],
    segment: &'a Segment<'a>,
    key: Key,
}

impl Incoming<'_> {
    /// Names the sender as somebody who asks `listener` for a connection.
    fn opening(&self, listener: &Listener) -> Opening {
        Opening {
            key: self.key,
            remote: without_flow(self.arrival.remote),
            local_ip: self.arrival.local_ip,
            config: Arc::clone(&listener.config),
            after: None,
        }
    }

    /// Addresses a segment to the sender, from the address that it used.
    fn answer(&self, header: Header, integrity: Integrity) -> Answer {
        Answer {
            remote: without_flow(self.arrival.remote),
            local_ip: self.arrival.local_ip,
            header,
            integrity,
        }
    }
}
