//! Connections that this side opens: which addresses can be reached, which port and which numbers they
//! begin with; and the change of a live connection's address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::demux::{Key, without_flow};
use super::slot::{AddressForm, ConnectionId, EventSet, Handle, Origin, Slot};
use super::{Endpoint, Opening};
use crate::config::Config;
use crate::connection::{Connection, OpenParams};
use crate::error::EndpointError;
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

/// How far a new incarnation begins behind the last number of the old one: beyond any window that was
/// open without scaling, as Linux does it (RFC 6191 §2, RFC 9293 §3.4.2).
const INCARNATION_GAP: u32 = 65_537;

impl Endpoint {
    /// Opens a connection to virtual port `port` at `remote`, from a port drawn per RFC 6056. `None` takes
    /// the endpoint's configuration.
    ///
    /// A port whose last connection to that peer is in TIME-WAIT here may be drawn again once timestamps tell
    /// the two apart (RFC 6191).
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the address cannot be reached, a limit is reached or the endpoint is closed.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn connect(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
        port: u16,
        config: Option<Config>,
    ) -> Result<ConnectionId, EndpointError> {
        let config = self.config_or(config.map(Arc::new));
        self.connect_shared(now, remote, port, config)
    }

    /// Does the same with a configuration that connections share.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub fn connect_shared(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
        port: u16,
        config: Arc<Config>,
    ) -> Result<ConnectionId, EndpointError> {
        let remote = self.reachable(remote, port)?;
        self.check_room()?;
        self.time_wait.expire(now);
        let towards = Key::new(remote, port, 0);
        let local_port = self
            .ports
            .draw(&self.secrets, &towards, |local_port| {
                let key = Key {
                    local_port,
                    ..towards
                };
                !self.demux.contains(&key)
                    && (self.time_wait).may_be_reopened(now, &key, config.timestamps)
                    && !self.listeners.contains_key(&local_port)
            })
            .ok_or(EndpointError::PortsExhausted(remote))?;
        let key = Key {
            local_port,
            ..towards
        };
        let opening = Opening {
            key,
            remote,
            local_ip: None,
            config,
            after: self.time_wait.remove(&key),
        };
        Ok(self.open(now, &opening, Origin::Connect))
    }

    /// Opens a connection to a peer that does the same, both from and to virtual port `port`; exactly one
    /// connection results (simultaneous open, RFC 9293 §3.5). The peer may be late: a reset or an ICMP
    /// error does not end the attempt.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] as for [`connect`](Self::connect); [`EndpointError::PortInUse`] if a connection with
    /// this peer and port exists.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn rendezvous(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
        port: u16,
        config: Option<Config>,
    ) -> Result<ConnectionId, EndpointError> {
        let config = self.config_or(config.map(Arc::new));
        self.rendezvous_shared(now, remote, port, config)
    }

    /// Does the same with a configuration that connections share.
    ///
    /// # Errors
    ///
    /// As for [`rendezvous`](Self::rendezvous).
    pub fn rendezvous_shared(
        &mut self,
        now: Timestamp,
        remote: SocketAddr,
        port: u16,
        config: Arc<Config>,
    ) -> Result<ConnectionId, EndpointError> {
        let remote = self.reachable(remote, port)?;
        let key = Key::new(remote, port, port);
        if self.demux.contains(&key) {
            return Err(EndpointError::PortInUse(port));
        }
        self.check_room()?;
        self.time_wait.expire(now);
        let opening = Opening {
            key,
            remote,
            local_ip: None,
            config,
            after: self.time_wait.remove(&key),
        };
        Ok(self.open(now, &opening, Origin::Rendezvous))
    }

    /// Replaces the UDP address of a live connection's peer. The caller has made sure that the peer is
    /// there.
    ///
    /// # Errors
    ///
    /// [`EndpointError::InvalidAddress`] if it cannot be reached, [`EndpointError::PortInUse`] if another
    /// connection has that address and the same ports, [`EndpointError::Closed`] if nobody holds `id`.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "__internals")),
        allow(dead_code, reason = "reached through `internals` only")
    )]
    pub fn replace_remote(
        &mut self,
        id: ConnectionId,
        remote: SocketAddr,
    ) -> Result<(), EndpointError> {
        let index = self.held(id).ok_or(EndpointError::Closed)?;
        let old = self.slots[index].key;
        let remote = self.reachable(remote, old.remote_port)?;
        let key = Key::new(remote, old.remote_port, old.local_port);
        if key != old && self.slots[index].is_bound {
            if self.demux.contains(&key) {
                return Err(EndpointError::PortInUse(old.local_port));
            }
            self.time_wait.remove(&key);
            self.demux.remove(&old);
            self.demux.insert(key, index);
        }
        let slot = &mut self.slots[index];
        slot.key = key;
        slot.form = AddressForm::of(remote);
        Ok(())
    }

    pub(super) fn config_or(&self, config: Option<Arc<Config>>) -> Arc<Config> {
        config.unwrap_or_else(|| Arc::clone(&self.config))
    }

    /// Returns the numbers that a connection begins with.
    pub(super) fn open_params(
        &self,
        now: Timestamp,
        key: &Key,
        after: Option<SeqNumber>,
    ) -> OpenParams {
        let drawn = self.secrets.isn(now, key);
        let iss = match after {
            // RFC 6191 §2: larger than the largest number that the old connection used.
            Some(last) if !drawn.follows(last + INCARNATION_GAP) => last + INCARNATION_GAP,
            Some(_) | None => drawn,
        };
        OpenParams {
            local_port: key.local_port,
            remote_port: key.remote_port,
            iss,
            timestamp_offset: self.secrets.timestamp_offset(key),
        }
    }

    /// Puts a new connection into a slot. The caller has checked that its key is free.
    pub(super) fn install(
        &mut self,
        opening: &Opening,
        connection: Connection,
        origin: Origin,
        handle: Handle,
    ) -> usize {
        let generation = self.next_generation;
        self.next_generation += 1;
        let key = opening.key;
        let index = self.slots.insert(Box::new(Slot {
            connection,
            generation,
            key,
            origin,
            handle,
            form: AddressForm::of(opening.remote),
            source_ip: opening.local_ip,
            local_ip: opening.local_ip,
            is_bound: true,
            is_ready: false,
            deadline: None,
            memory: 0,
            is_live: false,
            events: EventSet::default(),
            black_holes: 0,
        }));
        self.demux.insert(key, index);
        index
    }

    /// Fails if the endpoint has no room for another connection.
    fn check_room(&self) -> Result<(), EndpointError> {
        if self.slots.len() >= self.config.max_connections {
            return Err(EndpointError::TooManyConnections(
                self.config.max_connections,
            ));
        }
        if self.is_short_of_memory() {
            return Err(EndpointError::MemoryExhausted(self.config.max_memory));
        }
        Ok(())
    }

    /// Opens a connection for which there is room.
    fn open(&mut self, now: Timestamp, opening: &Opening, origin: Origin) -> ConnectionId {
        let params = self.open_params(now, &opening.key, opening.after);
        let connection = Connection::connect(now, Arc::clone(&opening.config), &params);
        let index = self.install(opening, connection, origin, Handle::Held);
        self.stats.connections_opened += 1;
        let id = self.slots[index].id(index);
        self.after_input(now, index);
        id
    }

    pub(super) fn is_short_of_memory(&self) -> bool {
        self.memory.saturating_add(Slot::BASE_MEMORY) > self.config.max_memory
    }

    /// Returns `remote` in the form that the socket takes, or why it cannot be reached.
    fn reachable(&self, remote: SocketAddr, port: u16) -> Result<SocketAddr, EndpointError> {
        let refuse = |reason| Err(EndpointError::InvalidAddress(remote, reason));
        if self.is_closed {
            return Err(EndpointError::Closed);
        }
        if remote.port() == 0 {
            return refuse("port 0");
        }
        if port == 0 {
            return refuse("virtual port 0");
        }
        let ip = remote.ip().to_canonical();
        if ip.is_unspecified() {
            return refuse("unspecified address");
        }
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_multicast() || is_broadcast {
            return refuse("not a unicast address");
        }
        let local_ip = self.local.addr.ip();
        let is_ipv4_only = local_ip.to_canonical().is_ipv4();
        let is_dual_stack = local_ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        match (ip, local_ip) {
            (IpAddr::V6(_), _) if is_ipv4_only => refuse("IPv6 address, IPv4 socket"),
            (IpAddr::V6(_), _) => Ok(without_flow(remote)),
            (IpAddr::V4(_), IpAddr::V4(_)) => Ok(SocketAddr::new(ip, remote.port())),
            (IpAddr::V4(ip), IpAddr::V6(_)) if is_dual_stack || is_ipv4_only => {
                Ok(SocketAddr::new(ip.to_ipv6_mapped().into(), remote.port()))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => refuse("IPv4 address, IPv6 socket"),
        }
    }
}
