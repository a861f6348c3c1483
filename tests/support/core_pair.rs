//! Two endpoints without sockets, one connection and a bulk transfer between them, in virtual time.
//!
//! A link of 50 Gbit/s and 50 µs either way, which loses segments with data by a seed. Trains travel whole, as GSO
//! and GRO make them, and both ends wake up every 50 µs for all that has arrived, as drivers with something else to
//! do may: were each train handled as it arrives, by processors that need no time, the smallest that a loss ever
//! made would clock out others of its size for ever. The window is fixed and the buffers hold several: what the processor does is the only limit,
//! and a controller that answers losses is not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};
use reliable_udp::internals::{
    Arrival, ConnectionId, Endpoint, EndpointEvent, EndpointLocal, Secrets,
};
use reliable_udp::{Config, ConnectionStats, Timestamp};

const PORT: u16 = 7;
const DELAY: Duration = Duration::from_micros(50);
/// How often each end wakes up, in microseconds.
const TICK: u64 = 50;
/// 50 Gbit/s
const BYTES_PER_MICROSECOND: u64 = 6_250;
/// Twenty trains of 64 segments or so.
const WINDOW: u64 = 2 << 20;
const TRAIN: usize = 64;
const PIECE: usize = 256 * 1024;

/// A window that losses do not change: what they cost is then the cost of repairing them.
#[derive(Debug)]
struct Fixed;

impl CongestionController for Fixed {
    fn on_acked(&mut self, _event: &Acked) {}
    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}
    fn on_timeout(&mut self, _event: &TimedOut) {}
    fn cwnd(&self) -> u64 {
        WINDOW
    }
    fn ssthresh(&self) -> u64 {
        WINDOW
    }
}

/// Datagrams of one size, but for the last, on their way.
struct Train {
    arrives: Timestamp,
    bytes: Bytes,
    stride: usize,
}

/// One direction.
#[derive(Default)]
struct Wire {
    trains: VecDeque<Train>,
    is_free_at: Timestamp,
}

/// The pair, the sender first.
pub(crate) struct CorePair {
    now: Timestamp,
    ends: [Endpoint; 2],
    ids: Option<[ConnectionId; 2]>,
    /// To the end of the same index.
    wires: [Wire; 2],
    /// Of ten thousand segments so many are lost.
    loss: u64,
    random: u64,
    out: Vec<u8>,
    kept: Vec<u8>,
    data: Vec<u8>,
    read: u64,
    /// How often memory was allocated so far, by whoever counts.
    allocations: fn() -> u64,
    /// What of that was inside either end.
    allocated: [u64; 2],
}

fn addr(end: usize) -> SocketAddr {
    let last = if end == 0 { 1 } else { 2 };
    SocketAddr::from(([10, 0, 0, last], 4_000))
}

impl CorePair {
    /// Makes a pair whose sender's segments are lost with probability `loss` in ten thousand, and connects it.
    pub(crate) fn new(loss: u64, seed: u64, allocations: fn() -> u64) -> Self {
        let config = Config::builder()
            .datagram_size(1_452)
            .congestion(CongestionControl::custom(|_| Fixed))
            .buffer_tuning(false)
            .send_buffer(8 << 20)
            .receive_buffer(16 << 20)
            .build()
            .expect("a valid configuration");
        let endpoint = |end: usize| {
            let secrets = Secrets {
                isn: [1; 16],
                port: [2; 16],
                cookie: [3; 16],
                hash_seed: 4,
            };
            let local = EndpointLocal { addr: addr(end) };
            Endpoint::new(Timestamp::ZERO, config.clone(), secrets, local)
        };
        let mut pair = Self {
            now: Timestamp::ZERO,
            ends: [endpoint(0), endpoint(1)],
            ids: None,
            wires: Default::default(),
            loss: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            out: vec![0; 65_536 * 2],
            kept: Vec::new(),
            data: vec![0x5a; PIECE],
            read: 0,
            allocations,
            allocated: [0; 2],
        };
        pair.connect();
        pair.loss = loss;
        pair
    }

    fn connect(&mut self) {
        self.ends[1].listen(PORT, None).expect("the port is free");
        let client = self.ends[0]
            .connect(self.now, addr(1), PORT, None)
            .expect("a port is free");
        self.depart(0);
        let server = loop {
            self.step();
            if let Some((server, _)) = self.ends[1].accept(PORT) {
                break server;
            }
        };
        self.ids = Some([client, server]);
    }

    /// Transfers so many bytes more.
    pub(crate) fn run(&mut self, bytes: u64) {
        let until = self.read + bytes;
        self.serve(0);
        while self.read < until {
            self.step();
        }
    }

    /// Returns how often the sender and the receiver have allocated memory so far.
    pub(crate) fn allocated(&self) -> [u64; 2] {
        self.allocated
    }

    /// Returns the sender's statistics.
    pub(crate) fn stats(&self) -> ConnectionStats {
        let id = self.ids.expect("it is connected")[0];
        let connection = self.ends[0].connection(id);
        connection.expect("nobody has closed it").stats()
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Wakes up for the next thing that happens, and lets everything happen until then.
    fn step(&mut self) {
        let first = |wire: &Wire| wire.trains.front().map(|train| train.arrives);
        let arrivals = self.wires.iter().filter_map(first);
        let timers = self.ends.iter().filter_map(Endpoint::poll_timeout);
        let next = arrivals.chain(timers).min();
        let next = next.expect("a transfer always waits for something");
        let micros = next.saturating_since(Timestamp::ZERO).as_micros();
        let ticks = u64::try_from(micros).expect("a short time") / TICK + 1;
        self.now = self
            .now
            .max(Timestamp::ZERO + Duration::from_micros(ticks * TICK));
        for end in 0..2 {
            while let Some(train) = self.next_arrival(end) {
                self.arrive(end, &train);
            }
            if self.ends[end]
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                let before = (self.allocations)();
                self.ends[end].handle_timeout(self.now);
                self.allocated[end] += (self.allocations)() - before;
            }
            self.serve(end);
        }
    }

    fn next_arrival(&mut self, end: usize) -> Option<Train> {
        let trains = &mut self.wires[end].trains;
        let has_arrived = trains.front()?.arrives <= self.now;
        has_arrived.then(|| trains.pop_front()).flatten()
    }

    fn arrive(&mut self, end: usize, train: &Train) {
        // As in a receive buffer that is used again, the memory is shared before the core sees it.
        let kept = train.bytes.clone();
        let arrival = Arrival {
            remote: addr(1 - end),
            local_ip: None,
            ecn: None,
            bytes: &train.bytes,
            stride: train.stride,
        };
        let before = (self.allocations)();
        self.ends[end].handle_arrival(self.now, &arrival);
        self.allocated[end] += (self.allocations)() - before;
        drop(kept);
    }

    /// Does the application's part at one end, and sends what is due.
    fn serve(&mut self, end: usize) {
        let now = self.now;
        if let Some(ids) = self.ids {
            let (data, read) = (&mut self.data, &mut self.read);
            let before = (self.allocations)();
            self.ends[end].with_connection(now, ids[end], |connection| {
                if end == 0 {
                    while connection.write(now, data).is_ok() {}
                } else {
                    while let Ok(taken @ 1..) = connection.read(now, data) {
                        *read += taken as u64;
                    }
                }
            });
            self.allocated[end] += (self.allocations)() - before;
        }
        self.depart(end);
    }

    fn depart(&mut self, end: usize) {
        loop {
            let before = (self.allocations)();
            let departure = self.ends[end].poll_transmit(self.now, TRAIN, &mut self.out);
            self.allocated[end] += (self.allocations)() - before;
            let Some(departure) = departure else { break };
            let stride = departure.segment_size;
            let mut kept = std::mem::take(&mut self.kept);
            kept.clear();
            for at in (0..departure.len).step_by(stride) {
                let segment = at..departure.len.min(at + stride);
                let is_lost = end == 0 && self.draw() % 10_000 < self.loss;
                if !is_lost {
                    kept.extend_from_slice(&self.out[segment]);
                }
            }
            let wire = &mut self.wires[1 - end];
            let time = Duration::from_nanos(departure.len as u64 * 1_000 / BYTES_PER_MICROSECOND);
            wire.is_free_at = wire.is_free_at.max(self.now) + time;
            if !kept.is_empty() {
                wire.trains.push_back(Train {
                    arrives: wire.is_free_at + DELAY,
                    bytes: Bytes::copy_from_slice(&kept),
                    stride,
                });
            }
            self.kept = kept;
        }
        loop {
            let before = (self.allocations)();
            let event: Option<EndpointEvent> = self.ends[end].poll_event();
            self.allocated[end] += (self.allocations)() - before;
            if event.is_none() {
                break;
            }
        }
    }
}
