//! The sans-IO endpoint: one UDP socket's worth of connections.
//!
//! It finds the connection that a datagram belongs to, opens and refuses connections, keeps their timers
//! and their turns to send, and remembers the closed ones for as long as TIME-WAIT lasts. It reads no
//! clock and touches no socket: datagrams and `now` come in, datagrams, deadlines and events come out.
//! After a batch of inputs the caller drains [`Endpoint::poll_transmit`] and [`Endpoint::poll_event`] and
//! arms one timer for [`Endpoint::poll_timeout`]. `now` never goes backwards.
//!
//! ```text
//!  arrival ─► ingress ─► demux ─┬─► connection ─► ready queue ─► egress ─► departure
//!                               ├─► TIME-WAIT record ─┐                 ▲
//!                               ├─► listener, cookie ─┼─► outbox ───────┘
//!                               └─► nobody: reset ────┘
//! ```
//!
//! RFC 9293 (§3.10.7 for segments without a connection), RFC 4987, RFC 6056, RFC 6191, RFC 6528, RFC 5927.

#![allow(
    unreachable_pub,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

mod cookie;
mod demux;
mod egress;
#[cfg(any(test, fuzzing, feature = "__internals"))]
mod fuzz;
mod ingress;
mod listen;
mod open;
mod secrets;
mod slot;
mod spent_cookies;
mod stateless;
#[cfg(test)]
mod tests;
mod time_wait;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

#[cfg(any(test, fuzzing, feature = "__internals"))]
pub use self::fuzz::fuzz_connection;
pub use self::secrets::Secrets;
pub use self::slot::ConnectionId;

use self::demux::{Demux, Key, KeyedHash};
use self::egress::Overhang;
use self::listen::Listener;
use self::secrets::PortSelector;
use self::slot::{Handle, Origin, Slot};
use self::spent_cookies::SpentCookies;
use self::stateless::{Outbox, RateLimit};
use self::time_wait::TimeWaitTable;
use self::timers::{ReadyQueue, TimerQueue};
use crate::config::Config;
use crate::connection::{Connection, Event, State};
pub use crate::ecn::Ecn;
use crate::error::ConnectionError;
use crate::stats::EndpointStats;
use crate::tap::{Direction, Tap, TappedSegment};
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

/// The socket that the endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointLocal {
    /// The address that it is bound to; its family decides which peers can be reached.
    pub addr: SocketAddr,
}

/// Datagrams that arrived together from one address.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Who sent them.
    pub remote: SocketAddr,
    /// Our address that they were sent to, where the system tells.
    pub local_ip: Option<IpAddr>,
    /// The congestion mark of all of them.
    pub ecn: Option<Ecn>,
    /// Their payloads, one behind the other.
    pub bytes: &'a Bytes,
    /// Length of each but the last, which may be shorter; 0 means that there is only one.
    pub stride: usize,
}

/// Datagrams to send in one go; their bytes are in the buffer that was passed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The connection that they belong to, if it is one's.
    pub connection: Option<ConnectionId>,
    /// Where they go.
    pub remote: SocketAddr,
    /// From which of our addresses; `None` leaves it to the system.
    pub local_ip: Option<IpAddr>,
    /// The congestion mark to set.
    pub ecn: Option<Ecn>,
    /// Bytes of all of them together.
    pub len: usize,
    /// Bytes of each but the last, which may be shorter.
    pub segment_size: usize,
    /// How many they are.
    pub segments: usize,
    /// Length of each one's header, if the buffer holds nothing but the headers: see
    /// [`Endpoint::poll_transmit_gathered`].
    pub header_len: Option<usize>,
}

/// Something that the application should know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointEvent {
    /// A connection that the application holds changed. Not repeated while an equal one waits to be taken;
    /// what happened before [`Endpoint::accept`] is not reported.
    Connection(ConnectionId, Event),
    /// At least one connection waits in the accept queue of `port`. Call [`Endpoint::accept`] until it
    /// returns `None`.
    Incoming {
        /// The virtual port listened on.
        port: u16,
    },
}

/// One UDP socket's worth of connections.
///
/// Invariants:
/// - `demux` maps the key of every bound slot to that slot and nothing else; no key is also in `time_wait`;
/// - `memory` and `live` are the sums over the slots;
/// - a slot's entry in `timers` is its `deadline`, and it is in `ready` if `is_ready`;
/// - a listener's counters are those of the slots that it answers for.
#[derive(Debug)]
pub struct Endpoint {
    config: Arc<Config>,
    secrets: Secrets,
    local: EndpointLocal,
    /// Each in memory of its own: a table of them would take up to twice their size.
    slots: Slab<Box<Slot>>,
    next_generation: u64,
    demux: Demux,
    listeners: BTreeMap<u16, Listener>,
    ports: PortSelector,
    time_wait: TimeWaitTable,
    spent_cookies: SpentCookies,
    timers: TimerQueue,
    /// Slots whose timer expired; kept to save the allocation.
    expired: Vec<usize>,
    ready: ReadyQueue,
    outbox: Outbox,
    overhang: Overhang,
    resets: RateLimit,
    events: VecDeque<EndpointEvent>,
    tap: Option<Box<dyn Tap>>,
    memory: usize,
    live: usize,
    is_closed: bool,
    stats: EndpointStats,
}

impl Endpoint {
    /// Makes an endpoint without connections or listeners.
    pub fn new(now: Timestamp, config: Config, secrets: Secrets, local: EndpointLocal) -> Self {
        let hash = KeyedHash::new(secrets.hash_seed);
        Self {
            demux: Demux::new(&hash),
            time_wait: TimeWaitTable::new(&hash, config.time_wait_capacity),
            spent_cookies: SpentCookies::new(&hash, config.time_wait_capacity),
            resets: RateLimit::new(now, config.reset_rate_limit),
            config: Arc::new(config),
            secrets,
            local,
            slots: Slab::new(),
            next_generation: 0,
            listeners: BTreeMap::new(),
            ports: PortSelector::new(),
            timers: TimerQueue::default(),
            expired: Vec::new(),
            ready: ReadyQueue::default(),
            outbox: Outbox::default(),
            overhang: Overhang::default(),
            events: VecDeque::new(),
            tap: None,
            memory: 0,
            live: 0,
            is_closed: false,
            stats: EndpointStats::default(),
        }
    }

    /// Lets every connection act whose deadline is not after `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.time_wait.expire(now);
        // Each connection acts once, even if its next deadline has passed already.
        let mut expired = std::mem::take(&mut self.expired);
        while let Some(index) = self.timers.pop_due(now) {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.deadline = None;
                slot.connection.handle_timeout(now);
                expired.push(index);
            }
        }
        for index in expired.drain(..) {
            self.after_input(now, index);
        }
        self.expired = expired;
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) wants to be called; `None` while nothing is
    /// waited for.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.timers.earliest(), self.time_wait.earliest()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes the oldest event.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        while let Some(event) = self.events.pop_front() {
            match event {
                EndpointEvent::Connection(id, kind) => {
                    if let Some(index) = self.held(id) {
                        self.slots[index].events.remove(kind);
                        return Some(event);
                    }
                }
                EndpointEvent::Incoming { port } => {
                    if let Some(listener) = self.listeners.get_mut(&port) {
                        listener.is_announced = false;
                        return Some(event);
                    }
                }
            }
        }
        None
    }

    /// Returns a connection that the application holds.
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.held(id).map(|index| &self.slots[index].connection)
    }

    /// Returns every connection, those included that nobody holds: half-open, waiting to be accepted, released.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().map(|(_, slot)| &slot.connection)
    }

    /// Runs a command on a connection that the application holds, and sees to what follows from it.
    /// `None` if nobody holds `id`.
    pub fn with_connection<R>(
        &mut self,
        now: Timestamp,
        id: ConnectionId,
        command: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        let index = self.held(id)?;
        let slot = &mut self.slots[index];
        let result = command(&mut slot.connection);
        if slot.connection.has_transmit() {
            self.after_input(now, index);
        } else {
            self.settle(now, index);
        }
        Some(result)
    }

    /// Lets go of a connection, which ends by itself; `id` is dead afterwards.
    pub fn release(&mut self, now: Timestamp, id: ConnectionId) {
        let Some(index) = self.held(id) else { return };
        let slot = &mut self.slots[index];
        slot.connection.release(now);
        slot.handle = Handle::Released;
        self.after_input(now, index);
    }

    /// Returns the UDP address of the peer.
    pub fn remote_addr(&self, id: ConnectionId) -> Option<SocketAddr> {
        self.held(id).map(|index| self.slots[index].remote())
    }

    /// Returns our own address, where the system has told it.
    pub fn local_ip(&self, id: ConnectionId) -> Option<IpAddr> {
        let slot = &self.slots[self.held(id)?];
        slot.source_ip.or(slot.local_ip)
    }

    /// Returns whether no connection is alive or lingers. TIME-WAIT does not count.
    pub fn is_idle(&self) -> bool {
        self.live == 0
    }

    /// Stops listening and aborts every connection; resets leave by [`poll_transmit`](Self::poll_transmit).
    pub fn close(&mut self, now: Timestamp) {
        self.is_closed = true;
        let ports: Vec<u16> = self.listeners.keys().copied().collect();
        for port in ports {
            self.unlisten(now, port);
        }
        self.abort_where(now, |_| true);
    }

    /// Resets every connection whose peer would otherwise wait for something that will not come: all but
    /// those on which this side has finished and was acknowledged.
    pub fn cut(&mut self, now: Timestamp) {
        self.abort_where(now, |state| {
            !matches!(state, State::FinWait2 | State::TimeWait)
        });
    }

    fn abort_where(&mut self, now: Timestamp, is_concerned: impl Fn(State) -> bool) {
        let indices: Vec<usize> = self.slots.iter().map(|(index, _)| index).collect();
        for index in indices {
            if let Some(slot) = self.slots.get_mut(index)
                && is_concerned(slot.connection.state())
            {
                slot.connection.abort(now);
                self.after_input(now, index);
            }
        }
    }

    /// Returns what the endpoint has counted.
    pub fn stats(&self) -> EndpointStats {
        EndpointStats {
            connections: self.live,
            time_wait: self.time_wait.len(),
            ..self.stats.clone()
        }
    }

    /// Sets the observer of all segments, or none; returns the one before.
    pub fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) -> Option<Box<dyn Tap>> {
        std::mem::replace(&mut self.tap, tap)
    }

    /// Shows a run of segments to the observer.
    fn show(
        &mut self,
        now: Timestamp,
        direction: Direction,
        (remote, local_ip): (SocketAddr, Option<IpAddr>),
        segments: &[u8],
        segment_size: usize,
    ) {
        let Some(tap) = &mut self.tap else { return };
        let local_ip = local_ip.unwrap_or_else(|| self.local.addr.ip());
        let local = SocketAddr::new(local_ip, self.local.addr.port());
        for segment in segments.chunks(segment_size.max(1)) {
            let tapped = TappedSegment {
                direction,
                remote,
                local,
                segment,
            };
            tap.on_segment(now, &tapped);
        }
    }

    /// Checks every invariant of the endpoint and of its connections.
    ///
    /// # Panics
    ///
    /// Panics if one does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        self.demux.check_invariants();
        self.time_wait.check_invariants();
        self.spent_cookies.check_invariants();
        self.timers.check_invariants();
        self.outbox.check_invariants();
        self.ready.check_invariants(self.slots.len());
        let bound = self.slots.iter().filter(|(_, slot)| slot.is_bound).count();
        assert_eq!(self.demux.len(), bound, "keys and slots");
        assert!(
            self.time_wait.keys().all(|key| !self.demux.contains(key)),
            "a key lives twice"
        );
        for (index, slot) in &self.slots {
            slot.connection.check_invariants();
            assert_eq!(
                self.demux.get(&slot.key) == Some(index),
                slot.is_bound,
                "{:?}",
                slot.key
            );
            assert_eq!(
                self.timers.get(index),
                slot.deadline,
                "timer of {:?}",
                slot.key
            );
            let turns = self.ready.iter().filter(|&id| id == slot.id(index)).count();
            assert_eq!(turns, usize::from(slot.is_ready), "turns of {:?}", slot.key);
        }
        let memory: usize = self.slots.iter().map(|(_, slot)| slot.memory).sum();
        assert_eq!(self.memory, memory, "memory");
        let live = self.slots.iter().filter(|(_, slot)| slot.is_live).count();
        assert_eq!(self.live, live, "live connections");
        for (&port, listener) in &self.listeners {
            let count = |is_wanted: fn(&Handle) -> bool| {
                self.slots
                    .iter()
                    .filter(|(_, slot)| slot.key.local_port == port && is_wanted(&slot.handle))
                    .count()
            };
            listener.check_invariants(
                count(|handle| matches!(handle, Handle::HalfOpen(_))),
                count(|handle| matches!(handle, Handle::Queued)),
            );
        }
    }

    /// Returns the slot of a connection that the application holds.
    fn held(&self, id: ConnectionId) -> Option<usize> {
        let slot = self.slots.get(id.slot())?;
        let is_held = slot.generation == id.generation() && matches!(slot.handle, Handle::Held);
        is_held.then_some(id.slot())
    }

    /// Sees to what follows from an input to a connection: it may have something to send, and more.
    fn after_input(&mut self, now: Timestamp, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            if !slot.is_ready {
                slot.is_ready = true;
                self.ready.push(slot.id(index));
            }
            self.settle(now, index);
        }
    }

    /// Does the same after a datagram; but a connection that has nothing to say to it needs no turn.
    fn after_arrival(&mut self, now: Timestamp, index: usize) {
        let slot = self.slots.get_mut(index);
        if slot.is_some_and(|slot| slot.is_ready || slot.connection.wants_turn(now)) {
            self.after_input(now, index);
        } else {
            self.settle(now, index);
        }
    }

    /// Takes a connection's events and brings the accounts about it up to date; forgets it if it has come
    /// to its end.
    fn settle(&mut self, now: Timestamp, index: usize) {
        self.take_events(index);
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.is_unaccepted() && slot.connection.state() == State::Closed {
            self.abandon(index);
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };

        let is_live = slot.has_business();
        if matches!(slot.handle, Handle::Released) && !is_live {
            let record = slot.connection.time_wait();
            let (key, length) = (slot.key, slot.connection.config().time_wait);
            self.remove(index);
            if let Some(record) = record {
                self.time_wait.insert(key, record, length);
            }
            return;
        }
        if slot.is_bound && slot.connection.is_drained() {
            // RFC 9293 §3.10.7.1: in CLOSED, whatever arrives is answered as if there were no connection.
            slot.is_bound = false;
            self.demux.remove(&slot.key);
        }
        self.live = self.live - usize::from(slot.is_live) + usize::from(is_live);
        slot.is_live = is_live;

        let memory = Slot::BASE_MEMORY.saturating_add(slot.connection.memory());
        self.memory = self
            .memory
            .saturating_sub(slot.memory)
            .saturating_add(memory);
        slot.memory = memory;

        // While it waits for its turn, a deadline in the past is the turn's business: as a timer it would
        // only fire again and again.
        let deadline = slot
            .connection
            .poll_timeout()
            .filter(|&deadline| !slot.is_ready || deadline > now);
        if deadline != slot.deadline {
            slot.deadline = deadline;
            self.timers.set(index, deadline);
        }
    }

    /// Passes a connection's events on to whom they concern.
    fn take_events(&mut self, index: usize) {
        loop {
            let Some(slot) = self.slots.get_mut(index) else {
                return;
            };
            let Some(event) = slot.connection.poll_event() else {
                return;
            };
            match event {
                Event::Closed
                    if slot.origin != Origin::Listener
                        && slot.connection.error() == Some(&ConnectionError::Refused) =>
                {
                    self.stats.connections_refused += 1;
                }
                Event::Connected
                | Event::Readable
                | Event::Writable
                | Event::Finished
                | Event::Closed => {}
            }
            match slot.handle {
                Handle::Held => {
                    if slot.events.insert(event) {
                        let id = slot.id(index);
                        self.events.push_back(EndpointEvent::Connection(id, event));
                    }
                }
                Handle::HalfOpen(_) if event == Event::Connected => self.enqueue(index),
                Handle::HalfOpen(_) | Handle::Queued | Handle::Released => {}
            }
        }
    }

    /// Forgets a connection.
    fn remove(&mut self, index: usize) {
        let Some(slot) = self.slots.try_remove(index) else {
            return;
        };
        let slots = &self.slots;
        self.ready.sweep(slots.len(), |id| {
            let slot = slots.get(id.slot());
            slot.is_some_and(|slot| slot.generation == id.generation())
        });
        if slot.is_bound {
            self.demux.remove(&slot.key);
        }
        self.timers.set(index, None);
        self.memory = self.memory.saturating_sub(slot.memory);
        self.live -= usize::from(slot.is_live);
    }
}

/// A connection about to be made.
struct Opening {
    key: Key,
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    config: Arc<Config>,
    /// Where the sequence numbers of an earlier connection with this key ended.
    after: Option<SeqNumber>,
}
