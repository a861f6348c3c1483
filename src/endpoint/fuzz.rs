//! The entry of the `connection` fuzz target: two whole endpoints, a hostile network and a careless
//! application, all driven by the input's bytes.
//!
//! After every step the endpoints' invariants hold; whatever is read is what was written, in order, as long
//! as nobody forged a segment with a valid check; no connection takes more memory than its buffers
//! explain; and once the network behaves, everything that was released comes to an end.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Arrival, ConnectionId, Endpoint, EndpointLocal, Secrets};
use crate::config::{Config, DropPolicy};
use crate::connection::{ReadError, State};
use crate::timestamp::Timestamp;
use crate::wire::{self, Integrity, Segment, SeqNumber};

const MAX_STEPS: usize = 2_000;
const MAX_FLYING: usize = 1_024;
const PORT: u16 = 1;
const RENDEZVOUS_PORT: u16 = 9;
const BUFFER: usize = 8 * 1024;
/// Whatever a connection holds beside its two buffers: queues, range sets, pinned receive buffers.
const MEMORY_SLACK: usize = 1024 * 1024;

/// Interprets `data` as a sequence of operations.
///
/// # Panics
///
/// Panics if a property does not hold.
pub fn fuzz_connection(data: &[u8]) {
    let mut input = Input { data };
    let mut world = World::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.data.is_empty() {
            break;
        }
        world.step(&mut input);
        world.transmit(&mut input);
        world.check();
    }
    world.wind_up();
}

/// The bytes not yet interpreted; zeros once they have run out.
struct Input<'a> {
    data: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.data.split_first() else {
            return 0;
        };
        self.data = rest;
        first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// An index below `len`, which is not 0.
    fn index(&mut self, len: usize) -> usize {
        usize::from(self.byte()) % len
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

#[derive(Debug, Clone)]
struct Flight {
    from: usize,
    bytes: Bytes,
}

/// One side of a connection, as its application sees it.
#[derive(Debug, Clone, Copy)]
struct Stream {
    host: usize,
    id: ConnectionId,
    /// The connecting side's virtual port: names the connection on both sides.
    name: u16,
    written: usize,
    read: usize,
}

impl Stream {
    /// Which bytes it writes, or its peer.
    fn direction(host: usize, name: u16) -> (usize, u16) {
        (host, name)
    }
}

struct World {
    now: Timestamp,
    endpoints: [Endpoint; 2],
    flying: VecDeque<Flight>,
    streams: Vec<Stream>,
    /// Bytes written, by who wrote them.
    written: HashMap<(usize, u16), usize>,
    /// Whether segments with a valid check may be forged; then nothing is said about the bytes.
    is_hostile: bool,
}

fn address(host: usize) -> SocketAddr {
    let last = u8::try_from(host + 1).unwrap_or(u8::MAX);
    SocketAddr::from(([10, 0, 0, last], 9_000))
}

/// The byte at `position` of what `direction` carries.
fn content((host, name): (usize, u16), position: usize) -> u8 {
    let mixed = position.wrapping_mul(31) ^ usize::from(name) ^ (host << 7) ^ (position >> 8);
    u8::try_from(mixed & 0xff).unwrap_or(0)
}

/// Draws a setting for every option.
fn config(input: &mut Input<'_>) -> Config {
    let mut pick = |values: &[u64]| {
        let millis = values.get(input.index(values.len())).copied();
        Duration::from_millis(millis.unwrap_or(1))
    };
    let mut config = Config {
        ack_delay: pick(&[0, 1, 25, 500]),
        initial_rto: pick(&[1, 100, 1_000, 60_000]),
        min_rto: pick(&[1, 10, 200, 60_000]),
        max_rto: pick(&[1_000, 60_000, 600_000]),
        linger: pick(&[0, 1_000, 60_000]),
        time_wait: pick(&[0, 1_000, 60_000]),
        user_timeout: Some(pick(&[0, 1, 5_000, 300_000])).filter(|limit| !limit.is_zero()),
        connect_timeout: Some(pick(&[0, 0, 1, 5_000])).filter(|limit| !limit.is_zero()),
        ..Config::default()
    };
    config.max_rto = config.max_rto.max(config.min_rto);
    let bits = input.word();
    let is_set = |bit: u32| bits & (1 << bit) != 0;
    config = Config {
        send_buffer: BUFFER,
        receive_buffer: BUFFER << input.index(6),
        notsent_lowat: is_set(15).then_some(BUFFER / 2),
        datagram_size: 512,
        timestamps: !is_set(0),
        sack: !is_set(1),
        extension: !is_set(2),
        window_scaling: !is_set(3),
        nodelay: is_set(4),
        prr: !is_set(7),
        tail_loss_probe: !is_set(8),
        frto: !input.flag(),
        pacing: input.flag(),
        slow_start_after_idle: !is_set(9),
        initial_window_segments: if is_set(10) { 1 } else { 10 },
        challenge_ack_limit: if is_set(11) { 1 } else { 100 },
        data_retries: if is_set(12) { 2 } else { 15 },
        drop_policy: if is_set(13) {
            DropPolicy::Reset
        } else {
            DropPolicy::Finish
        },
        backlog: 2,
        max_connections: 12,
        max_memory: if is_set(14) { 64 * 1024 } else { 1 << 32 },
        time_wait_capacity: 3,
        syn_retries: 3,
        ..config
    };
    if is_set(5) {
        config.keepalive = Some(Duration::from_secs(5));
        config.idle_timeout = Some(Duration::from_secs(500));
    }
    if is_set(6) {
        config.mss = 100;
    }
    config
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let now = Timestamp::from_millis(u64::from(input.word()));
        let is_hostile = input.flag();
        let mut endpoint = |host| {
            let addr = address(host);
            let secrets = Secrets {
                isn: [input.byte(); 16],
                port: [2; 16],
                cookie: [3; 16],
                hash_seed: 4,
            };
            Endpoint::new(now, config(input), secrets, EndpointLocal { addr })
        };
        let mut endpoints = [endpoint(0), endpoint(1)];
        let is_listening = endpoints[1].listen(PORT, None).is_ok();
        assert!(is_listening);
        Self {
            now,
            endpoints,
            flying: VecDeque::new(),
            streams: Vec::new(),
            written: HashMap::new(),
            is_hostile,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..=2 => self.advance(Duration::from_millis(u64::from(input.byte()))),
            3 => self.advance(Duration::from_millis(500 * u64::from(input.byte()))),
            4..=6 => self.advance_to_deadline(),
            7 | 8 => self.deliver_at(0),
            9..=13 => {
                for _ in 0..self.flying.len() {
                    self.deliver_at(0);
                }
            }
            14 if !self.flying.is_empty() => self.deliver_at(input.index(self.flying.len())),
            15 => drop(self.flying.pop_front()),
            16 => self.flying.extend(self.flying.front().cloned()),
            17 => self.deliver_damaged(input),
            18 => self.inject_noise(input),
            19 => self.forge(input),
            20..=22 => self.write(input),
            23..=26 => self.read(input),
            27 => self.command(input),
            28 | 29 => self.open(input),
            30 => self.accept(),
            _ => self.disturb(input),
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        for endpoint in &mut self.endpoints {
            endpoint.handle_timeout(self.now);
        }
    }

    fn advance_to_deadline(&mut self) {
        let deadline = self
            .endpoints
            .iter()
            .filter_map(Endpoint::poll_timeout)
            .min();
        if let Some(deadline) = deadline {
            self.now = self.now.max(deadline);
            self.advance(Duration::ZERO);
        }
    }

    fn deliver_at(&mut self, index: usize) {
        if let Some(flight) = self.flying.remove(index) {
            self.arrive(1 - flight.from, address(flight.from), &flight.bytes);
        }
    }

    fn arrive(&mut self, host: usize, remote: SocketAddr, bytes: &Bytes) {
        let local_ip = Some(address(host).ip());
        let arrival = Arrival {
            remote,
            local_ip,
            ecn: None,
            bytes,
            stride: 0,
        };
        self.endpoints[host].handle_arrival(self.now, &arrival);
    }

    /// One changed byte is always found, by the sum as well as by the CRC.
    fn deliver_damaged(&mut self, input: &mut Input<'_>) {
        let Some(flight) = self.flying.pop_front() else {
            return;
        };
        let mut bytes = flight.bytes.to_vec();
        let index = usize::from(input.word()) % bytes.len();
        bytes[index] ^= input.byte().max(1);
        let before = self.endpoints[1 - flight.from].stats();
        self.arrive(1 - flight.from, address(flight.from), &bytes.into());
        let after = self.endpoints[1 - flight.from].stats();
        let dropped =
            |stats: &crate::EndpointStats| stats.dropped_checksum + stats.dropped_malformed;
        assert_eq!(dropped(&after), dropped(&before) + 1, "damage went unseen");
    }

    /// From somebody else: arbitrary bytes, or an intact segment of a live connection.
    fn inject_noise(&mut self, input: &mut Input<'_>) {
        let host = input.index(2);
        if let Some(flight) = self.flying.front().cloned().filter(|_| input.flag()) {
            self.arrive(host, address(7), &flight.bytes);
            return;
        }
        let len = input.index(80);
        let mut bytes: Vec<u8> = (0..len).map(|_| input.byte()).collect();
        if bytes.len() >= wire::HEADER_LEN && input.flag() {
            bytes[16..20].fill(0);
            wire::seal(&mut bytes, Integrity::Sum);
        }
        self.arrive(host, address(7), &bytes.into());
    }

    /// A segment that was sent, changed, and sealed again.
    fn forge(&mut self, input: &mut Input<'_>) {
        let Some(flight) = self.flying.front().cloned().filter(|_| self.is_hostile) else {
            return;
        };
        let Ok(segment) = Segment::decode(&flight.bytes) else {
            return;
        };
        let mut header = segment.header;
        let integrity = segment.integrity().unwrap_or(Integrity::Sum);
        let step = u32::from(input.word());
        let distance = if input.flag() {
            step
        } else {
            step.wrapping_neg()
        };
        match input.byte() % 10 {
            0 => header.seq = SeqNumber::new(header.seq.get().wrapping_add(distance)),
            1 => header.ack = SeqNumber::new(header.ack.get().wrapping_add(distance)),
            2 => header.window = input.word(),
            3 => header.flags = wire::Flags::from_bits(input.byte()),
            4 => {
                if let Some(timestamps) = &mut header.options.timestamps {
                    timestamps.tsval = timestamps.tsval.wrapping_add(distance);
                    timestamps.tsecr = timestamps.tsecr.wrapping_sub(distance);
                }
            }
            5 => {
                let left = header.ack + u32::from(input.word());
                let block = wire::SackBlock {
                    left,
                    right: left + u32::from(input.word()),
                };
                header.options.sack_blocks.push(block);
            }
            6 => header.options.window_scale = Some(input.byte()),
            7 => header.options.mss = Some(input.word()),
            8 => {
                header.options.sack_permitted ^= true;
                header.options.extension = None;
            }
            _ => {
                header.seq = SeqNumber::new(header.seq.get().wrapping_add(distance));
                header.flags = wire::Flags::from_bits(input.byte());
            }
        }
        let payload = segment.payload.get(input.index(64)..).unwrap_or_default();
        let mut bytes = vec![0; header.encoded_len()];
        if header.encode(&mut bytes).is_none() {
            return;
        }
        bytes.extend_from_slice(payload);
        wire::seal(&mut bytes, integrity);
        self.arrive(1 - flight.from, address(flight.from), &bytes.into());
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let len = usize::from(input.word()) % 10_000;
        let Some(stream) = self.pick(input) else {
            return;
        };
        let direction = Stream::direction(stream.host, stream.name);
        let data: Vec<u8> = (stream.written..stream.written + len)
            .map(|at| content(direction, at))
            .collect();
        let now = self.now;
        let result = self.endpoints[stream.host]
            .with_connection(now, stream.id, |connection| connection.write(now, &data));
        if let Some(Ok(taken)) = result {
            assert!(taken <= len);
            let written = stream.written + taken;
            self.written
                .entry(direction)
                .and_modify(|most| *most = written.max(*most))
                .or_insert(written);
            self.update(Stream { written, ..stream });
        }
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let mut buf = vec![0; 1 + usize::from(input.word()) % 5_000];
        let Some(stream) = self.pick(input) else {
            return;
        };
        let now = self.now;
        let result = self.endpoints[stream.host]
            .with_connection(now, stream.id, |connection| connection.read(now, &mut buf));
        let taken = match result {
            Some(Ok(taken)) => taken,
            Some(Err(ReadError::Blocked | ReadError::Closed(_))) | None => return,
        };
        let read = stream.read + taken;
        self.update(Stream { read, ..stream });
        if self.is_hostile {
            return;
        }
        let direction = Stream::direction(1 - stream.host, stream.name);
        let written = self.written.get(&direction).copied().unwrap_or(0);
        assert!(read <= written, "{read} bytes read, {written} written");
        for (at, &byte) in (stream.read..).zip(&buf[..taken]) {
            assert_eq!(byte, content(direction, at), "byte {at} of {stream:?}");
        }
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let kind = input.byte() % 8;
        let now = self.now;
        let Some(stream) = self.pick(input) else {
            return;
        };
        let endpoint = &mut self.endpoints[stream.host];
        endpoint.with_connection(now, stream.id, |connection| match kind {
            0 => connection.abort(now),
            1 | 2 => drop(connection.finish(now)),
            3 => connection.set_nodelay(now, !connection.nodelay()),
            _ => connection.flush(now),
        });
    }

    fn release(&mut self, input: &mut Input<'_>) {
        if self.streams.is_empty() {
            return;
        }
        let stream = self.streams.swap_remove(input.index(self.streams.len()));
        self.endpoints[stream.host].release(self.now, stream.id);
        assert!(self.endpoints[stream.host].connection(stream.id).is_none());
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let (now, is_rendezvous) = (self.now, input.byte() < 32);
        if is_rendezvous {
            let host = input.index(2);
            let remote = address(1 - host);
            let opened = self.endpoints[host].rendezvous(now, remote, RENDEZVOUS_PORT, None);
            self.adopt(host, opened.ok());
        } else {
            let opened = self.endpoints[0].connect(now, address(1), PORT, None);
            self.adopt(0, opened.ok());
        }
    }

    fn accept(&mut self) {
        if let Some((id, remote)) = self.endpoints[1].accept(PORT) {
            // One that noise has opened is nobody's stream.
            if remote == address(0) {
                self.adopt(1, Some(id));
            } else {
                self.endpoints[1].release(self.now, id);
            }
        }
    }

    fn adopt(&mut self, host: usize, id: Option<ConnectionId>) {
        let Some(connection) = id.and_then(|id| self.endpoints[host].connection(id)) else {
            return;
        };
        let (local, remote) = (connection.local_port(), connection.remote_port());
        let name = if host == 0 { local } else { remote };
        let Some(id) = id else { return };
        self.streams.push(Stream {
            host,
            id,
            name,
            written: 0,
            read: 0,
        });
    }

    /// What happens beside the traffic.
    fn disturb(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 16 {
            0..=3 => {
                if let Some(flight) = self.flying.front().cloned() {
                    let quoted = flight.bytes.get(..input.index(32)).unwrap_or(&flight.bytes);
                    let remote = address(1 - flight.from);
                    self.endpoints[flight.from].handle_unreachable(now, remote, quoted);
                }
            }
            4 => {
                self.endpoints[1].unlisten(now, PORT);
                assert!(self.endpoints[1].accept(PORT).is_none());
                assert!(self.endpoints[1].listen(PORT, None).is_ok());
            }
            5..=7 => self.release(input),
            8..=10 => {
                // There and back again: what is on its way meanwhile comes from a foreign address.
                if let Some(stream) = self.pick(input) {
                    let (endpoint, home) =
                        (&mut self.endpoints[stream.host], address(1 - stream.host));
                    if endpoint.replace_remote(stream.id, address(8)).is_ok() {
                        endpoint.check_invariants();
                        assert_eq!(endpoint.replace_remote(stream.id, home), Ok(()));
                    }
                }
            }
            _ => {
                for endpoint in &mut self.endpoints {
                    while endpoint.poll_event().is_some() {}
                }
            }
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<Stream> {
        let index = usize::from(input.byte()).checked_rem(self.streams.len())?;
        self.streams.get(index).copied()
    }

    fn update(&mut self, changed: Stream) {
        let is_it = |stream: &&mut Stream| (stream.host, stream.id) == (changed.host, changed.id);
        if let Some(stream) = self.streams.iter_mut().find(is_it) {
            *stream = changed;
        }
    }

    /// Puts on the wire what the endpoints want to send.
    fn transmit(&mut self, input: &mut Input<'_>) {
        let max_segments = 1 + input.index(4);
        let mut buf = vec![0; 512 * max_segments];
        for (from, endpoint) in self.endpoints.iter_mut().enumerate() {
            let mut turns = 0;
            while let Some(departure) = endpoint.poll_transmit(self.now, max_segments, &mut buf) {
                turns += 1;
                assert!(turns < 10_000, "it never falls silent");
                assert!(departure.segments <= max_segments);
                for segment in buf[..departure.len].chunks(departure.segment_size) {
                    if departure.remote == address(1 - from) && self.flying.len() < MAX_FLYING {
                        let bytes = Bytes::copy_from_slice(segment);
                        self.flying.push_back(Flight { from, bytes });
                    }
                }
            }
        }
    }

    fn check(&self) {
        for endpoint in &self.endpoints {
            endpoint.check_invariants();
            for (_, slot) in &endpoint.slots {
                let buffers =
                    slot.connection.config().send_buffer + slot.connection.config().receive_buffer;
                let memory = slot.connection.memory();
                assert!(memory <= 2 * buffers + MEMORY_SLACK, "{memory} bytes");
                assert!(slot.connection.state() != State::Closed || !slot.is_unaccepted());
            }
        }
    }

    /// Lets go of everything; with a network that delivers, every connection ends.
    fn wind_up(&mut self) {
        for stream in std::mem::take(&mut self.streams) {
            self.endpoints[stream.host].release(self.now, stream.id);
        }
        self.endpoints[1].unlisten(self.now, PORT);
        let mut input = Input { data: &[] };
        for _ in 0..100_000 {
            self.transmit(&mut input);
            if self.flying.is_empty() {
                if self
                    .endpoints
                    .iter()
                    .all(|endpoint| endpoint.slots.is_empty())
                {
                    self.check();
                    return;
                }
                let is_awaited = self.endpoints.iter().any(|e| e.poll_timeout().is_some());
                assert!(
                    is_awaited,
                    "a connection waits for nothing: {:?}",
                    self.endpoints
                );
                self.advance_to_deadline();
            }
            self.deliver_at(0);
        }
        assert!(
            self.endpoints.iter().all(|e| e.slots.is_empty()),
            "{:?}",
            self.endpoints
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_operations_keep_every_promise() {
        for seed in 1..=50_u64 {
            // splitmix64
            let mut state = seed;
            let data: Vec<u8> = (0..3_000)
                .map(|_| {
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    u8::try_from((mixed ^ (mixed >> 27)) >> 56).unwrap()
                })
                .collect();
            let outcome = std::panic::catch_unwind(|| fuzz_connection(&data));
            assert!(outcome.is_ok(), "seed {seed}");
        }
    }
}
