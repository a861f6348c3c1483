//! Drives whole endpoints through `reliable_udp::internals` alone, in virtual time: the example for
//! outside conformance harnesses.
//!
//! ```text
//! cargo test --features __internals --test internals
//! ```
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::internals::wire::{Flags, Segment};
use reliable_udp::internals::{
    Arrival, ConnectionId, Endpoint, EndpointEvent, EndpointLocal, Event, ReadError, Secrets, State,
};
use reliable_udp::{Config, ConnectionError, Timestamp};

const PORT: u16 = 7;
const DELAY: Duration = Duration::from_millis(10);

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4_000))
}

fn endpoint(last: u8, config: Config) -> Endpoint {
    let secrets = Secrets {
        isn: [last; 16],
        port: [last; 16],
        cookie: [last; 16],
        hash_seed: 1,
    };
    let local = EndpointLocal { addr: addr(last) };
    Endpoint::new(Timestamp::ZERO, config, secrets, local)
}

/// Two endpoints, a link of 10 ms either way, and a clock.
struct Harness {
    now: Timestamp,
    ends: [Endpoint; 2],
    events: [Vec<EndpointEvent>; 2],
    /// When, to which end, and what.
    in_flight: Vec<(Timestamp, usize, Bytes)>,
    /// When a segment left, from which end, and its flags and payload length.
    sent: Vec<(Timestamp, usize, Flags, usize)>,
    /// Of the client's segments with data, each n-th is lost; 0 is none.
    loses_every: usize,
    data_segments: usize,
}

impl Harness {
    fn new(client: Config, server: Config) -> Self {
        Self {
            now: Timestamp::ZERO,
            ends: [endpoint(1, client), endpoint(2, server)],
            events: [Vec::new(), Vec::new()],
            in_flight: Vec::new(),
            sent: Vec::new(),
            loses_every: 0,
            data_segments: 0,
        }
    }

    /// Drains what an input may have caused at one end.
    fn drain(&mut self, end: usize) {
        let mut buf = vec![0; 65_536];
        while let Some(departure) = self.ends[end].poll_transmit(self.now, 10, &mut buf) {
            assert_eq!(departure.remote, addr(2 - u8::try_from(end).unwrap()));
            for bytes in buf[..departure.len].chunks(departure.segment_size) {
                let segment = Segment::decode(bytes).unwrap();
                let len = segment.payload.len();
                self.sent.push((self.now, end, segment.header.flags, len));
                if end == 0 && len > 0 {
                    self.data_segments += 1;
                    if self.data_segments.is_multiple_of(self.loses_every) {
                        continue;
                    }
                }
                let bytes = Bytes::copy_from_slice(bytes);
                self.in_flight.push((self.now + DELAY, 1 - end, bytes));
            }
        }
        while let Some(event) = self.ends[end].poll_event() {
            self.events[end].push(event);
        }
        self.ends[end].check_invariants();
    }

    /// Lets the next thing happen, if one does before `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let arrival = self.in_flight.iter().map(|&(at, ..)| at).min();
        let timers = self.ends.iter().filter_map(Endpoint::poll_timeout).min();
        let Some(next) = arrival
            .into_iter()
            .chain(timers)
            .min()
            .filter(|&at| at <= until)
        else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let index = self
                .in_flight
                .iter()
                .position(|&(at, ..)| at == next)
                .unwrap();
            let (_, end, bytes) = self.in_flight.remove(index);
            let arrival = Arrival {
                remote: addr(2 - u8::try_from(end).unwrap()),
                local_ip: None,
                ecn: None,
                bytes: &bytes,
                stride: bytes.len(),
            };
            self.ends[end].handle_arrival(self.now, &arrival);
        } else {
            self.ends
                .iter_mut()
                .for_each(|end| end.handle_timeout(self.now));
        }
        self.drain(0);
        self.drain(1);
        true
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        self.drain(0);
        self.drain(1);
        while self.step(until) {}
    }

    /// Runs until `is_done`, for one virtual hour at most.
    fn run_until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) {
        let until = self.now + Duration::from_secs(3_600);
        loop {
            let done = is_done(self);
            self.drain(0);
            self.drain(1);
            if done {
                return;
            }
            assert!(self.step(until), "nothing happens any more");
        }
    }

    fn state(&self, end: usize, id: ConnectionId) -> State {
        self.ends[end].connection(id).unwrap().state()
    }

    /// Reads what there is; true at the end of the stream.
    fn read(&mut self, end: usize, id: ConnectionId, into: &mut Vec<u8>) -> bool {
        let now = self.now;
        self.ends[end]
            .with_connection(now, id, |connection| {
                let mut buf = [0; 4_096];
                loop {
                    match connection.read(now, &mut buf) {
                        Ok(0) => return true,
                        Ok(len) => into.extend_from_slice(&buf[..len]),
                        Err(ReadError::Blocked) => return false,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
            .unwrap()
    }
}

fn config() -> Config {
    Config::builder()
        .mss(1_000)
        .receive_buffer(65_535)
        .window_scaling(false)
        .timestamps(false)
        .extension(false)
        .ack_delay(Duration::ZERO)
        .time_wait(Duration::from_secs(30))
        .build()
        .unwrap()
}

/// Connects and accepts; returns both ids.
fn open(harness: &mut Harness) -> (ConnectionId, ConnectionId) {
    harness.ends[1].listen(PORT, None).unwrap();
    let client = harness.ends[0]
        .connect(harness.now, addr(2), PORT, None)
        .unwrap();
    assert_eq!(harness.state(0, client), State::SynSent);
    harness.run_until(|h| h.events[1].contains(&EndpointEvent::Incoming { port: PORT }));
    let (server, remote) = harness.ends[1].accept(PORT).unwrap();
    assert_eq!(remote, addr(1));
    harness.run_for(DELAY * 2);
    assert!(harness.events[0].contains(&EndpointEvent::Connection(client, Event::Connected)));
    assert_eq!(harness.state(0, client), State::Established);
    assert_eq!(harness.state(1, server), State::Established);
    (client, server)
}

#[test]
fn a_connection_lives_from_listen_to_time_wait() {
    let mut harness = Harness::new(config(), config());
    let (client, server) = open(&mut harness);
    let syn = harness.sent[0];
    let offer = Flags::SYN | Flags::ECE | Flags::CWR;
    assert_eq!(syn, (Timestamp::ZERO, 0, offer, 0));
    let syn_ack = harness.sent[1];
    let agreement = Flags::SYN | Flags::ACK | Flags::ECE;
    assert_eq!(syn_ack, (Timestamp::ZERO + DELAY, 1, agreement, 0));
    let ack = harness.sent[2];
    assert_eq!(ack, (Timestamp::ZERO + DELAY * 2, 0, Flags::ACK, 0));

    // A lossy transfer: every tenth data segment is lost.
    harness.loses_every = 10;
    let data: Vec<u8> = (0..300_000_u32)
        .map(|i| (i / 251 + i).to_le_bytes()[0])
        .collect();
    let (mut written, mut received) = (0, Vec::new());
    harness.run_until(|h| {
        let now = h.now;
        h.ends[0].with_connection(now, client, |connection| {
            while written < data.len() {
                match connection.write(now, &data[written..]) {
                    Ok(len) => written += len,
                    Err(_) => return,
                }
            }
            connection.finish(now).unwrap();
        });
        h.read(1, server, &mut received)
    });
    assert!(received == data, "the stream differs");
    let stats = harness.ends[0].connection(client).unwrap().stats();
    assert!(stats.segments_retransmitted >= 30, "{stats:?}");
    assert!(stats.fast_recovery_count > 0, "{stats:?}");
    let longest = harness.sent.iter().map(|&(.., len)| len).max();
    assert_eq!(longest, Some(1_000));

    // The client closed first: it goes through FIN-WAIT-2 to TIME-WAIT, the server to CLOSED.
    harness.loses_every = 0;
    harness.run_for(DELAY * 4);
    assert_eq!(harness.state(0, client), State::FinWait2);
    assert_eq!(harness.state(1, server), State::CloseWait);
    let now = harness.now;
    harness.ends[1].with_connection(now, server, |c| c.finish(now).unwrap());
    harness.run_for(DELAY * 4);
    assert_eq!(harness.state(0, client), State::TimeWait);
    assert_eq!(harness.state(1, server), State::Closed);
    let mut rest = Vec::new();
    assert!(harness.read(0, client, &mut rest) && rest.is_empty());
    for (end, id) in [(0, client), (1, server)] {
        let connection = harness.ends[end].connection(id).unwrap();
        assert_eq!(connection.finish_status(), Ok(true));
        assert_eq!(connection.error(), None);
        let now = harness.now;
        harness.ends[end].release(now, id);
    }
    harness.run_for(Duration::from_secs(1));
    assert!(harness.ends[0].is_idle() && harness.ends[1].is_idle());
    assert_eq!(harness.ends[0].stats().time_wait, 1);
    assert_eq!(harness.ends[1].stats().time_wait, 0);
    harness.run_for(Duration::from_secs(30));
    assert_eq!(harness.ends[0].stats().time_wait, 0);
    assert_eq!(harness.ends[0].poll_timeout(), None);
}

#[test]
fn a_syn_to_a_port_that_nobody_listens_on_is_refused() {
    let mut harness = Harness::new(config(), config());
    let client = harness.ends[0]
        .connect(harness.now, addr(2), PORT, None)
        .unwrap();
    harness.run_until(|h| !h.events[0].is_empty());
    assert_eq!(harness.now, Timestamp::ZERO + DELAY * 2);
    let connection = harness.ends[0].connection(client).unwrap();
    assert_eq!(connection.state(), State::Closed);
    assert_eq!(connection.error(), Some(&ConnectionError::Refused));
    let flags: Vec<Flags> = harness.sent.iter().map(|&(_, _, flags, _)| flags).collect();
    let offer = Flags::SYN | Flags::ECE | Flags::CWR;
    assert_eq!(flags, [offer, Flags::RST | Flags::ACK]);
    assert_eq!(harness.ends[1].stats().resets_sent, 1);
}
