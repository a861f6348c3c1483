//! Two bare connections and the paths between them on a virtual clock, for tests that measure.
//!
//! Unlike the simulator's own world, a test sees every segment as it leaves and decides what becomes of
//! it. A run is a function of its seed.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code, outside the test functions"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::env;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::internals::wire::{Flags, Segment, SeqNumber};
use reliable_udp::internals::{Connection, OpenParams, ReadError, State, WriteError};
use reliable_udp::sim::{Link, LinkConfig, Rng};
use reliable_udp::{Config, ConnectionStats, Ecn, Timestamp};

/// The end that connects.
pub const CLIENT: usize = 0;
/// The end that listens.
pub const SERVER: usize = 1;

/// A segment as it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// When.
    pub at: Timestamp,
    /// Position of its first byte in the stream, counted from 1; the SYN is 0.
    pub start: u64,
    /// Its payload in bytes.
    pub len: u64,
    /// Whether its payload had been sent before, at least in part.
    pub is_again: bool,
    /// Whether it reports SACK blocks.
    pub has_sack: bool,
    /// The mark in its IP header.
    pub ecn: Option<Ecn>,
}

/// What one direction does with a segment: when it arrives, `None` if it does not. Marks pass.
pub type Path = Box<dyn FnMut(&Sent, &Bytes) -> Option<Timestamp>>;
/// A path that may change the mark too.
pub type MarkingPath = Box<dyn FnMut(&Sent, &Bytes) -> Option<(Timestamp, Option<Ecn>)>>;

/// A path of nothing but a delay.
pub fn delay(delay: Duration) -> Path {
    Box::new(move |sent, _| Some(sent.at + delay))
}

/// A path made of a link of the simulator.
pub fn link(seed: u64, config: LinkConfig) -> Path {
    let mut link = Link::new(seed, config);
    Box::new(move |sent, bytes| {
        let mut deliveries = link.send(sent.at, bytes.clone()).into_iter();
        deliveries.next().map(|delivery| delivery.at)
    })
}

/// A path made of a link of the simulator, with what that does to marks.
pub fn marking_link(seed: u64, config: LinkConfig) -> MarkingPath {
    let mut link = Link::new(seed, config);
    Box::new(move |sent, bytes| {
        let deliveries = link.send_marked(sent.at, bytes.clone(), sent.ecn);
        let mut deliveries = deliveries.into_iter();
        deliveries
            .next()
            .map(|delivery| (delivery.at, delivery.ecn))
    })
}

fn keeping_marks(mut path: Path) -> MarkingPath {
    Box::new(move |sent, bytes| Some((path(sent, bytes)?, sent.ecn)))
}

type Parcel = Reverse<(Timestamp, u64, usize, Bytes, u8)>;

/// One end with its application, which writes what it is told to and reads everything at once.
pub struct End {
    config: Arc<Config>,
    pub connection: Option<Connection>,
    /// Bytes still to be written.
    pub backlog: u64,
    written: u64,
    /// Bytes read.
    pub received: u64,
    /// The deadline that the connection asked for, and when it is served.
    timer: Option<(Timestamp, Timestamp)>,
    highest_sent: u64,
    last_sack_at: Option<Timestamp>,
    /// Timeouts with an ACK that carried SACK blocks in the RTO before.
    pub timeouts_despite_sack: u64,
    /// What left, if `keeps_log`.
    pub log: Vec<Sent>,
    path: MarkingPath,
}

/// Two connections and a clock.
pub struct World {
    pub seed: u64,
    pub now: Timestamp,
    pub ends: [End; 2],
    pub rng: Rng,
    /// Timers are served up to this much late.
    pub timer_slack: Duration,
    pub keeps_log: bool,
    /// The invariants are checked after every so many steps; each check takes as long as the window is large.
    pub check_every: u64,
    steps: u64,
    in_flight: BinaryHeap<Parcel>,
    parcels: u64,
    buf: Vec<u8>,
    scratch: Vec<u8>,
    /// The pattern that both streams carry, repeated.
    pattern: Vec<u8>,
}

const PATTERN: u64 = 65_521;
/// Every mark, by the number under which parcels carry it.
const MARKS: [Option<Ecn>; 4] = [None, Some(Ecn::Ect1), Some(Ecn::Ect0), Some(Ecn::Ce)];

impl World {
    /// Connects the two ends.
    pub fn new(seed: u64, configs: [Config; 2], paths: [Path; 2]) -> Self {
        Self::marking(seed, configs, paths.map(keeping_marks))
    }

    /// Connects the two ends by paths that may change marks.
    pub fn marking(seed: u64, configs: [Config; 2], paths: [MarkingPath; 2]) -> Self {
        let mut pattern = vec![0; usize::try_from(PATTERN).unwrap()];
        Rng::new(7).fill(&mut pattern);
        let ends = configs.into_iter().zip(paths).map(|(config, path)| End {
            config: Arc::new(config),
            connection: None,
            backlog: 0,
            written: 0,
            received: 0,
            timer: None,
            highest_sent: 1,
            last_sack_at: None,
            timeouts_despite_sack: 0,
            log: Vec::new(),
            path,
        });
        let ends: Vec<_> = ends.collect();
        let mut world = Self {
            seed,
            now: Timestamp::ZERO,
            ends: ends.try_into().unwrap_or_else(|_| panic!("two ends")),
            rng: Rng::stream(seed, 99),
            timer_slack: Duration::ZERO,
            keeps_log: false,
            check_every: 1,
            steps: 0,
            in_flight: BinaryHeap::new(),
            parcels: 0,
            buf: vec![0; 65_536],
            scratch: vec![0; 65_536],
            pattern,
        };
        let client = &mut world.ends[CLIENT];
        let config = Arc::clone(&client.config);
        client.connection = Some(Connection::connect(
            Timestamp::ZERO,
            config,
            &params(CLIENT),
        ));
        world.settle(CLIENT);
        world
    }

    /// Two ends with the same configuration on a symmetric path.
    pub fn symmetric(seed: u64, config: &Config, one_way: Duration) -> Self {
        Self::new(
            seed,
            [config.clone(), config.clone()],
            [delay(one_way), delay(one_way)],
        )
    }

    /// Runs until both ends are established.
    pub fn establish(&mut self) {
        let is_done = self.run(Duration::from_secs(300), |world| {
            let is_established = |end: &End| {
                (end.connection.as_ref()).is_some_and(|c| c.state() == State::Established)
            };
            world.ends.iter().all(is_established)
        });
        assert!(is_done, "seed {}: no connection", self.seed);
    }

    /// Gives `end` so many bytes more to write.
    pub fn write(&mut self, end: usize, bytes: u64) {
        self.ends[end].backlog += bytes;
        self.settle(end);
    }

    pub fn stats(&self, end: usize) -> ConnectionStats {
        self.ends[end].connection.as_ref().unwrap().stats()
    }

    /// Runs until `is_done` or for `limit`; says whether it was done.
    pub fn run(&mut self, limit: Duration, mut is_done: impl FnMut(&Self) -> bool) -> bool {
        let until = self.now + limit;
        while !is_done(self) {
            if !self.step(until) {
                return false;
            }
        }
        true
    }

    /// Runs for `length`.
    pub fn pass(&mut self, length: Duration) {
        self.run(length, |_| false);
    }

    /// Runs until `end` has read `bytes` in all; panics if that takes longer than `limit`.
    pub fn deliver(&mut self, end: usize, bytes: u64, limit: Duration) {
        let is_done = self.run(limit, |world| world.ends[end].received >= bytes);
        let (seed, received) = (self.seed, self.ends[end].received);
        assert!(
            is_done,
            "seed {seed}: {received} of {bytes} bytes after {limit:?}: {:?}",
            self.stats(1 - end)
        );
    }

    /// Lets the next thing happen, unless it is later than `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let arrival = self.in_flight.peek().map(|Reverse((at, ..))| *at);
        let timers = self.ends.iter().filter_map(|end| end.timer);
        let timer = timers.map(|(_, at)| at).min();
        let Some(at) = arrival.into_iter().chain(timer).min() else {
            self.now = self.now.max(until);
            return false;
        };
        if at > until {
            self.now = self.now.max(until);
            return false;
        }
        self.now = self.now.max(at);
        if arrival == Some(at) {
            let Some(Reverse((_, _, to, bytes, mark))) = self.in_flight.pop() else {
                return false;
            };
            self.arrive(to, &bytes, MARKS[usize::from(mark)]);
            self.settle(to);
        } else {
            let index = usize::from(self.ends[CLIENT].timer.is_none_or(|(_, due)| due > at));
            self.expire(index);
            self.settle(index);
        }
        true
    }

    fn expire(&mut self, index: usize) {
        let now = self.now;
        let end = &mut self.ends[index];
        end.timer = None;
        let Some(connection) = &mut end.connection else {
            return;
        };
        let before = connection.stats();
        connection.handle_timeout(now);
        if connection.stats().rto_count > before.rto_count
            && end
                .last_sack_at
                .is_some_and(|at| now.saturating_since(at) < before.rto)
        {
            end.timeouts_despite_sack += 1;
        }
    }

    fn arrive(&mut self, index: usize, bytes: &Bytes, mark: Option<Ecn>) {
        let end = &mut self.ends[index];
        let segment = Segment::decode(bytes).unwrap();
        if !segment.header.options.sack_blocks.as_slice().is_empty() {
            end.last_sack_at = Some(self.now);
        }
        match &mut end.connection {
            Some(connection) => {
                connection.note_mark(mark);
                connection.handle_segment(self.now, &segment, bytes);
            }
            None if segment.header.flags.contains(Flags::SYN) => {
                let config = Arc::clone(&end.config);
                let connection = Connection::accept(self.now, config, &params(index), &segment);
                end.connection = Some(connection);
            }
            None => {}
        }
    }

    /// Lets an end do everything that it can do now.
    fn settle(&mut self, index: usize) {
        let now = self.now;
        let end = &mut self.ends[index];
        let Some(connection) = &mut end.connection else {
            return;
        };
        loop {
            end.received = read_all(
                end.received,
                connection,
                now,
                &mut self.scratch,
                &self.pattern,
            );
            while end.backlog > 0 && connection.state() == State::Established {
                let at = end.written % PATTERN;
                let most = end.backlog.min(PATTERN - at);
                let from = usize::try_from(at).unwrap();
                let data = &self.pattern[from..from + usize::try_from(most).unwrap()];
                match connection.write(now, data) {
                    Ok(taken) => {
                        end.written += taken as u64;
                        end.backlog -= taken as u64;
                    }
                    Err(WriteError::Blocked) => break,
                    Err(error) => panic!("seed {}: {error:?}", self.seed),
                }
            }
            while connection.poll_event().is_some() {}
            let Some(transmit) = connection.poll_transmit(now, 10, &mut self.buf) else {
                break;
            };
            for datagram in self.buf[..transmit.len].chunks(transmit.segment_size) {
                let bytes = Bytes::copy_from_slice(datagram);
                let segment = Segment::decode(&bytes).unwrap();
                let start = segment.header.seq.distance_from(params(index).iss);
                let len = segment.payload.len() as u64;
                let start = u64::from(start);
                let sent = Sent {
                    at: now,
                    start,
                    len,
                    is_again: len > 0 && start < end.highest_sent,
                    has_sack: !segment.header.options.sack_blocks.as_slice().is_empty(),
                    ecn: transmit.ecn,
                };
                end.highest_sent = end.highest_sent.max(start + len);
                if self.keeps_log {
                    end.log.push(sent);
                }
                if let Some((at, mark)) = (end.path)(&sent, &bytes) {
                    self.parcels += 1;
                    let mark = MARKS.iter().position(|&other| other == mark).unwrap();
                    let mark = u8::try_from(mark).unwrap();
                    let parcel = (at.max(now), self.parcels, 1 - index, bytes, mark);
                    self.in_flight.push(Reverse(parcel));
                }
            }
        }
        self.steps += 1;
        if self.steps.is_multiple_of(self.check_every) {
            connection.check_invariants();
        }
        let wanted = connection.poll_timeout();
        if wanted != end.timer.map(|(wanted, _)| wanted) {
            let slack = self.rng.duration(self.timer_slack);
            end.timer = wanted.map(|at| (at, at + slack));
        }
    }
}

/// Reads everything and compares it; returns how much was read in all.
fn read_all(
    mut received: u64,
    connection: &mut Connection,
    now: Timestamp,
    scratch: &mut [u8],
    pattern: &[u8],
) -> u64 {
    loop {
        match connection.read(now, scratch) {
            Ok(0) | Err(ReadError::Blocked) => return received,
            Ok(len) => {
                let mut got = &scratch[..len];
                while !got.is_empty() {
                    let expected = &pattern[usize::try_from(received % PATTERN).unwrap()..];
                    let common = got.len().min(expected.len());
                    assert!(got[..common] == expected[..common], "wrong bytes");
                    received += common as u64;
                    got = &got[common..];
                }
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn params(end: usize) -> OpenParams {
    let ports = [4_000, 1];
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

/// Which seeds a test runs: `count`, and as many times more as `RELIABLE_UDP_SEEDS` is above the 2,000 of the
/// gate, from `RELIABLE_UDP_SEED_START` on.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let first = number("RELIABLE_UDP_SEED_START").unwrap_or(0);
    let wanted = number("RELIABLE_UDP_SEEDS").unwrap_or(0).max(2_000);
    first..first + count * wanted / 2_000
}

/// Returns the value below which `share` of them lie.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short slice"
    )]
    let index = ((values.len() as f64 * share).ceil() as usize).max(1) - 1;
    values[index.min(values.len() - 1)]
}
