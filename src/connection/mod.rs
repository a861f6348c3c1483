//! `Connection`: the sans-IO state machine of one connection (RFC 9293).
//!
//! It owns no socket and reads no clock. The caller feeds it segments, timeouts and the application's
//! wishes, each with the time, and after a batch of inputs drains what comes out:
//!
//! 1. [`poll_transmit`](Connection::poll_transmit) until it returns `None`;
//! 2. [`poll_event`](Connection::poll_event) until it returns `None`;
//! 3. [`poll_timeout`](Connection::poll_timeout): when to call
//!    [`handle_timeout`](Connection::handle_timeout) if nothing else happens before.
//!
//! `now` never goes backwards from one call to the next.
//!
//! Sender and receiver are separate state machines that do not know each other; `ingress` and `egress`
//! know both.

#![allow(
    unreachable_pub,
    unnameable_types,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

mod datagram_size;
mod ecn;
mod egress;
mod expiry;
mod handshake;
mod ingress;
mod limits;
mod offset;
mod offset_map;
mod on_demand;
mod path_mtu;
mod range_set;
mod receiver;
mod recovery;
mod run;
mod sender;
mod snapshot;
mod state;
mod teardown;
mod timers;
mod timestamps;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::ecn::is_setup as is_ecn_setup;
use self::ecn::{Echo, EcnOffers};
use self::egress::Outbox;
use self::handshake::{Confirmation, Handshake};
pub use self::handshake::{Negotiated, own_extension, window_shift};
use self::limits::{Limit, LimitClock};
pub use self::offset::Offset;
use self::path_mtu::PathMtu;
#[cfg(any(fuzzing, feature = "__internals"))]
pub use self::receiver::fuzz::fuzz_assembler;
use self::receiver::{Receiver, ReceiverParams};
#[cfg(any(fuzzing, feature = "__internals"))]
pub use self::recovery::{AckArrival, AckOutcome, Recovery, RecoveryStart};
pub use self::run::{MAX_SLICES, Walk};
use self::sender::{Blocked, Sender};
pub use self::state::State;
use self::teardown::Ending;
pub use self::teardown::TimeWaitRecord;
use crate::ecn::Ecn;
use crate::wire::{Flags, Integrity, Segment, SeqNumber};
use crate::{Config, ConnectionError, Timestamp};

/// What identifies a connection within its endpoint and seeds its numbers; drawn by the endpoint.
#[derive(Debug, Clone, Copy)]
pub struct OpenParams {
    /// Our virtual port.
    pub local_port: u16,
    /// The peer's virtual port.
    pub remote_port: u16,
    /// Our initial sequence number (RFC 6528).
    pub iss: SeqNumber,
    /// Added to the millisecond clock in our timestamps (RFC 7323 §5.4).
    pub timestamp_offset: u32,
}

/// Something the application may be waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake is done.
    Connected,
    /// There is something to read, or the end of the stream.
    Readable,
    /// There is room to write.
    Writable,
    /// [`finish_status`](Connection::finish_status) became `Ok(true)`.
    Finished,
    /// The connection is over; [`error`](Connection::error) says why, or `None` for an orderly end.
    Closed,
}

/// Why a write took nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteError {
    /// The buffer is full; [`Event::Writable`] follows.
    Blocked,
    /// The application finished the stream.
    Finished,
    /// The connection is over.
    Closed(ConnectionError),
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadError {
    /// Nothing has arrived; [`Event::Readable`] follows.
    Blocked,
    /// The connection is over and everything that arrived was read.
    Closed(ConnectionError),
}

/// What [`Connection::poll_transmit`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Size of every segment but the last, which may be shorter.
    pub segment_size: usize,
    /// Number of segments.
    pub segments: usize,
    /// The mark that all of them are to carry in their IP headers.
    pub ecn: Option<Ecn>,
    /// Length of each segment's header, if the buffer holds nothing but the headers: see
    /// [`Connection::poll_transmit_gathered`].
    pub header_len: Option<usize>,
}

/// One connection.
///
/// Invariants, besides those of its parts:
/// - `handshake` is present exactly in SYN-SENT and SYN-RECEIVED;
/// - `negotiated` is present in every synchronized state;
/// - once the state is CLOSED nothing but one pending RST goes out.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    local_port: u16,
    remote_port: u16,
    iss: SeqNumber,
    /// The peer's initial sequence number; meaningful once its SYN arrived.
    irs: SeqNumber,
    state: State,
    handshake: Option<Box<Handshake>>,
    /// Set until the peer is heard after the handshake, on the side that connected.
    confirmation: Option<Confirmation>,
    negotiated: Option<Negotiated>,
    sender: Sender,
    receiver: Receiver,
    path_mtu: PathMtu,
    timestamp_offset: u32,
    /// TS.Recent and when it was set (RFC 7323 §4.3).
    ts_recent: Option<(u32, Timestamp)>,
    /// The timestamp of the peer's SYN, before which it has sent nothing on this connection.
    ts_first: u32,
    /// Last.ACK.sent (RFC 7323 §4.3).
    last_ack_sent: Offset,
    /// The acknowledgment before that, from where the peer sends again if the newest was lost.
    previous_ack_sent: Offset,
    outbox: Outbox,
    /// When an acceptable segment last arrived.
    last_heard: Timestamp,
    /// Keepalive probes sent since then.
    keepalive_probes: u32,
    challenge_acks: ChallengeLimit,
    /// `None` until something ends it or bounds its life.
    ending: Option<Box<Ending>>,
    events: Events,
    counters: Counters,
    limits: LimitClock,
    echo: Echo,
}

/// Counters that belong to neither sender nor receiver.
#[derive(Debug, Default)]
struct Counters {
    segments_sent: u64,
    segments_received: u64,
    bytes_sent: u64,
    /// `None` as long as there is none.
    rare: Option<Box<RareCounters>>,
}

/// Counters of what few connections see.
#[derive(Debug, Clone, Copy, Default)]
struct RareCounters {
    segments_retransmitted: u64,
    bytes_retransmitted: u64,
    segments_unacceptable: u64,
    acks_of_unsent_data: u64,
    keepalive_probes: u64,
    challenge_acks: u64,
}

impl Counters {
    fn rare(&mut self) -> &mut RareCounters {
        self.rare.get_or_insert_default()
    }
}

/// Events not yet taken, at most one of each kind.
#[derive(Debug, Default)]
struct Events([bool; 5]);

impl Events {
    const ORDER: [Event; 5] = [
        Event::Connected,
        Event::Readable,
        Event::Writable,
        Event::Finished,
        Event::Closed,
    ];

    fn push(&mut self, event: Event) {
        if let Some(slot) = self.0.get_mut(event as usize) {
            *slot = true;
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let slot = self
            .0
            .iter_mut()
            .zip(Self::ORDER)
            .find(|(is_set, _)| **is_set);
        slot.map(|(is_set, event)| {
            *is_set = false;
            event
        })
    }
}

/// Limits challenge ACKs per second (RFC 5961 §7).
#[derive(Debug)]
struct ChallengeLimit {
    per_second: u32,
    window_began: Timestamp,
    sent: u32,
}

impl ChallengeLimit {
    fn admits(&mut self, now: Timestamp) -> bool {
        if now.saturating_since(self.window_began) >= Duration::from_secs(1) {
            self.window_began = now;
            self.sent = 0;
        }
        let admitted = self.sent < self.per_second;
        self.sent += u32::from(admitted);
        admitted
    }
}

impl Connection {
    /// Opens actively: enters SYN-SENT, and the SYN comes out of
    /// [`poll_transmit`](Self::poll_transmit). If the peer's SYN crosses it, the open is simultaneous.
    pub fn connect(now: Timestamp, config: Arc<Config>, params: &OpenParams) -> Self {
        Self::new(
            now,
            config,
            params,
            State::SynSent,
            Some(Box::new(Handshake::new(now, false))),
        )
    }

    /// Opens passively: enters SYN-RECEIVED for the listener that got `syn`.
    pub fn accept(
        now: Timestamp,
        config: Arc<Config>,
        params: &OpenParams,
        syn: &Segment<'_>,
    ) -> Self {
        let handshake = Box::new(Handshake::new(now, true));
        let mut connection = Self::new(now, config, params, State::SynReceived, Some(handshake));
        connection.take_syn(now, syn);
        connection
    }

    /// Enters ESTABLISHED from a valid SYN cookie (RFC 4987 §3.6). The caller then feeds `ack`, the
    /// segment that brought the cookie, to [`handle_segment`](Self::handle_segment).
    pub fn from_cookie(
        now: Timestamp,
        config: Arc<Config>,
        params: &OpenParams,
        negotiated: &Negotiated,
        ack: &Segment<'_>,
    ) -> Self {
        let mut handshake = Box::new(Handshake::new(now, true));
        handshake.is_due = false;
        handshake.negotiated = Some(*negotiated);
        handshake.offers = EcnOffers::remembered(negotiated.ecn);
        let mut connection = Self::new(now, config, params, State::SynReceived, Some(handshake));
        connection.irs = ack.header.seq + u32::MAX;
        connection.start_ts_recent(now, &ack.header);
        connection
    }

    fn new(
        now: Timestamp,
        config: Arc<Config>,
        params: &OpenParams,
        state: State,
        handshake: Option<Box<Handshake>>,
    ) -> Self {
        Self {
            local_port: params.local_port,
            remote_port: params.remote_port,
            iss: params.iss,
            irs: SeqNumber::default(),
            state,
            handshake,
            confirmation: None,
            negotiated: None,
            sender: Sender::new(&config),
            path_mtu: PathMtu::new(&config),
            receiver: Receiver::new(&ReceiverParams {
                capacity: config.initial_receive_buffer(),
                max_capacity: config.receive_buffer,
                ack_delay: config.ack_delay,
            }),
            timestamp_offset: params.timestamp_offset,
            ts_recent: None,
            ts_first: 0,
            last_ack_sent: Offset::ZERO,
            previous_ack_sent: Offset::ZERO,
            outbox: Outbox::default(),
            last_heard: now,
            keepalive_probes: 0,
            challenge_acks: ChallengeLimit {
                per_second: config.challenge_ack_limit,
                window_began: now,
                sent: 0,
            },
            ending: None,
            events: Events::default(),
            counters: Counters::default(),
            limits: LimitClock::new(),
            echo: Echo::default(),
            config,
        }
    }

    /// Returns the settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns our virtual port.
    pub fn local_port(&self) -> u16 {
        self.local_port
    }

    /// Returns the peer's virtual port.
    pub fn remote_port(&self) -> u16 {
        self.remote_port
    }

    /// Returns our initial sequence number.
    pub fn iss(&self) -> SeqNumber {
        self.iss
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Returns the integrity check that an arriving segment with `flags` must pass; `None` means either.
    ///
    /// A segment with SYN always carries the plain sum. While nothing is agreed, others may carry either;
    /// so may a RST in SYN-RECEIVED, for a peer that does not know of the connection answers our SYN-ACK
    /// with the check that this one carries.
    pub fn expected_integrity(&self, flags: Flags) -> Option<Integrity> {
        if flags.contains(Flags::SYN) {
            return Some(Integrity::Sum);
        }
        let is_refusal = self.state == State::SynReceived && flags.contains(Flags::RST);
        self.agreed_integrity().filter(|_| !is_refusal)
    }

    /// The check of all segments without SYN, once both SYNs are known.
    fn agreed_integrity(&self) -> Option<Integrity> {
        let negotiated = self
            .negotiated
            .or_else(|| self.handshake.as_ref()?.negotiated);
        negotiated.map(|negotiated| negotiated.integrity())
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Copies a prefix of `data` into the send buffer and returns its length. Data may be written
    /// before the handshake is done.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing was taken.
    pub fn write(&mut self, now: Timestamp, data: &[u8]) -> Result<usize, WriteError> {
        self.may_write()?;
        self.sender.before_write(now);
        let taken = self.sender.write(data);
        self.note_full_buffer(now);
        match taken {
            0 if !data.is_empty() => Err(WriteError::Blocked),
            taken => Ok(taken),
        }
    }

    /// Takes a prefix of `data` into the send buffer, without copying unless it is small, and returns
    /// its length.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; nothing was taken.
    pub fn write_chunk(&mut self, now: Timestamp, data: &mut Bytes) -> Result<usize, WriteError> {
        self.may_write()?;
        let was_empty = data.is_empty();
        self.sender.before_write(now);
        let taken = self.sender.write_chunk(data);
        self.note_full_buffer(now);
        match taken {
            0 if !was_empty => Err(WriteError::Blocked),
            taken => Ok(taken),
        }
    }

    /// Notes that the buffer is what sending waits for, if all that it holds is under way. A write that finds
    /// it full gives nothing to send, so that nobody asks what holds the connection back.
    fn note_full_buffer(&mut self, now: Timestamp) {
        let is_drained = !self.sender.has_unsent() || self.sender.blocked() == Blocked::Nagle;
        if self.sender.is_writer_waiting() && is_drained {
            self.limits.set(now, Limit::SendBuffer);
        }
    }

    fn may_write(&self) -> Result<(), WriteError> {
        if self.sender.is_finished() {
            return Err(WriteError::Finished);
        }
        if self.state == State::Closed {
            return Err(WriteError::Closed(self.closing_error()));
        }
        Ok(())
    }

    /// Copies received bytes into `buf` and returns their number; `Ok(0)` for a buffer that is not
    /// empty is the end of the stream.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when there is nothing to read. An error of the connection is reported after the
    /// bytes that arrived before it.
    pub fn read(&mut self, now: Timestamp, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.receiver.read(buf) {
            0 => self.nothing_to_read().map(|()| 0),
            taken => {
                self.receiver.on_consumed(now, taken);
                Ok(taken)
            }
        }
    }

    /// Takes up to `max` received bytes as one chunk; `Ok(None)` is the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_chunk(&mut self, now: Timestamp, max: usize) -> Result<Option<Bytes>, ReadError> {
        match self.receiver.read_chunk(max) {
            None => self.nothing_to_read().map(|()| None),
            Some(chunk) => {
                self.receiver.on_consumed(now, chunk.len());
                Ok(Some(chunk))
            }
        }
    }

    /// Copies received bytes into `buf` without taking them.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize, ReadError> {
        match self.receiver.peek(buf) {
            0 if !buf.is_empty() => self.nothing_to_read().map(|()| 0),
            seen => Ok(seen),
        }
    }

    /// Says why a read finds nothing: `Ok` is the end of the stream.
    fn nothing_to_read(&self) -> Result<(), ReadError> {
        if self.receiver.is_eof() {
            return Ok(());
        }
        if self.state == State::Closed {
            return Err(ReadError::Closed(self.closing_error()));
        }
        Err(ReadError::Blocked)
    }

    /// Pushes out what Nagle's algorithm holds back; does not wait for anything.
    pub fn flush(&mut self, _now: Timestamp) {
        self.sender.flush();
    }

    /// Turns Nagle's algorithm off or on; turning it off pushes out what it holds back.
    pub fn set_nodelay(&mut self, _now: Timestamp, nodelay: bool) {
        self.sender.set_nodelay(nodelay);
    }

    /// Limits the bytes that were written and never sent; `None` leaves it to the buffer. A higher limit
    /// may let a writer go on that waits.
    pub fn set_notsent_lowat(&mut self, _now: Timestamp, limit: Option<usize>) {
        self.sender.set_notsent_lowat(limit);
        if self.sender.take_writable() {
            self.events.push(Event::Writable);
        }
    }

    /// Returns the limit on bytes that were written and never sent.
    pub fn notsent_lowat(&self) -> Option<usize> {
        self.sender.notsent_lowat()
    }

    /// Says whether Nagle's algorithm is off.
    pub fn nodelay(&self) -> bool {
        self.sender.nodelay()
    }

    /// Returns the bytes of memory that the connection's buffers hold.
    pub fn memory(&self) -> usize {
        self.sender.memory() + self.receiver.memory()
    }

    /// Checks the connection and its parts.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        let in_handshake = matches!(self.state, State::SynSent | State::SynReceived);
        assert_eq!(
            self.handshake.is_some(),
            in_handshake,
            "handshake in {:?}",
            self.state
        );
        if self.state.is_synchronized() {
            assert!(
                self.negotiated.is_some(),
                "nothing negotiated in {:?}",
                self.state
            );
        }
        self.sender.check_invariants();
        self.receiver.check_invariants();
        self.path_mtu.check_invariants();
    }
}

#[cfg(test)]
mod tests;
