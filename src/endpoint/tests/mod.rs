//! Whole endpoints against each other: datagrams are carried by hand, time is a number.

mod admission;
mod lifecycle;
mod reuse;
mod sharing;
mod strangers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::{Arrival, ConnectionId, Departure, Endpoint, EndpointEvent, EndpointLocal, Secrets};
use crate::config::Config;
use crate::connection::{Connection, Event, ReadError, State, WriteError};
use crate::timestamp::Timestamp;
use crate::wire::{self, Header, Integrity, Segment};

/// The virtual port that servers listen on.
const PORT: u16 = 1;
/// The first host of a net, which usually connects.
const CLIENT: usize = 0;
/// The second host of a net, which usually listens.
const SERVER: usize = 1;

/// One datagram on its way.
#[derive(Debug, Clone)]
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Bytes,
}

impl Flight {
    fn header(&self) -> Header {
        Segment::decode(&self.bytes).unwrap().header
    }
}

#[derive(Debug)]
struct Host {
    addr: SocketAddr,
    endpoint: Endpoint,
    events: VecDeque<EndpointEvent>,
}

/// Endpoints joined by a network that delivers at once what no filter drops.
struct Net {
    now: Timestamp,
    hosts: Vec<Host>,
    /// What was sent and neither delivered nor dropped.
    flying: VecDeque<Flight>,
    /// Everything that was sent, dropped or not.
    sent: Vec<Flight>,
    drop_if: fn(&Flight) -> bool,
    /// Whether invariants are checked after every step; too slow with many connections.
    is_checked: bool,
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(host + 1).unwrap()], 9_000))
}

fn endpoint(now: Timestamp, host: usize, config: Config) -> Endpoint {
    let byte = u8::try_from(host).unwrap();
    let secrets = Secrets {
        isn: [byte; 16],
        port: [byte + 1; 16],
        cookie: [byte + 2; 16],
        hash_seed: u64::from(byte),
    };
    Endpoint::new(
        now,
        config,
        secrets,
        EndpointLocal {
            addr: address(host),
        },
    )
}

impl Net {
    /// Two hosts, of which the second listens on [`PORT`].
    fn new(config: &Config) -> Self {
        Self::with_configs(&[config.clone(), config.clone()])
    }

    fn with_configs(configs: &[Config]) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let hosts = configs
            .iter()
            .enumerate()
            .map(|(host, config)| Host {
                addr: address(host),
                endpoint: endpoint(now, host, config.clone()),
                events: VecDeque::new(),
            })
            .collect();
        let mut net = Self {
            now,
            hosts,
            flying: VecDeque::new(),
            sent: Vec::new(),
            drop_if: |_| false,
            is_checked: true,
        };
        net.hosts[SERVER].endpoint.listen(PORT, None).unwrap();
        net
    }

    fn endpoint(&mut self, host: usize) -> &mut Endpoint {
        &mut self.hosts[host].endpoint
    }

    fn connection(&self, host: usize, id: ConnectionId) -> &Connection {
        self.hosts[host].endpoint.connection(id).unwrap()
    }

    /// Starts a connection from one host to the port of another.
    #[track_caller]
    fn connect(&mut self, from: usize, to: usize) -> ConnectionId {
        let (now, addr) = (self.now, self.hosts[to].addr);
        self.endpoint(from).connect(now, addr, PORT, None).unwrap()
    }

    /// Connects the client to the server and accepts.
    #[track_caller]
    fn establish(&mut self) -> (ConnectionId, ConnectionId) {
        let client = self.connect(CLIENT, SERVER);
        self.deliver();
        let (server, remote) = self
            .endpoint(SERVER)
            .accept(PORT)
            .expect("nothing to accept");
        assert_eq!(remote, self.hosts[CLIENT].addr);
        assert_eq!(self.connection(CLIENT, client).state(), State::Established);
        (client, server)
    }

    /// Takes what every endpoint wants to send.
    fn collect(&mut self) {
        let mut buf = vec![0; 65_536];
        for host in &mut self.hosts {
            while let Some(departure) = host.endpoint.poll_transmit(self.now, 8, &mut buf) {
                assert_eq!(
                    departure.len.div_ceil(departure.segment_size),
                    departure.segments
                );
                for segment in buf[..departure.len].chunks(departure.segment_size) {
                    let bytes = Bytes::copy_from_slice(segment);
                    let flight = Flight {
                        from: host.addr,
                        to: departure.remote,
                        bytes,
                    };
                    self.sent.push(flight.clone());
                    if !(self.drop_if)(&flight) {
                        self.flying.push_back(flight);
                    }
                }
            }
            while let Some(event) = host.endpoint.poll_event() {
                host.events.push_back(event);
            }
            if self.is_checked {
                host.endpoint.check_invariants();
            }
        }
    }

    /// Delivers everything at once, answers to answers included.
    #[track_caller]
    fn deliver(&mut self) {
        for _ in 0..100_000 {
            self.collect();
            let Some(flight) = self.flying.pop_front() else {
                return;
            };
            self.inject(&flight);
        }
        panic!("the hosts never fall silent");
    }

    /// Hands a datagram to the host that it is addressed to, if there is one.
    fn inject(&mut self, flight: &Flight) {
        let now = self.now;
        if let Some(host) = self.hosts.iter_mut().find(|host| host.addr == flight.to) {
            host.endpoint.handle_arrival(
                now,
                &Arrival {
                    remote: flight.from,
                    local_ip: Some(flight.to.ip()),
                    ecn: None,
                    bytes: &flight.bytes,
                    stride: 0,
                },
            );
        }
    }

    /// Sends a hand-made segment to a host and delivers what follows from it.
    fn forge(&mut self, from: SocketAddr, to: usize, header: &Header, payload: &[u8]) {
        let integrity = Integrity::Sum;
        let flight = Flight {
            from,
            to: self.hosts[to].addr,
            bytes: encode(header, payload, integrity),
        };
        self.inject(&flight);
        self.deliver();
    }

    /// Lets time pass, timer by timer.
    #[track_caller]
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            self.deliver();
            let next = self
                .hosts
                .iter()
                .filter_map(|host| host.endpoint.poll_timeout())
                .min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let now = self.now;
            for host in &mut self.hosts {
                host.endpoint.handle_timeout(now);
            }
        }
        panic!("the timers never fall silent");
    }

    /// Lets time pass without checking the invariants at every step.
    #[track_caller]
    fn quietly(&mut self, time: Duration) {
        self.is_checked = false;
        self.advance(time);
        self.is_checked = true;
    }

    #[track_caller]
    fn write(&mut self, host: usize, id: ConnectionId, data: &[u8]) {
        let now = self.now;
        let written = self
            .endpoint(host)
            .with_connection(now, id, |c| c.write(now, data));
        assert_eq!(written, Some(Ok::<_, WriteError>(data.len())));
    }

    #[track_caller]
    fn finish(&mut self, host: usize, id: ConnectionId) {
        let now = self.now;
        self.endpoint(host)
            .with_connection(now, id, |c| c.finish(now))
            .unwrap()
            .unwrap();
    }

    /// Reads all there is; the second part tells whether the stream has ended.
    fn read(&mut self, host: usize, id: ConnectionId) -> (Vec<u8>, bool) {
        let now = self.now;
        let mut data = Vec::new();
        let mut buf = [0; 4_096];
        loop {
            let read = self
                .endpoint(host)
                .with_connection(now, id, |c| c.read(now, &mut buf));
            match read.unwrap() {
                Ok(0) => return (data, true),
                Ok(len) => data.extend_from_slice(&buf[..len]),
                Err(ReadError::Blocked) => return (data, false),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[track_caller]
    fn expect_read(&mut self, host: usize, id: ConnectionId, expected: &[u8]) {
        let (data, _) = self.read(host, id);
        assert_eq!(data.len(), expected.len());
        assert!(data == expected, "the bytes differ");
    }

    /// Reads as long as `expected` keeps arriving.
    #[track_caller]
    fn read_all(&mut self, host: usize, id: ConnectionId, expected: &[u8]) {
        let mut received = Vec::new();
        for _ in 0..1_000 {
            received.extend(self.read(host, id).0);
            if received.len() >= expected.len() {
                break;
            }
            self.quietly(Duration::from_millis(100));
        }
        assert!(received == expected, "{} bytes", received.len());
    }

    fn release(&mut self, host: usize, id: ConnectionId) {
        let now = self.now;
        self.endpoint(host).release(now, id);
    }

    /// Finishes both directions, the client first, and lets both go.
    fn close(&mut self, client: ConnectionId, server: ConnectionId) {
        self.finish(CLIENT, client);
        self.deliver();
        self.finish(SERVER, server);
        self.deliver();
        self.release(CLIENT, client);
        self.release(SERVER, server);
        self.deliver();
    }

    fn take_events(&mut self, host: usize) -> Vec<EndpointEvent> {
        self.hosts[host].events.drain(..).collect()
    }

    /// Returns what `host` sent since the last call.
    fn take_sent(&mut self, host: usize) -> Vec<Flight> {
        let addr = self.hosts[host].addr;
        let (taken, kept) = self.sent.drain(..).partition(|flight| flight.from == addr);
        self.sent = kept;
        taken
    }
}

fn encode(header: &Header, payload: &[u8], integrity: Integrity) -> Bytes {
    let mut buf = vec![0; header.encoded_len()];
    header.encode(&mut buf).unwrap();
    buf.extend_from_slice(payload);
    wire::seal(&mut buf, integrity);
    buf.into()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect()
}
