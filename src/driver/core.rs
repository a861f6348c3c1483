//! The state machine of an endpoint and everybody who waits for it: what the core's lock protects.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use super::clock::Clock;
use crate::connection::{Connection, Event, State};
use crate::endpoint::{ConnectionId, Endpoint, EndpointEvent};
use crate::{Config, ConnectionError, EndpointError, Timestamp};

/// How far an endpoint is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// No new connections; those that exist may finish.
    Closing,
    /// The driver task is gone; nothing moves any more.
    Gone,
}

/// The state machine and everybody who waits for it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) endpoint: Endpoint,
    pub(super) phase: Phase,
    /// The driver task.
    pub(super) driver: Option<Waker>,
    /// Notified when no connection is left or the endpoint goes away.
    pub(super) idle: Arc<Notify>,
    /// How many wait for it.
    pub(super) idle_waiters: usize,
    /// The latest time that was passed in; never goes backwards.
    now: Timestamp,
    waiters: WaiterTable,
    listeners: HashMap<u16, ListenerWaiters>,
    /// When the driver wakes up by itself; `None` when only a datagram or a handle wakes it.
    armed: Option<Timestamp>,
}

/// The tasks that wait for one connection.
///
/// Invariant: nobody waits beside the reader, or `others` is present; an idle connection has a reader at most.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    read: Option<Waker>,
    others: Option<Box<Others>>,
}

/// Those who wait for anything else than to read.
#[derive(Debug, Default)]
struct Others {
    write: Option<Waker>,
    shutdown: Option<Waker>,
    /// For `peek`, of which several may wait: readable.
    readable: Option<Arc<Notify>>,
    /// For `connect` and `closed`: a change of state.
    state: Option<Arc<Notify>>,
}

/// The tasks that wait, by connection.
///
/// Invariant: an entry stands at its connection's slot.
#[derive(Debug, Default)]
struct WaiterTable(Vec<Entry>);

/// What waits at one slot.
#[derive(Debug, Default)]
struct Entry {
    /// The generation of the connection, plus one; `None` if a socket has none at this slot.
    holder: Option<NonZeroU64>,
    waiters: Waiters,
}

/// One of the directions in which a task can wait by poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
    Shutdown,
}

#[derive(Debug, Default)]
struct ListenerWaiters {
    poll: Option<Waker>,
    accept: Arc<Notify>,
}

/// What is to be woken or dropped once all locks are released.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    /// The first task of those to be woken, mostly the only one: no allocation for it.
    task: Option<Waker>,
    tasks: Vec<Waker>,
    groups: Vec<Arc<Notify>>,
    /// Replaced wakers: dropping one may run foreign code too.
    retired: Vec<Waker>,
}

impl Core {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            phase: Phase::Open,
            driver: None,
            idle: Arc::default(),
            idle_waiters: 0,
            now: Timestamp::ZERO,
            waiters: WaiterTable::default(),
            listeners: HashMap::new(),
            armed: None,
        }
    }

    /// Reads the clock; the lock is held, so that time never goes backwards for the core.
    pub(super) fn advance(&mut self, clock: &Clock) -> Timestamp {
        self.now = self.now.max(clock.now());
        self.now
    }

    /// Collects whom the latest changes concern.
    pub(super) fn settle(&mut self, wakeups: &mut Wakeups) {
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                EndpointEvent::Connection(id, event) => {
                    let state = self.endpoint.connection(id).map(Connection::state);
                    if let Some(waiters) = self.waiters.get_mut(id) {
                        waiters.on_event(event, state, wakeups);
                    }
                }
                EndpointEvent::Incoming { port } => {
                    if let Some(listener) = self.listeners.get_mut(&port) {
                        wakeups.wake(listener.poll.take());
                        wakeups.groups.push(Arc::clone(&listener.accept));
                    }
                }
            }
        }
        let is_earlier = match (self.endpoint.poll_timeout(), self.armed) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_earlier {
            wakeups.wake(self.driver.clone());
        }
        if self.idle_waiters > 0 && self.endpoint.is_idle() {
            wakeups.groups.push(Arc::clone(&self.idle));
        }
    }

    /// The driver is about to run: until it sleeps again it needs no wake-up for deadlines.
    pub(crate) fn on_driver_awake(&mut self, waker: &Waker, wakeups: &mut Wakeups) {
        wakeups.register(&mut self.driver, waker);
        self.armed = Some(Timestamp::ZERO);
    }

    /// The driver is about to sleep until `armed`.
    pub(crate) fn on_driver_asleep(&mut self, armed: Option<Timestamp>) {
        self.armed = armed;
    }

    /// Fails unless connections can be made.
    pub(crate) fn check_open(&self) -> Result<(), EndpointError> {
        if self.phase == Phase::Open {
            Ok(())
        } else {
            Err(EndpointError::Closed)
        }
    }

    /// Runs `f` on a connection.
    pub(crate) fn with_connection<R>(
        &mut self,
        now: Timestamp,
        id: ConnectionId,
        f: impl FnOnce(&mut Connection) -> R,
    ) -> Result<R, ConnectionError> {
        if self.phase == Phase::Gone {
            return Err(ConnectionError::EndpointClosed);
        }
        self.endpoint
            .with_connection(now, id, f)
            .ok_or(ConnectionError::EndpointClosed)
    }

    /// Looks at a connection.
    pub(crate) fn connection(&self, id: ConnectionId) -> Result<&Connection, ConnectionError> {
        if self.phase == Phase::Gone {
            return Err(ConnectionError::EndpointClosed);
        }
        self.endpoint
            .connection(id)
            .ok_or(ConnectionError::EndpointClosed)
    }

    /// Makes `cx`'s task the one that waits for a connection in one direction.
    pub(crate) fn wait(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        cx: &Context<'_>,
        wakeups: &mut Wakeups,
    ) {
        let Some(waiters) = self.waiters.get_mut(id) else {
            return;
        };
        let slot = match direction {
            Direction::Read => &mut waiters.read,
            Direction::Write => &mut waiters.others().write,
            Direction::Shutdown => &mut waiters.others().shutdown,
        };
        wakeups.register(slot, cx.waker());
    }

    /// Returns what is notified when a connection changes state.
    pub(crate) fn state_notify(&mut self, id: ConnectionId) -> Arc<Notify> {
        let notify = self
            .waiters
            .get_mut(id)
            .map(|waiters| &mut waiters.others().state);
        notify.map_or_else(Arc::default, |notify| {
            Arc::clone(notify.get_or_insert_default())
        })
    }

    /// Somebody no longer waits for such a notification: if nobody else does, its memory is given back.
    pub(crate) fn drop_idle_notifies(&mut self, id: ConnectionId) {
        if let Some(waiters) = self.waiters.get_mut(id) {
            waiters.settle();
        }
    }

    /// Returns what is notified when a connection becomes readable.
    pub(crate) fn readable_notify(&mut self, id: ConnectionId) -> Arc<Notify> {
        let notify = self
            .waiters
            .get_mut(id)
            .map(|waiters| &mut waiters.others().readable);
        notify.map_or_else(Arc::default, |notify| {
            Arc::clone(notify.get_or_insert_default())
        })
    }

    /// Wakes everybody who waits for a connection.
    pub(crate) fn wake_all(&mut self, id: ConnectionId, wakeups: &mut Wakeups) {
        if let Some(waiters) = self.waiters.get_mut(id) {
            waiters.wake_all(wakeups);
        }
    }

    /// A socket takes over a connection.
    pub(crate) fn adopt(&mut self, id: ConnectionId) {
        self.waiters.insert(id);
    }

    /// The last handle of a connection is gone. The returned wakers must be dropped without the lock.
    pub(crate) fn release(&mut self, now: Timestamp, id: ConnectionId) -> Option<Waiters> {
        self.endpoint.release(now, id);
        self.waiters.remove(id)
    }

    pub(crate) fn listen(
        &mut self,
        port: u16,
        config: Config,
    ) -> Result<Arc<Notify>, EndpointError> {
        self.check_open()?;
        self.endpoint.listen(port, Some(config))?;
        let accept = Arc::default();
        let waiters = ListenerWaiters {
            poll: None,
            accept: Arc::clone(&accept),
        };
        self.listeners.insert(port, waiters);
        Ok(accept)
    }

    pub(crate) fn unlisten(&mut self, now: Timestamp, port: u16, wakeups: &mut Wakeups) {
        if let Some(listener) = self.listeners.remove(&port) {
            self.endpoint.unlisten(now, port);
            wakeups.retired.extend(listener.poll);
        }
    }

    /// Takes the oldest connection of a listener and makes it a socket's.
    pub(crate) fn accept(
        &mut self,
        port: u16,
    ) -> Result<Option<(ConnectionId, SocketAddr)>, EndpointError> {
        if self.phase != Phase::Open {
            return Err(EndpointError::Closed);
        }
        let accepted = self.endpoint.accept(port);
        if let Some((id, _)) = accepted {
            self.adopt(id);
        }
        Ok(accepted)
    }

    /// Makes `cx`'s task the one that waits for a listener by poll.
    pub(crate) fn wait_accept(&mut self, port: u16, cx: &Context<'_>, wakeups: &mut Wakeups) {
        if let Some(listener) = self.listeners.get_mut(&port) {
            wakeups.register(&mut listener.poll, cx.waker());
        }
    }

    /// Stops listening and connecting; what exists goes on.
    pub(crate) fn start_closing(&mut self, now: Timestamp, wakeups: &mut Wakeups) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
        for &port in self.listeners.keys() {
            self.endpoint.unlisten(now, port);
        }
        self.wake_listeners(wakeups);
    }

    /// The driver task is gone: everybody learns of it.
    pub(super) fn on_driver_gone(&mut self, wakeups: &mut Wakeups) {
        self.phase = Phase::Gone;
        wakeups.retired.extend(self.driver.take());
        for waiters in self.waiters.iter_mut() {
            waiters.wake_all(wakeups);
        }
        self.wake_listeners(wakeups);
        wakeups.groups.push(Arc::clone(&self.idle));
    }

    fn wake_listeners(&mut self, wakeups: &mut Wakeups) {
        for listener in self.listeners.values_mut() {
            wakeups.wake(listener.poll.take());
            wakeups.groups.push(Arc::clone(&listener.accept));
        }
    }
}

impl WaiterTable {
    fn insert(&mut self, id: ConnectionId) {
        let slot = id.slot();
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, Entry::default);
        }
        if let Some(entry) = self.0.get_mut(slot) {
            *entry = Entry {
                holder: Some(holder(id)),
                waiters: Waiters::default(),
            };
        }
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Waiters> {
        let entry = self.0.get_mut(id.slot())?;
        (entry.holder == Some(holder(id))).then_some(&mut entry.waiters)
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Waiters> {
        let entry = self.0.get_mut(id.slot())?;
        (entry.holder == Some(holder(id))).then(|| std::mem::take(entry).waiters)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiters> {
        let held = self.0.iter_mut().filter(|entry| entry.holder.is_some());
        held.map(|entry| &mut entry.waiters)
    }
}

fn holder(id: ConnectionId) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(id.generation())
}

impl Waiters {
    fn others(&mut self) -> &mut Others {
        self.others.get_or_insert_default()
    }

    /// Gives back the memory for those who wait for anything else than to read, if there are none.
    fn settle(&mut self) {
        if let Some(others) = &mut self.others {
            others.readable.take_if(is_unused);
            others.state.take_if(is_unused);
        }
        self.others.take_if(|others| others.is_empty());
    }

    /// Wakes all that an event concerns. `state` is the connection's after it.
    fn on_event(&mut self, event: Event, state: Option<State>, wakeups: &mut Wakeups) {
        match event {
            Event::Connected | Event::Readable => wakeups.wake(self.read.take()),
            Event::Writable | Event::Finished => {}
            Event::Closed => self.wake_all(wakeups),
        }
        let Some(others) = &mut self.others else {
            return;
        };
        match event {
            Event::Connected => {
                wakeups.wake(others.write.take());
                wakeups.groups.extend(others.state.clone());
            }
            Event::Readable => wakeups.groups.extend(others.readable.clone()),
            // Acknowledgments made room, or brought a shutdown nearer to its end.
            Event::Writable => {
                wakeups.wake(others.write.take());
                wakeups.wake(others.shutdown.take());
            }
            Event::Finished => wakeups.wake(others.shutdown.take()),
            Event::Closed => {}
        }
        if matches!(state, Some(State::TimeWait | State::Closed) | None) {
            wakeups.groups.extend(others.state.clone());
        }
        self.others.take_if(|others| others.is_empty());
    }

    fn wake_all(&mut self, wakeups: &mut Wakeups) {
        wakeups.wake(self.read.take());
        if let Some(others) = &mut self.others {
            wakeups.wake(others.write.take());
            wakeups.wake(others.shutdown.take());
            wakeups.groups.extend(others.readable.clone());
            wakeups.groups.extend(others.state.clone());
        }
    }
}

impl Others {
    fn is_empty(&self) -> bool {
        let has_task = self.write.is_some() || self.shutdown.is_some();
        !has_task && self.readable.is_none() && self.state.is_none()
    }
}

/// Whether nobody holds `notify` but the table; whoever comes to hold it gets it from there.
fn is_unused(notify: &mut Arc<Notify>) -> bool {
    Arc::strong_count(notify) == 1
}

impl Wakeups {
    fn register(&mut self, slot: &mut Option<Waker>, waker: &Waker) {
        if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        self.retired.extend(slot.replace(waker.clone()));
    }

    fn wake(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        if self.task.is_none() {
            self.task = Some(waker);
        } else {
            self.tasks.push(waker);
        }
    }

    /// Wakes and drops everything; no lock may be held.
    pub(crate) fn run(&mut self) {
        if let Some(waker) = self.task.take() {
            waker.wake();
        }
        for waker in self.tasks.drain(..) {
            waker.wake();
        }
        for group in self.groups.drain(..) {
            group.notify_waiters();
        }
        self.retired.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{EndpointLocal, Secrets};

    #[test]
    fn a_connection_does_not_find_the_wakers_of_the_next_one_at_its_slot() {
        let secrets = Secrets {
            isn: [1; 16],
            port: [2; 16],
            cookie: [3; 16],
            hash_seed: 4,
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let local = EndpointLocal { addr };
        let now = Timestamp::ZERO;
        let mut core = Core::new(Endpoint::new(now, Config::default(), secrets, local));
        let mut open = || {
            let id = core.endpoint.connect(now, addr, 1, None).unwrap();
            core.adopt(id);
            assert!(core.waiters.get_mut(id).is_some());
            id
        };
        let (kept, old) = (open(), open());
        assert_ne!(kept.slot(), old.slot());
        assert!(core.release(now, old).is_some());
        assert!(core.waiters.get_mut(old).is_none());
        let new = core.endpoint.connect(now, addr, 1, None).unwrap();
        assert_eq!(new.slot(), old.slot());
        core.adopt(new);
        assert!(core.release(now, old).is_none());
        assert!(core.waiters.get_mut(old).is_none());
        assert!(core.waiters.get_mut(new).is_some());
        assert_eq!(core.waiters.iter_mut().count(), 2);
    }
}
