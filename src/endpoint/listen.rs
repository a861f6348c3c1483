//! Listeners: who may come in, how many, and who waits to be accepted.
//!
//! Connections in SYN-RECEIVED and established ones that were not accepted yet share the backlog. Once it
//! is full, SYNs are answered with cookies (RFC 4987 §3.6), which cost no memory; a valid cookie becomes a
//! connection only if the accept queue has room, otherwise its ACK is dropped and the peer sends
//! again. Connection and memory limits stop new connections altogether.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::cookie::{self, Oven};
use super::slot::{ConnectionId, Handle, Origin};
use super::stateless::{AddressBudget, Answer};
use super::{Endpoint, EndpointEvent, Opening};
use crate::config::Config;
use crate::connection::{Connection, Negotiated, OpenParams};
use crate::error::EndpointError;
use crate::timestamp::Timestamp;
use crate::wire::{Integrity, Segment, SeqNumber};

/// One virtual port that is listened on.
///
/// Invariants:
/// - `half_open` and `queued` count the slots that this listener answers for;
/// - every queued slot is in `queue`; other entries are stale, and never more than four backlogs.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: Arc<Config>,
    half_open: usize,
    queued: usize,
    queue: VecDeque<ConnectionId>,
    /// When a cookie was last issued.
    overflowed: Option<Timestamp>,
    /// Whether an `Incoming` event waits to be taken.
    pub(super) is_announced: bool,
}

impl Listener {
    fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            half_open: 0,
            queued: 0,
            queue: VecDeque::new(),
            overflowed: None,
            is_announced: false,
        }
    }

    fn is_full(&self) -> bool {
        self.half_open + self.queued >= self.config.backlog
    }

    /// Whether a cookie may be under way.
    pub(super) fn expects_cookies(&self, now: Timestamp) -> bool {
        self.overflowed
            .is_some_and(|when| now < when + cookie::LIFETIME)
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self, half_open: usize, queued: usize) {
        assert_eq!(
            (self.half_open, self.queued),
            (half_open, queued),
            "backlog counters"
        );
        assert!(
            self.queue.len() >= queued,
            "a queued connection cannot be accepted"
        );
        assert!(
            self.queue.len() - queued <= 4 * self.config.backlog,
            "stale entries pile up"
        );
    }
}

impl Endpoint {
    /// Listens on a virtual port. `None` takes the endpoint's configuration.
    ///
    /// # Errors
    ///
    /// [`EndpointError::PortInUse`] if the port is listened on already, [`EndpointError::InvalidPort`] if it
    /// is 0, [`EndpointError::Closed`].
    pub fn listen(&mut self, port: u16, config: Option<Config>) -> Result<(), EndpointError> {
        if self.is_closed {
            return Err(EndpointError::Closed);
        }
        if port == 0 {
            return Err(EndpointError::InvalidPort(port));
        }
        if self.listeners.contains_key(&port) {
            return Err(EndpointError::PortInUse(port));
        }
        let config = self.config_or(config.map(Arc::new));
        self.listeners.insert(port, Listener::new(config));
        Ok(())
    }

    /// Stops listening; connections that nobody accepted are reset.
    pub fn unlisten(&mut self, now: Timestamp, port: u16) {
        let unaccepted: Vec<usize> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.key.local_port == port && slot.is_unaccepted())
            .map(|(index, _)| index)
            .collect();
        self.listeners.remove(&port);
        for index in unaccepted {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.connection.abort(now);
                slot.handle = Handle::Released;
                self.after_input(now, index);
            }
        }
    }

    /// Takes the oldest established connection out of a listener's accept queue.
    pub fn accept(&mut self, port: u16) -> Option<(ConnectionId, SocketAddr)> {
        let listener = self.listeners.get_mut(&port)?;
        while let Some(id) = listener.queue.pop_front() {
            let slot = self.slots.get_mut(id.slot());
            let queued = slot.filter(|slot| {
                slot.generation == id.generation() && matches!(slot.handle, Handle::Queued)
            });
            if let Some(slot) = queued {
                slot.handle = Handle::Held;
                listener.queued -= 1;
                return Some((id, slot.remote()));
            }
        }
        None
    }

    /// Answers a SYN to a listener. `opening` names who asks; its configuration is the listener's. Returns
    /// the slot of the new connection.
    pub(super) fn on_syn(
        &mut self,
        now: Timestamp,
        opening: &Opening,
        segment: &Segment<'_>,
        len: usize,
    ) -> Option<usize> {
        let is_at_limit = self.is_at_limit();
        let listener = self.listeners.get_mut(&opening.key.local_port)?;
        let is_full = listener.is_full();
        if is_full && opening.after.is_none() {
            listener.overflowed = Some(now);
            self.send_cookie(now, opening, segment);
            return None;
        }
        // A cookie's number cannot be made to follow an earlier connection's: that peer has to come again.
        if is_full || is_at_limit {
            self.stats.dropped_backlog += 1;
            return None;
        }
        listener.half_open += 1;
        let params = self.open_params(now, &opening.key, opening.after);
        let connection = Connection::accept(now, Arc::clone(&opening.config), &params, segment);
        let mut budget = AddressBudget::default();
        budget.on_received(len);
        self.time_wait.remove(&opening.key);
        Some(self.install(
            opening,
            connection,
            Origin::Listener,
            Handle::HalfOpen(Box::new(budget)),
        ))
    }

    /// Makes a connection from an ACK that answers a cookie, which the caller then hands to it; `None` if it
    /// is not one or there is no room.
    pub(super) fn on_cookie(
        &mut self,
        now: Timestamp,
        opening: &Opening,
        segment: &Segment<'_>,
    ) -> Option<usize> {
        let Some((iss, negotiated)) = self.taste(now, opening, segment) else {
            self.stats.dropped_no_connection += 1;
            return None;
        };
        if !segment.verify(negotiated.integrity()) {
            self.stats.dropped_checksum += 1;
            return None;
        }
        let is_at_limit = self.is_at_limit();
        let listener = self.listeners.get_mut(&opening.key.local_port)?;
        if is_at_limit || listener.queued >= listener.config.backlog {
            self.stats.dropped_backlog += 1;
            return None;
        }
        listener.half_open += 1;
        let params = OpenParams {
            iss,
            ..self.open_params(now, &opening.key, None)
        };
        let config = Arc::clone(&opening.config);
        let connection = Connection::from_cookie(now, config, &params, &negotiated, segment);
        let handle = Handle::HalfOpen(Box::default());
        self.stats.syn_cookies_accepted += 1;
        self.spent_cookies.insert(now, opening.key, iss);
        Some(self.install(opening, connection, Origin::Listener, handle))
    }

    /// Returns what a cookie says that `ack` acknowledges, if it does and was not redeemed before.
    pub(super) fn taste(
        &self,
        now: Timestamp,
        opening: &Opening,
        ack: &Segment<'_>,
    ) -> Option<(SeqNumber, Negotiated)> {
        let oven = Oven {
            secrets: &self.secrets,
            config: &opening.config,
            key: &opening.key,
        };
        let is_spent = |iss| self.spent_cookies.contains(&opening.key, iss);
        oven.redeem(now, ack).filter(|&(iss, _)| !is_spent(iss))
    }

    /// Moves a connection whose handshake is done into its listener's accept queue.
    pub(super) fn enqueue(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let port = slot.key.local_port;
        let Some(listener) = self.listeners.get_mut(&port) else {
            return;
        };
        slot.handle = Handle::Queued;
        listener.half_open -= 1;
        listener.queued += 1;
        listener.queue.push_back(slot.id(index));
        self.stats.connections_accepted += 1;
        if !listener.is_announced {
            listener.is_announced = true;
            self.events.push_back(EndpointEvent::Incoming { port });
        }
    }

    /// Takes a connection that ended before it was accepted from its listener.
    pub(super) fn abandon(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(listener) = self.listeners.get_mut(&slot.key.local_port) {
            match slot.handle {
                Handle::HalfOpen(_) => listener.half_open -= 1,
                Handle::Queued => listener.queued -= 1,
                Handle::Held | Handle::Released => return,
            }
        }
        slot.handle = Handle::Released;
        let port = slot.key.local_port;
        let Some(listener) = self.listeners.get_mut(&port) else {
            return;
        };
        // At most two backlogs are valid, so that each sweep removes at least as much as it keeps.
        if listener.queue.len() > 4 * listener.config.backlog {
            let slots = &self.slots;
            listener.queue.retain(|id| {
                slots.get(id.slot()).is_some_and(|slot| {
                    slot.generation == id.generation() && matches!(slot.handle, Handle::Queued)
                })
            });
        }
    }

    /// Whether no further connection may come in.
    fn is_at_limit(&self) -> bool {
        self.slots.len() >= self.config.max_connections || self.is_short_of_memory()
    }

    fn send_cookie(&mut self, now: Timestamp, opening: &Opening, syn: &Segment<'_>) {
        let oven = Oven {
            secrets: &self.secrets,
            config: &opening.config,
            key: &opening.key,
        };
        let answer = Answer {
            remote: opening.remote,
            local_ip: opening.local_ip,
            header: oven.issue(now, syn),
            integrity: Integrity::Sum,
        };
        if self.send_answer(answer) {
            self.stats.syn_cookies_sent += 1;
        }
    }
}
