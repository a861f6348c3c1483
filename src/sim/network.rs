//! `Network`: a world of sans-IO nodes on a virtual clock.
//!
//! Nothing sleeps: time jumps to the next arrival, timer or wish of an application. A run is a
//! function of its seed. One that never ends, because somebody always has something to do, is turned
//! into a [`Failure`] by a limit on steps and one on virtual time. Every node checks its invariants
//! after every event, and no segment may take back a window that was told before.

#![allow(
    unreachable_pub,
    unnameable_types,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::ecn::Ecn;
use crate::sim::edges::EdgeWatch;
use crate::sim::link::{Link, LinkConfig, LinkStats};
use crate::sim::rng::Rng;
use crate::sim::schedule::Schedule;
use crate::timestamp::Timestamp;

/// Events before a run is taken for a livelock.
const STEP_LIMIT: u64 = 3_000_000;
/// Virtual time before a run is taken for one that never ends.
const TIME_LIMIT: Duration = Duration::from_secs(7 * 86_400);
/// Sends of one node at one instant before they are taken for a livelock.
const BURST_LIMIT: u32 = 100_000;
/// What a node is given to write its segments to.
const SEND_BUFFER: usize = 65_536;

/// A sans-IO participant with the applications on top of it.
pub trait Node: fmt::Debug {
    /// Takes in datagrams that arrived together.
    fn handle_train(&mut self, now: Timestamp, from: SocketAddr, train: &Train);
    /// Is called when [`poll_timeout`](Self::poll_timeout) has come, possibly later, possibly for
    /// nothing.
    fn handle_timeout(&mut self, now: Timestamp);
    /// Returns when it wants [`handle_timeout`](Self::handle_timeout).
    fn poll_timeout(&self) -> Option<Timestamp>;
    /// Writes what it wants to send to `buf`, at most `max_segments` datagrams.
    fn poll_transmit(
        &mut self,
        now: Timestamp,
        max_segments: usize,
        buf: &mut [u8],
    ) -> Option<Outgoing>;
    /// Lets the applications do what they can and says when they want to be called without an event.
    ///
    /// # Errors
    ///
    /// What an application saw that it should not have.
    fn run_applications(&mut self, now: Timestamp) -> Result<Activity, String>;
    /// Panics if anything does not add up.
    fn check_invariants(&self);
    /// Says what has gone wrong for good, if anything has.
    fn failure(&self) -> Option<String>;
    /// Says what is not finished although nothing happens any more.
    ///
    /// # Errors
    ///
    /// What is missing.
    fn check_finished(&self) -> Result<(), String>;
    /// Describes a datagram and the node's state in a line of the trace.
    fn describe(&self, datagram: &[u8]) -> String;
}

/// Datagrams of `stride` bytes, the last may be shorter, with the same mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Train {
    /// Their bytes, one behind the other.
    pub bytes: Bytes,
    /// Bytes per datagram.
    pub stride: usize,
    /// The mark in their IP headers.
    pub ecn: Option<Ecn>,
}

/// What a node sends: datagrams of `segment_size` bytes, the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes per datagram.
    pub segment_size: usize,
    /// The mark in their IP headers.
    pub ecn: Option<Ecn>,
}

/// What the applications of a node did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Whether they did anything.
    pub made_progress: bool,
    /// When they want to be called even if nothing happens.
    pub wakes_at: Option<Timestamp>,
}

/// Why a run did not end as it should; shows the seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {what} at {at} after {steps} events")]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// The virtual time.
    pub at: Timestamp,
    /// How many events had happened.
    pub steps: u64,
    /// What was wrong.
    pub what: String,
}

/// The newest lines of what happened in a world; outlives it, and a panic in it.
#[derive(Debug, Clone)]
pub struct Trace {
    lines: Arc<Mutex<VecDeque<String>>>,
    limit: usize,
}

impl Trace {
    /// Makes one that keeps this many lines.
    pub fn new(limit: usize) -> Self {
        let lines = Arc::default();
        Self { lines, limit }
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= self.limit {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A world of nodes; see the module's documentation.
#[derive(Debug)]
pub struct Network<N> {
    seed: u64,
    now: Timestamp,
    steps: u64,
    slots: Vec<Slot<N>>,
    addresses: HashMap<SocketAddr, usize>,
    links: HashMap<(usize, usize), Link>,
    in_flight: Schedule<Parcel>,
    habits: Habits,
    edges: EdgeWatch,
    step_limit: u64,
    buf: Vec<u8>,
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Slot<N> {
    node: N,
    addr: SocketAddr,
    /// What [`Node::poll_timeout`] said last, and when it will be called for that.
    timer: Option<(Timestamp, Timestamp)>,
    wakes_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Parcel {
    from: usize,
    source: SocketAddr,
    to: usize,
    datagram: Bytes,
    ecn: Option<Ecn>,
}

/// How the drivers of this world behave, drawn from the seed.
#[derive(Debug)]
struct Habits {
    rng: Rng,
    /// Arrivals of one instant are handed over together.
    batches: bool,
    /// Timers are served up to this much late.
    timer_slack: Duration,
    /// Datagrams per send at most.
    max_segments: usize,
}

impl Habits {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 0x4e65_7477);
        let is_late = rng.chance(0.5);
        let slack = rng.duration(Duration::from_millis(3));
        Self {
            batches: rng.chance(0.5),
            timer_slack: if is_late { slack } else { Duration::ZERO },
            max_segments: 1 + rng.index(20),
            rng,
        }
    }
}

impl<N: Node> Network<N> {
    /// Makes an empty world.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: Timestamp::ZERO,
            steps: 0,
            slots: Vec::new(),
            addresses: HashMap::new(),
            links: HashMap::new(),
            in_flight: Schedule::new(),
            habits: Habits::new(seed),
            edges: EdgeWatch::default(),
            step_limit: STEP_LIMIT,
            buf: vec![0; SEND_BUFFER],
            trace: None,
        }
    }

    /// Adds a node under an address and returns its index.
    pub fn add(&mut self, addr: SocketAddr, node: N) -> usize {
        let index = self.slots.len();
        self.slots.push(Slot {
            node,
            addr,
            timer: None,
            wakes_at: None,
        });
        self.addresses.insert(addr, index);
        index
    }

    /// Lays a link from one node to another; without one nothing arrives.
    pub fn link(&mut self, from: usize, to: usize, config: LinkConfig) {
        let seed = self.seed ^ ((from as u64) << 32) ^ ((to as u64) << 1) ^ 1;
        self.links.insert((from, to), Link::new(seed, config));
    }

    /// Lets `trace` keep the newest lines of what happens.
    pub fn set_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }

    /// Gives a node another address, as a NAT does that has forgotten its binding.
    pub fn rebind(&mut self, index: usize, addr: SocketAddr) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.addresses.remove(&slot.addr);
            self.addresses.insert(addr, index);
            slot.addr = addr;
        }
    }

    /// Returns a node.
    pub fn node(&self, index: usize) -> Option<&N> {
        self.slots.get(index).map(|slot| &slot.node)
    }

    /// Returns a node to change it between two runs.
    pub fn node_mut(&mut self, index: usize) -> Option<&mut N> {
        self.slots.get_mut(index).map(|slot| &mut slot.node)
    }

    /// Returns what the link between two nodes has done so far.
    pub fn link_stats(&self, from: usize, to: usize) -> LinkStats {
        self.links
            .get(&(from, to))
            .map(Link::stats)
            .unwrap_or_default()
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns how many events have happened.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Runs until nothing happens any more; every node has to be finished then.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the world does not come to rest, an application sees what it should not, anything
    /// goes wrong for good, or something is unfinished at the end.
    pub fn run(&mut self) -> Result<(), Failure> {
        self.advance(Timestamp::MAX, true)?;
        for slot in &self.slots {
            let finished = slot.node.check_finished();
            finished.map_err(|what| self.failure(format!("{}: {what}", slot.addr)))?;
        }
        Ok(())
    }

    /// Runs until nothing happens any more or the next event is later than `until`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), but nobody has to succeed or be finished.
    pub fn run_until(&mut self, until: Timestamp) -> Result<(), Failure> {
        self.advance(until, false)
    }

    fn advance(&mut self, until: Timestamp, must_succeed: bool) -> Result<(), Failure> {
        for index in 0..self.slots.len() {
            self.settle(index)?;
        }
        while let Some(at) = self.next_at().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.steps += 1;
            if self.steps > self.step_limit {
                return Err(self.failure("livelock".to_owned()));
            }
            if self.now > Timestamp::ZERO + TIME_LIMIT {
                return Err(self.failure("never ends".to_owned()));
            }
            let touched = self.dispatch();
            self.settle(touched)?;
            let failure = self.node(touched).and_then(Node::failure);
            if let Some(what) = failure.filter(|_| must_succeed) {
                return Err(self.failure(format!("node {touched}: {what}")));
            }
        }
        if until < Timestamp::MAX {
            self.now = self.now.max(until);
        }
        Ok(())
    }

    /// Returns the time of the next event.
    fn next_at(&self) -> Option<Timestamp> {
        let timers = self
            .slots
            .iter()
            .filter_map(|slot| slot.timer.map(|(_, at)| at));
        let wakes = self.slots.iter().filter_map(|slot| slot.wakes_at);
        timers.chain(wakes).chain(self.in_flight.next_at()).min()
    }

    /// Lets one event happen; returns the node that it happened to.
    fn dispatch(&mut self) -> usize {
        let now = self.now;
        if let Some((_, parcel)) = self.in_flight.pop_due(now) {
            return self.deliver(parcel);
        }
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let due = self
            .slots
            .iter()
            .position(|slot| is_due(slot.timer.map(|(_, at)| at)) || is_due(slot.wakes_at));
        let Some((index, slot)) = due.and_then(|i| Some((i, self.slots.get_mut(i)?))) else {
            return 0;
        };
        if is_due(slot.timer.map(|(_, at)| at)) {
            slot.timer = None;
            slot.node.handle_timeout(now);
            self.note(index, || "timer".to_owned());
        } else {
            slot.wakes_at = None;
        }
        index
    }

    /// Hands over a datagram, or a train of those that arrive at the same instant from the same node.
    fn deliver(&mut self, first: Parcel) -> usize {
        let Parcel {
            from,
            source,
            to,
            datagram,
            ecn,
        } = first;
        let stride = datagram.len().max(1);
        let mut train = vec![datagram];
        while self.habits.batches && train.last().is_some_and(|last| last.len() == stride) {
            let Some(next) = self.in_flight.peek_due(self.now) else {
                break;
            };
            let fits = next.datagram.len() <= stride && !next.datagram.is_empty();
            if (next.from, next.source, next.to, next.ecn) != (from, source, to, ecn) || !fits {
                break;
            }
            let parcel = self.in_flight.pop_due(self.now);
            train.extend(parcel.map(|(_, parcel)| parcel.datagram));
        }
        for datagram in &train {
            self.trace(to, "<", datagram);
        }
        let bytes = match train.as_slice() {
            [single] => single.clone(),
            _ => Bytes::from(train.concat()),
        };
        if let Some(slot) = self.slots.get_mut(to) {
            let train = Train { bytes, stride, ecn };
            slot.node.handle_train(self.now, source, &train);
        }
        to
    }

    /// Lets a node do everything that it can do at this instant.
    fn settle(&mut self, index: usize) -> Result<(), Failure> {
        let mut buf = std::mem::take(&mut self.buf);
        let mut result = Err("sends without end".to_owned());
        for _ in 0..BURST_LIMIT {
            match self.settle_once(index, &mut buf) {
                Ok(true) => {}
                Ok(false) => {
                    result = Ok(());
                    break;
                }
                Err(what) => {
                    result = Err(what);
                    break;
                }
            }
        }
        self.buf = buf;
        self.arm(index);
        result.map_err(|what| self.failure(format!("node {index}: {what}")))
    }

    /// Lets a node's applications run and one send leave; tells whether there may be more to do.
    fn settle_once(&mut self, index: usize, buf: &mut [u8]) -> Result<bool, String> {
        let max_segments = 1 + self.habits.rng.index(self.habits.max_segments);
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(false);
        };
        let activity = slot.node.run_applications(self.now)?;
        slot.wakes_at = activity.wakes_at;
        let outgoing = slot.node.poll_transmit(self.now, max_segments, buf);
        slot.node.check_invariants();
        if let Some(outgoing) = outgoing {
            self.transmit(index, outgoing, buf)?;
        }
        Ok(activity.made_progress || outgoing.is_some())
    }

    /// Notes when the node's timer is to be served.
    fn arm(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let wanted = slot.node.poll_timeout();
        if wanted == slot.timer.map(|(wanted, _)| wanted) {
            return;
        }
        let slack = self.habits.rng.duration(self.habits.timer_slack);
        slot.timer = wanted.map(|at| (at, at + slack));
    }

    /// Puts what a node sends on its way, unless it takes back what it told before.
    fn transmit(&mut self, from: usize, outgoing: Outgoing, buf: &[u8]) -> Result<(), String> {
        let source = self.slots[from].addr;
        let all = Bytes::copy_from_slice(&buf[..outgoing.len]);
        let to = self.addresses.get(&outgoing.to).copied();
        let mut rest = all;
        while !rest.is_empty() {
            let datagram = rest.split_to(outgoing.segment_size.clamp(1, rest.len()));
            self.trace(from, ">", &datagram);
            self.edges.watch(source, outgoing.to, &datagram)?;
            let Some(to) = to else {
                continue;
            };
            let Some(link) = self.links.get_mut(&(from, to)) else {
                continue;
            };
            let deliveries = link.send_marked(self.now, datagram, outgoing.ecn);
            if deliveries == super::Deliveries::default() {
                self.note(from, || "  (lost)".to_owned());
            }
            for delivery in deliveries {
                let datagram = delivery.datagram;
                self.in_flight.push(
                    delivery.at,
                    Parcel {
                        from,
                        source,
                        to,
                        datagram,
                        ecn: delivery.ecn,
                    },
                );
            }
        }
        Ok(())
    }

    fn trace(&self, index: usize, direction: &str, datagram: &[u8]) {
        self.note(index, || {
            let node = self.node(index);
            let text = node.map_or_else(String::new, |node| node.describe(datagram));
            format!("{direction} {text}")
        });
    }

    fn note(&self, index: usize, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.push(format!("{} node {index} {}", self.now, line()));
        }
    }

    /// Makes a failure of this run, now.
    pub fn failure(&self, what: String) -> Failure {
        Failure {
            seed: self.seed,
            at: self.now,
            steps: self.steps,
            what,
        }
    }
}

#[cfg(test)]
mod tests;
