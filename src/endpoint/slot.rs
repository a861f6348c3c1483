//! One connection's place in the endpoint: its identity, who holds it, and what is queued for it.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::demux::Key;
use super::stateless::AddressBudget;
use crate::connection::{Connection, Event, State};
use crate::timestamp::Timestamp;

/// Names a connection of one endpoint. It is never reused: once the connection was released, nothing
/// answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    slot: usize,
    generation: u64,
}

impl ConnectionId {
    pub(super) fn new(slot: usize, generation: u64) -> Self {
        Self { slot, generation }
    }

    /// Returns the place in a dense table: no two connections that the application holds share one, and
    /// one that was released makes room for another.
    pub(crate) fn slot(self) -> usize {
        self.slot
    }

    /// Returns what tells the connections apart that had the same slot.
    pub(crate) fn generation(self) -> u64 {
        self.generation
    }
}

/// How the connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// By `connect`.
    Connect,
    /// By `rendezvous`: the peer connects too, perhaps later.
    Rendezvous,
    /// By a peer's SYN to a listener.
    Listener,
}

/// Who answers for the connection.
#[derive(Debug)]
pub(super) enum Handle {
    /// The handshake with a listener's peer is under way; the address is not proven.
    HalfOpen(Box<AddressBudget>),
    /// Established; waits in the listener's accept queue.
    Queued,
    /// The application holds it.
    Held,
    /// The application let go of it; it lingers until it has nothing to say.
    Released,
}

/// What turns a canonical address into the form that the socket takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AddressForm {
    scope: u32,
    /// Whether it is an IPv4 address for an IPv6 socket.
    is_mapped: bool,
}

impl AddressForm {
    /// Returns that of `remote`, which has no flow label.
    pub(super) fn of(remote: SocketAddr) -> Self {
        match remote {
            SocketAddr::V4(_) => Self {
                scope: 0,
                is_mapped: false,
            },
            SocketAddr::V6(remote) => Self {
                scope: remote.scope_id(),
                is_mapped: remote.ip().to_ipv4_mapped().is_some(),
            },
        }
    }
}

/// A connection and what the endpoint knows about it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) connection: Connection,
    pub(super) generation: u64,
    pub(super) key: Key,
    pub(super) origin: Origin,
    pub(super) handle: Handle,
    /// What the address where segments go has beside the key's.
    pub(super) form: AddressForm,
    /// From where they must leave: the address that the peer connected to. `None`: the system chooses.
    pub(super) source_ip: Option<IpAddr>,
    /// Our address as the latest datagram named it.
    pub(super) local_ip: Option<IpAddr>,
    /// Whether datagrams with its key are its own; not once it has closed and waits to be released.
    pub(super) is_bound: bool,
    /// Whether it is in the ready queue.
    pub(super) is_ready: bool,
    /// What the timer queue holds for it.
    pub(super) deadline: Option<Timestamp>,
    /// What it adds to the endpoint's memory.
    pub(super) memory: usize,
    /// Whether it counts as a live connection.
    pub(super) is_live: bool,
    /// Events that were queued and not yet taken.
    pub(super) events: EventSet,
    /// Black holes of its path that the endpoint has counted.
    pub(super) black_holes: u64,
}

impl Slot {
    /// Bytes that a connection takes without anything buffered.
    pub(super) const BASE_MEMORY: usize = size_of::<Self>();

    pub(super) fn id(&self, slot: usize) -> ConnectionId {
        ConnectionId::new(slot, self.generation)
    }

    /// Returns where segments go, in the form that the socket takes.
    pub(super) fn remote(&self) -> SocketAddr {
        let AddressForm { scope, is_mapped } = self.form;
        let port = self.key.udp_port;
        match self.key.ip {
            IpAddr::V4(ip) if !is_mapped => SocketAddr::new(ip.into(), port),
            IpAddr::V4(ip) => SocketAddrV6::new(ip.to_ipv6_mapped(), port, 0, scope).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
        }
    }

    /// Returns how many black holes its path has shown since this was last asked.
    pub(super) fn take_black_holes(&mut self) -> u64 {
        let black_holes = self.connection.black_holes();
        black_holes - std::mem::replace(&mut self.black_holes, black_holes)
    }

    /// Whether a listener still answers for it.
    pub(super) fn is_unaccepted(&self) -> bool {
        matches!(self.handle, Handle::HalfOpen(_) | Handle::Queued)
    }

    /// Whether it has anything left to do but wait in TIME-WAIT.
    pub(super) fn has_business(&self) -> bool {
        match self.connection.state() {
            State::TimeWait => self.connection.time_wait().is_none(),
            State::Closed => !self.connection.is_drained(),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => true,
        }
    }
}

/// A set of connection events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventSet(u8);

impl EventSet {
    /// Adds an event; returns whether it was missing.
    pub(super) fn insert(&mut self, event: Event) -> bool {
        let is_new = self.0 & Self::bit(event) == 0;
        self.0 |= Self::bit(event);
        is_new
    }

    pub(super) fn remove(&mut self, event: Event) {
        self.0 &= !Self::bit(event);
    }

    fn bit(event: Event) -> u8 {
        match event {
            Event::Connected => 1,
            Event::Readable => 1 << 1,
            Event::Writable => 1 << 2,
            Event::Finished => 1 << 3,
            Event::Closed => 1 << 4,
        }
    }
}
