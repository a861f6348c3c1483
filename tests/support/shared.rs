//! Several pairs of bare connections over the same two links on a virtual clock, for tests that measure.
//!
//! Every flow sends from its client to its server. What a run does is a function of its seed and its setup.
//! The links carry IP packets: each datagram counts with the headers of IPv4 and UDP.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code, outside the test functions"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::internals::wire::{Flags, Segment, SeqNumber};
use reliable_udp::internals::{Connection, OpenParams, ReadError, State, WriteError};
use reliable_udp::sim::{Link, LinkConfig, LinkConfigBuilder, LinkStats, Rng};
use reliable_udp::{Config, ConnectionStats, Ecn, Timestamp};

/// The headers of IPv4 and UDP.
pub const OVERHEAD: usize = 28;
/// More than any run sends.
pub const ENDLESS: u64 = u64::MAX;

/// The end that connects and sends.
const CLIENT: usize = 0;
/// The end that listens and reads.
const SERVER: usize = 1;

const PATTERN: u64 = 65_521;

static BLANK: [u8; 66_000] = [0; 66_000];

/// One connection to be.
#[derive(Debug, Clone)]
pub struct FlowSpec {
    /// Of both ends.
    pub config: Config,
    /// When it connects.
    pub start: Duration,
    /// Added to the delay of the links, each way.
    pub extra_delay: Duration,
    /// How much the client sends.
    pub bytes: u64,
}

impl FlowSpec {
    pub fn new(config: Config, bytes: u64) -> Self {
        Self {
            config,
            start: Duration::ZERO,
            extra_delay: Duration::ZERO,
            bytes,
        }
    }
}

/// One direction of the bottleneck.
#[derive(Debug, Clone)]
pub struct Way {
    /// Bytes per second, headers of IP included.
    pub rate: Option<u64>,
    pub delay: Duration,
    /// Everything else; [`Network`] adds the two above.
    pub link: LinkConfigBuilder,
}

impl Way {
    /// `bits` per second and nothing that is lost or dropped.
    pub fn new(bits: u64, delay: Duration) -> Self {
        Self {
            rate: Some(bits / 8),
            delay,
            link: LinkConfig::builder(),
        }
    }

    /// A path of nothing but a delay.
    pub fn unlimited(delay: Duration) -> Self {
        Self {
            rate: None,
            delay,
            link: LinkConfig::builder(),
        }
    }

    /// Changes the link.
    pub fn with(mut self, change: impl FnOnce(LinkConfigBuilder) -> LinkConfigBuilder) -> Self {
        self.link = change(self.link);
        self
    }

    fn build(&self) -> LinkConfig {
        let link = self.link.clone().delay(self.delay);
        let link = match self.rate {
            Some(rate) => link.rate(rate),
            None => link,
        };
        link.build().unwrap()
    }

    /// How long a datagram of `len` bytes takes if nothing waits.
    fn transit(&self, len: usize) -> Duration {
        let nanos = self
            .rate
            .map_or(0, |rate| (len as u64 * 1_000_000_000).div_ceil(rate));
        self.delay + Duration::from_nanos(nanos)
    }
}

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    /// From the clients to the servers, with the data.
    pub forward: Way,
    /// From the servers to the clients, with the ACKs.
    pub back: Way,
    pub flows: Vec<FlowSpec>,
    /// Timers are served up to this much late.
    pub timer_slack: Duration,
    /// While one lasts, nothing arrives at either end; it does when it is over, all at once.
    pub freezes: Vec<Range<Duration>>,
    /// While it lasts, the clients neither run nor receive; what arrives is lost.
    pub sleep: Option<Range<Duration>>,
}

impl Setup {
    pub fn new(seed: u64, forward: Way, back: Way, flows: Vec<FlowSpec>) -> Self {
        Self {
            seed,
            forward,
            back,
            flows,
            timer_slack: Duration::ZERO,
            freezes: Vec::new(),
            sleep: None,
        }
    }
}

/// One end of one flow, with its application.
struct Host {
    config: Arc<Config>,
    connection: Option<Connection>,
    /// The deadline that the connection asked for, and when it is served.
    timer: Option<(Timestamp, Timestamp)>,
    backlog: u64,
    written: u64,
    received: u64,
}

/// One pair of connections.
pub struct Flow {
    hosts: [Host; 2],
    extra_delay: Duration,
    bytes: u64,
    /// When everything had been read.
    pub completed_at: Option<Timestamp>,
    progress_at: Option<Timestamp>,
    longest_gap: Duration,
    marked: u64,
}

impl Flow {
    /// Bytes that the server has read.
    pub fn received(&self) -> u64 {
        self.hosts[SERVER].received
    }

    /// Of these, those since the latest [`Network::mark`].
    pub fn received_since_mark(&self) -> u64 {
        self.received() - self.marked
    }

    /// What the client counts.
    pub fn stats(&self) -> ConnectionStats {
        let connection = self.hosts[CLIENT].connection.as_ref();
        connection.map(Connection::stats).unwrap_or_default()
    }
}

/// When, a number that keeps the order, flow, end, and what arrives with how many marks of [`MARKS`] before its own.
type Parcel = Reverse<(Timestamp, u64, usize, usize, Bytes, usize)>;

/// All that the IP header may say.
const MARKS: [Option<Ecn>; 4] = [None, Some(Ecn::Ect1), Some(Ecn::Ect0), Some(Ecn::Ce)];

/// Flows, two links and a clock.
pub struct Network {
    seed: u64,
    pub now: Timestamp,
    pub flows: Vec<Flow>,
    forward: Way,
    links: [Link; 2],
    /// How late each datagram with data was, beyond what an empty queue takes; since the latest mark.
    pub queueing: Vec<Duration>,
    /// Lose every segment with data whose number is a multiple of this.
    pub lose_every: Option<u64>,
    /// Lose the next segment with data; counting begins anew.
    pub lose_next: bool,
    data_segments: u64,
    freezes: Vec<Range<Timestamp>>,
    sleep: Option<Range<Timestamp>>,
    timer_slack: Duration,
    rng: Rng,
    in_flight: BinaryHeap<Parcel>,
    parcels: u64,
    buf: Vec<u8>,
    scratch: Vec<u8>,
    pattern: Vec<u8>,
}

impl Network {
    pub fn new(setup: Setup) -> Self {
        let seed = setup.seed;
        let mut pattern = vec![0; usize::try_from(PATTERN).unwrap()];
        Rng::new(7).fill(&mut pattern);
        let host = |config: &Arc<Config>, backlog, opens_at: Option<Timestamp>| Host {
            config: Arc::clone(config),
            connection: None,
            timer: opens_at.map(|at| (at, at)),
            backlog,
            written: 0,
            received: 0,
        };
        let flow = |spec: FlowSpec| {
            let config = Arc::new(spec.config);
            let opens_at = Timestamp::ZERO + spec.start;
            Flow {
                hosts: [
                    host(&config, spec.bytes, Some(opens_at)),
                    host(&config, 0, None),
                ],
                extra_delay: spec.extra_delay,
                bytes: spec.bytes,
                completed_at: None,
                progress_at: None,
                longest_gap: Duration::ZERO,
                marked: 0,
            }
        };
        let absolute = |range: &Range<Duration>| {
            let [from, to] = [range.start, range.end].map(|at| Timestamp::ZERO + at);
            from..to
        };
        Self {
            seed,
            now: Timestamp::ZERO,
            flows: setup.flows.into_iter().map(flow).collect(),
            links: [
                Link::new(seed, setup.forward.build()),
                Link::new(seed + 1_000_000, setup.back.build()),
            ],
            forward: setup.forward,
            queueing: Vec::new(),
            lose_every: None,
            lose_next: false,
            data_segments: 0,
            freezes: setup.freezes.iter().map(absolute).collect(),
            sleep: setup.sleep.as_ref().map(absolute),
            timer_slack: setup.timer_slack,
            rng: Rng::stream(seed, 99),
            in_flight: BinaryHeap::new(),
            parcels: 0,
            buf: vec![0; 65_536],
            scratch: vec![0; 65_536],
            pattern,
        }
    }

    /// What the link with the data has done.
    pub fn forward(&self) -> LinkStats {
        self.links[CLIENT].stats()
    }

    /// What the link with the ACKs has done.
    pub fn back(&self) -> LinkStats {
        self.links[SERVER].stats()
    }

    /// Begins to measure.
    pub fn mark(&mut self) {
        self.queueing.clear();
        for flow in &mut self.flows {
            flow.marked = flow.received();
        }
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_since(Timestamp::ZERO)
    }

    /// Whether every flow is complete.
    pub fn is_done(&self) -> bool {
        self.flows.iter().all(|flow| flow.completed_at.is_some())
    }

    /// Runs until so much time has passed since the beginning, or every flow is complete.
    pub fn run_until(&mut self, end: Duration) {
        let end = Timestamp::ZERO + end;
        while !self.is_done() {
            if !self.step(end) {
                self.now = self.now.max(end);
                return;
            }
        }
    }

    /// The longest time between two bytes that a server could read, the present one included.
    pub fn longest_gap(&self) -> Duration {
        let of = |flow: &Flow| {
            let open = flow.progress_at.filter(|_| flow.completed_at.is_none());
            let open = open.map_or(Duration::ZERO, |at| self.now.saturating_since(at));
            flow.longest_gap.max(open)
        };
        self.flows.iter().map(of).max().unwrap_or_default()
    }

    /// Checks every connection.
    pub fn check(&self) {
        for flow in &self.flows {
            for connection in flow
                .hosts
                .iter()
                .filter_map(|host| host.connection.as_ref())
            {
                connection.check_invariants();
            }
        }
    }

    /// Lets the next thing happen, unless it is later than `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let arrival = self.in_flight.peek().map(|Reverse((at, ..))| *at);
        let timers = self.flows.iter().enumerate().flat_map(|(flow, pair)| {
            let due = |end: usize| pair.hosts[end].timer.map(|(_, at)| (at, flow, end));
            [due(CLIENT), due(SERVER)].into_iter().flatten()
        });
        let timer = timers.min();
        let first = arrival.into_iter().chain(timer.map(|(at, ..)| at)).min();
        let Some(at) = first.filter(|at| *at <= until) else {
            return false;
        };
        self.now = self.now.max(at);
        if arrival == Some(at) {
            let Some(Reverse((_, _, flow, end, bytes, mark))) = self.in_flight.pop() else {
                return false;
            };
            if end == CLIENT && self.is_asleep() {
                return true;
            }
            self.arrive(flow, end, &bytes, MARKS[mark]);
            self.settle(flow, end);
        } else if let Some((_, flow, end)) = timer {
            self.expire(flow, end);
            self.settle(flow, end);
        }
        true
    }

    fn is_asleep(&self) -> bool {
        (self.sleep.as_ref()).is_some_and(|sleep| sleep.contains(&self.now))
    }

    fn expire(&mut self, flow: usize, end: usize) {
        let now = self.now;
        let sleep = self.sleep.clone().filter(|sleep| sleep.contains(&now));
        let host = &mut self.flows[flow].hosts[end];
        if let Some(sleep) = sleep.filter(|_| end == CLIENT) {
            host.timer = host.timer.map(|(wanted, _)| (wanted, sleep.end));
            return;
        }
        host.timer = None;
        if let Some(connection) = &mut host.connection {
            connection.handle_timeout(now);
        } else {
            let config = Arc::clone(&host.config);
            let connection = Connection::connect(now, config, &params(flow, end));
            host.connection = Some(connection);
        }
    }

    fn arrive(&mut self, flow: usize, end: usize, bytes: &Bytes, mark: Option<Ecn>) {
        let host = &mut self.flows[flow].hosts[end];
        let segment = Segment::decode(bytes).unwrap();
        match &mut host.connection {
            Some(connection) => {
                connection.note_mark(mark);
                connection.handle_segment(self.now, &segment, bytes);
            }
            None if segment.header.flags.contains(Flags::SYN) => {
                let config = Arc::clone(&host.config);
                let connection = Connection::accept(self.now, config, &params(flow, end), &segment);
                host.connection = Some(connection);
            }
            None => {}
        }
    }

    /// Lets an end do everything that it can do now.
    fn settle(&mut self, flow: usize, end: usize) {
        let now = self.now;
        loop {
            self.read(flow, end);
            self.write(flow, end);
            let host = &mut self.flows[flow].hosts[end];
            let Some(connection) = &mut host.connection else {
                return;
            };
            while connection.poll_event().is_some() {}
            let Some(transmit) = connection.poll_transmit(now, 10, &mut self.buf) else {
                let wanted = connection.poll_timeout();
                if wanted != host.timer.map(|(wanted, _)| wanted) {
                    let slack = self.rng.duration(self.timer_slack);
                    host.timer = wanted.map(|at| (at, at + slack));
                }
                return;
            };
            let (mut from, to) = (0, transmit.len);
            while from < to {
                let until = to.min(from + transmit.segment_size);
                let bytes = Bytes::copy_from_slice(&self.buf[from..until]);
                self.send(flow, end, &bytes, transmit.ecn);
                from = until;
            }
        }
    }

    fn read(&mut self, flow: usize, end: usize) {
        let (now, seed) = (self.now, self.seed);
        let pair = &mut self.flows[flow];
        let host = &mut pair.hosts[end];
        let Some(connection) = &mut host.connection else {
            return;
        };
        let before = host.received;
        loop {
            let len = match connection.read(now, &mut self.scratch) {
                Ok(0) | Err(ReadError::Blocked) => break,
                Ok(len) => len,
                Err(error) => panic!("seed {seed}: {error:?}"),
            };
            let mut got = &self.scratch[..len];
            while !got.is_empty() {
                let at = usize::try_from(host.received % PATTERN).unwrap();
                let expected = &self.pattern[at..];
                let common = got.len().min(expected.len());
                assert!(
                    got[..common] == expected[..common],
                    "seed {seed}: wrong bytes"
                );
                host.received += common as u64;
                got = &got[common..];
            }
        }
        if host.received > before {
            let gap = pair.progress_at.replace(now);
            let gap = gap.map_or(Duration::ZERO, |at| now.saturating_since(at));
            pair.longest_gap = pair.longest_gap.max(gap);
            if host.received >= pair.bytes {
                pair.completed_at.get_or_insert(now);
            }
        }
    }

    fn write(&mut self, flow: usize, end: usize) {
        let host = &mut self.flows[flow].hosts[end];
        let Some(connection) = &mut host.connection else {
            return;
        };
        while host.backlog > 0 && connection.state() == State::Established {
            let at = host.written % PATTERN;
            let most = host.backlog.min(PATTERN - at);
            let from = usize::try_from(at).unwrap();
            let data = &self.pattern[from..from + usize::try_from(most).unwrap()];
            match connection.write(self.now, data) {
                Ok(taken) => {
                    host.written += taken as u64;
                    host.backlog -= taken as u64;
                }
                Err(WriteError::Blocked) => break,
                Err(error) => panic!("seed {}: {error:?}", self.seed),
            }
        }
    }

    /// Passes a datagram through the link of its direction.
    fn send(&mut self, flow: usize, from: usize, bytes: &Bytes, mark: Option<Ecn>) {
        let has_data = from == CLIENT && bytes.len() > 100;
        if has_data && self.is_scripted_loss() {
            return;
        }
        let on_wire = Bytes::from_static(&BLANK[..bytes.len() + OVERHEAD]);
        for delivery in self.links[from].send_marked(self.now, on_wire.clone(), mark) {
            if has_data {
                let transit = self.forward.transit(on_wire.len());
                let took = delivery.at.saturating_since(self.now);
                self.queueing.push(took.saturating_sub(transit));
            }
            // A link corrupts by flipping bits of one byte; the checksum finds every such error.
            if delivery.datagram != on_wire {
                continue;
            }
            let mut at = (delivery.at + self.flows[flow].extra_delay).max(self.now);
            if let Some(freeze) = self.freezes.iter().find(|freeze| freeze.contains(&at)) {
                at = freeze.end;
            }
            self.parcels += 1;
            let mark = MARKS.iter().position(|mark| *mark == delivery.ecn);
            let parcel = (
                at,
                self.parcels,
                flow,
                1 - from,
                bytes.clone(),
                mark.unwrap(),
            );
            self.in_flight.push(Reverse(parcel));
        }
    }

    fn is_scripted_loss(&mut self) -> bool {
        self.data_segments += 1;
        if self.lose_next {
            self.lose_next = false;
            self.data_segments = 0;
            return true;
        }
        (self.lose_every).is_some_and(|every| self.data_segments.is_multiple_of(every))
    }
}

fn params(flow: usize, end: usize) -> OpenParams {
    let ports = [4_000 + u16::try_from(flow).unwrap(), 1];
    OpenParams {
        local_port: ports[end],
        remote_port: ports[1 - end],
        iss: SeqNumber::new(if end == CLIENT {
            1_000
        } else {
            u32::MAX - 100_000
        }),
        timestamp_offset: 77,
    }
}
