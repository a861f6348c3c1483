//! The seed sweep: one random scenario per seed, which has to end with the right bytes on both sides.
//!
//! A seed draws the network (loss up to 30 %, or 50 % in one direction, bursts, reordering by up to three
//! round trips, duplication, corruption, jitter, delay spikes, narrow queues, blackouts, congestion marks and what mistreats them), both configurations (every option on or off, buffers, delays, timers,
//! controllers), how the connections are opened and closed, and what the applications do. Limits that
//! end a connection for silence are raised out of the way: whatever the network does, it does not do
//! it for ever, so every run has to end in order. That every connection does end, and that no
//! invariant breaks on the way, is the world's to check.

#![allow(
    unreachable_pub,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};
use crate::connection::OpenParams;
use crate::error::{ConfigError, EndpointError};
use crate::sim::application::{Application, Ending, Plan};
use crate::sim::link::{LinkConfig, MarkTreatment};
use crate::sim::network::{Failure, Network, Node, Trace};
use crate::sim::node::{ConnectionNode, Dialogue, EndpointNode};
use crate::sim::rng::Rng;
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

/// The virtual port that servers listen on.
const PORT: u16 = 1;
/// Full segments that one side writes at most.
const MOST_SEGMENTS: u64 = 200;
/// Bytes that one side writes at most.
const MOST_BYTES: u64 = 150_000;

/// What happened in a run that ended in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How long it took, in virtual time, TIME-WAIT included.
    pub duration: Duration,
    /// Events in the world.
    pub steps: u64,
    /// Connections opened.
    pub connections: usize,
    /// Bytes of payload that applications read.
    pub bytes: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Datagrams that did not arrive.
    pub datagrams_lost: u64,
}

/// How the connections of a scenario are opened, and whether endpoints are part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Two bare connections, one of which listens.
    Bare,
    /// Two bare connections that open simultaneously.
    BareSimultaneous,
    /// A server and clients with a few connections each.
    Endpoints,
    /// Two endpoints that both connect.
    Rendezvous,
}

#[derive(Debug)]
struct Scenario {
    opening: Opening,
    client: Config,
    server: Config,
    up: LinkConfig,
    down: LinkConfig,
    dialogue: Dialogue,
    rng: Rng,
}

/// Runs one seed's scenario.
///
/// # Errors
///
/// [`Failure`] says what did not end as it should.
pub fn run_seed(seed: u64) -> Result<Report, Failure> {
    run_with(seed, None)
}

/// Runs one seed's scenario and keeps a trace of it.
///
/// # Errors
///
/// [`Failure`] says what did not end as it should.
pub fn run_seed_traced(seed: u64, trace: &Trace) -> Result<Report, Failure> {
    run_with(seed, Some(trace))
}

fn run_with(seed: u64, trace: Option<&Trace>) -> Result<Report, Failure> {
    let scenario = Scenario::draw(seed).map_err(|error| invalid(seed, &error))?;
    match scenario.opening {
        Opening::Bare | Opening::BareSimultaneous => scenario.run_bare(seed, trace),
        Opening::Endpoints | Opening::Rendezvous => scenario.run_endpoints(seed, trace),
    }
}

/// Describes one seed's scenario.
pub fn describe_seed(seed: u64) -> String {
    Scenario::draw(seed).map_or_else(|e| e.to_string(), |scenario| format!("{scenario:#?}"))
}

fn invalid(seed: u64, error: &dyn std::error::Error) -> Failure {
    Failure {
        seed,
        at: Timestamp::ZERO,
        steps: 0,
        what: format!("cannot begin: {error}"),
    }
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4_000))
}

impl Scenario {
    fn draw(seed: u64) -> Result<Self, ConfigError> {
        let mut rng = Rng::stream(seed, 0x5363_656e);
        let opening = match rng.below(8) {
            0..3 => Opening::Bare,
            3 => Opening::BareSimultaneous,
            4..7 => Opening::Endpoints,
            _ => Opening::Rendezvous,
        };
        let mut client = draw_config(&mut rng)?;
        let mut server = draw_config(&mut rng)?;
        // From a stream of its own, so that the seeds mean what they have meant.
        let mut marks = Rng::stream(seed, 0x4563_6e21);
        client.ecn = marks.chance(0.8);
        server.ecn = marks.chance(0.8);
        let worse_way = rng.chance(0.15).then(|| rng.chance(0.5));
        let mut up = draw_link(&mut rng, &client, worse_way == Some(true), &mut marks)?;
        let mut down = draw_link(&mut rng, &server, worse_way == Some(false), &mut marks)?;
        let mut sizes = Rng::stream(seed, 0x5061_7468);
        for (config, link) in [(&mut client, &mut up), (&mut server, &mut down)] {
            draw_path_mtu(&mut sizes, config, link)?;
        }
        // A segment's payload in either direction is at least about the smaller of the two limits.
        let mss = |config: &Config| u64::from(config.mss).min(config.datagram_size as u64);
        let most = MOST_BYTES.min(mss(&client).min(mss(&server)) * MOST_SEGMENTS);
        let plan = Plan::random(&mut rng, most);
        let mut dialogue = Dialogue {
            client: plan,
            server: Plan::random(&mut rng, most),
            content: seed,
        };
        // A listener's SYN-ACKs are few before the peer's address is proven, and a client that says
        // nothing at all does not repeat the ACK that proves it.
        if dialogue.client.bytes == 0 && dialogue.client.ending == Ending::Drop {
            dialogue.client.ending = Ending::Leave;
        }
        // If both wait for the other's FIN, none is sent.
        if (dialogue.client.ending, dialogue.server.ending) == (Ending::Drop, Ending::Drop) {
            dialogue.server.ending = Ending::Wait;
        }
        Ok(Self {
            opening,
            client,
            server,
            up,
            down,
            dialogue,
            rng,
        })
    }

    /// Whether a side sends more than its path may take, to find out what it takes.
    fn searches(&self) -> bool {
        self.client.path_mtu_discovery || self.server.path_mtu_discovery
    }

    fn run_bare(mut self, seed: u64, trace: Option<&Trace>) -> Result<Report, Failure> {
        let searches = self.searches();
        let Dialogue { client, server, .. } = &self.dialogue;
        let mut params = |local_port, remote_port| OpenParams {
            local_port,
            remote_port,
            // Half of them wrap around within the transfer.
            iss: SeqNumber::new(if self.rng.chance(0.5) {
                0_u32.wrapping_sub(u32::from(self.rng.next_u64().to_le_bytes()[0]) * 100)
            } else {
                draw_u32(&mut self.rng)
            }),
            timestamp_offset: draw_u32(&mut self.rng),
        };
        let (client_params, server_params) = (params(1_000, PORT), params(PORT, 1_000));
        let client_app = Application::new(client.clone(), server, seed, true);
        let server_app = Application::new(server.clone(), client, seed, false);
        let open = if self.opening == Opening::Bare {
            ConnectionNode::listen
        } else {
            ConnectionNode::connect
        };

        let mut network = Network::new(seed);
        network.set_trace(trace.cloned());
        let client =
            ConnectionNode::connect(addr(2), self.client.clone(), client_params, client_app);
        let server = open(addr(1), self.server.clone(), server_params, server_app);
        let client = network.add(addr(1), client);
        let server = network.add(addr(2), server);
        network.link(client, server, self.up);
        network.link(server, client, self.down);
        network.run()?;

        let apps = [client, server].map(|i| network.node(i).map(ConnectionNode::application));
        let bytes = apps
            .into_iter()
            .flatten()
            .map(Application::bytes_read)
            .sum();
        let links = [(client, server), (server, client)];
        report(&network, searches, 1, bytes, &links)
    }

    fn run_endpoints(mut self, seed: u64, trace: Option<&Trace>) -> Result<Report, Failure> {
        let searches = self.searches();
        let refused = |error: EndpointError| invalid(seed, &error);
        let mut network = Network::new(seed);
        network.set_trace(trace.cloned());
        let mut server = EndpointNode::new(addr(100), self.server.clone(), seed);
        let is_rendezvous = self.opening == Opening::Rendezvous;
        let (clients, most) = if is_rendezvous {
            (1, 1)
        } else {
            (1 + self.rng.below(3), 4)
        };
        let mut nodes = Vec::new();
        let mut connections = 0;
        if !is_rendezvous {
            server.listen(PORT).map_err(refused)?;
        }
        for number in (1..=3).take(usize::try_from(clients).unwrap_or(1)) {
            let client_seed = seed.wrapping_add(u64::from(number));
            let mut client = EndpointNode::new(addr(number), self.client.clone(), client_seed);
            let count = 1 + self.rng.index(most);
            let now = Timestamp::ZERO;
            if is_rendezvous {
                let d = &self.dialogue;
                client
                    .rendezvous(now, addr(100), PORT, d, true)
                    .map_err(refused)?;
                server
                    .rendezvous(now, addr(number), PORT, d, false)
                    .map_err(refused)?;
            } else {
                for _ in 0..count {
                    client
                        .connect(now, addr(100), PORT, &self.dialogue)
                        .map_err(refused)?;
                }
                server.expect(addr(number), self.dialogue.clone(), count);
            }
            connections += count;
            nodes.push(network.add(addr(number), client));
        }
        let server = network.add(addr(100), server);
        let mut links = Vec::new();
        for &client in &nodes {
            network.link(client, server, self.up.clone());
            network.link(server, client, self.down.clone());
            links.extend([(client, server), (server, client)]);
        }
        network.run()?;

        nodes.push(server);
        let done = nodes
            .iter()
            .filter_map(|&i| network.node(i))
            .flat_map(EndpointNode::done);
        let bytes = done.map(Application::bytes_read).sum();
        report(&network, searches, connections, bytes, &links)
    }
}

fn report<N: Node>(
    network: &Network<N>,
    searches: bool,
    connections: usize,
    bytes: u64,
    links: &[(usize, usize)],
) -> Result<Report, Failure> {
    let mut report = Report {
        duration: network.now().saturating_since(Timestamp::ZERO),
        steps: network.steps(),
        connections,
        bytes,
        ..Report::default()
    };
    for &(from, to) in links {
        let stats = network.link_stats(from, to);
        // What searches for the path's MTU sends more than it takes.
        if stats.dropped_mtu > 0 && !searches {
            let what = format!("node {from} sent datagrams larger than it may: {stats:?}");
            return Err(network.failure(what));
        }
        report.datagrams += stats.sent;
        report.datagrams_lost += stats.sent - stats.delivered;
    }
    Ok(report)
}

fn draw_u32(rng: &mut Rng) -> u32 {
    u32::try_from(rng.next_u64() >> 32).unwrap_or(0)
}

/// Draws from a few values.
fn one_of<T: Copy>(rng: &mut Rng, values: &[T], or: T) -> T {
    values.get(rng.index(values.len())).copied().unwrap_or(or)
}

fn draw_millis(rng: &mut Rng, values: &[u64]) -> Duration {
    Duration::from_millis(one_of(rng, values, 100))
}

/// Draws one direction's impairments; each is on or off for itself. One that `loses_half` loses up to half
/// of what is sent: the ACKs, where the data goes the other way.
fn draw_link(
    rng: &mut Rng,
    sender: &Config,
    loses_half: bool,
    marks: &mut Rng,
) -> Result<LinkConfig, ConfigError> {
    // Whatever is sent beyond what the configuration allows never arrives.
    let mut link = LinkConfig::builder().mtu(sender.datagram_size);
    let delay = draw_millis(rng, &[0, 0, 1, 5, 20, 50, 100, 300]);
    link = link.delay(delay);
    let uniform = |rng: &mut Rng, most: u64| {
        // A multiple of a thousandth is enough.
        let thousandths = u32::try_from(rng.range(0..=most)).unwrap_or(0);
        f64::from(thousandths) / 1_000.0
    };
    if rng.chance(0.5) {
        link = link.jitter(rng.duration(Duration::from_millis(50)));
    }
    if loses_half {
        link = link.loss(0.3 + uniform(rng, 200));
    } else if rng.chance(0.6) {
        let most = one_of(rng, &[10, 50, 300], 10);
        link = link.loss(uniform(rng, most));
    }
    if rng.chance(0.2) {
        let (enter, leave) = (uniform(rng, 20), 0.1 + uniform(rng, 400));
        link = link.burst_loss(enter, leave, 0.5 + uniform(rng, 500));
    }
    if rng.chance(0.4) {
        link = link.duplicate(uniform(rng, 200));
    }
    if rng.chance(0.5) {
        // Three round trips, if the way back takes as long.
        let lateness = rng.duration(Duration::from_millis(100).max(delay * 6));
        link = link.reorder(uniform(rng, 200), lateness);
    }
    if rng.chance(0.3) {
        for _ in 0..=rng.below(4) {
            // Longer than most timeouts: what is sent again was not lost.
            let start = rng.duration(Duration::from_secs(10));
            let length = rng.duration(Duration::from_secs(2));
            link = link.delay_spike(start, length, rng.duration(Duration::from_secs(4)));
        }
    }
    if rng.chance(0.3) {
        link = link.corrupt(uniform(rng, 50));
    }
    if rng.chance(0.5) {
        link = link.rate(one_of(
            rng,
            &[20_000, 100_000, 1_000_000, 10_000_000],
            100_000,
        ));
        link = link.queue_datagrams(one_of(rng, &[2, 5, 20, 100], 20));
        if marks.chance(0.7) {
            link = link.mark_above_bytes(one_of(marks, &[0, 1_500, 6_000, 30_000], 0));
        }
    }
    if marks.chance(0.3) {
        let treatments = [
            MarkTreatment::Clear,
            MarkTreatment::Spoil,
            MarkTreatment::Drop,
        ];
        link = link.marks(one_of(marks, &treatments, MarkTreatment::Keep));
    }
    if rng.chance(0.3) {
        // A few and not periodic ones: a period close to a retransmission timer's can lock step with it.
        for _ in 0..=rng.below(4) {
            let start = rng.duration(Duration::from_secs(30));
            link = link.blackout(start, rng.duration(Duration::from_secs(15)));
        }
    }
    link.build()
}

/// Draws whether this side searches for the MTU of its path, what that is, and when it changes.
fn draw_path_mtu(
    rng: &mut Rng,
    config: &mut Config,
    link: &mut LinkConfig,
) -> Result<(), ConfigError> {
    if !rng.chance(0.4) {
        return Ok(());
    }
    let base = one_of(rng, &[512, 1_000, 1_232], 1_232);
    let mut builder = config
        .to_builder()
        .path_mtu_discovery(true)
        .min_datagram_size(base)
        .initial_datagram_size(base);
    if rng.chance(0.8) {
        builder = builder.mss(65_487);
    }
    // Enough that some probes fit.
    builder = builder.send_buffer(16_384 << rng.index(5));
    *config = builder.build()?;
    let draw = |rng: &mut Rng| {
        let most = one_of(rng, &[1_500, 9_000, 9_000, 65_507], 9_000);
        base + rng.index(most - base + 1)
    };
    let mut builder = link.to_builder().mtu(draw(rng));
    for _ in 0..rng.below(3) {
        let start = rng.duration(Duration::from_secs(10));
        builder = builder.mtu_from(start, draw(rng));
    }
    *link = builder.build()?;
    Ok(())
}

/// Draws one side's configuration; no limit on retries or silence is ever reached.
fn draw_config(rng: &mut Rng) -> Result<Config, ConfigError> {
    let mut config = Config::builder()
        .syn_retries(255)
        .data_retries(255)
        .keepalive_probes(255)
        .user_timeout(rng.chance(0.5).then(|| Duration::from_secs(86_400)))
        .linger(Duration::from_secs(3_600))
        .window_scaling(rng.chance(0.7))
        .timestamps(rng.chance(0.7))
        .sack(rng.chance(0.7))
        .extension(rng.chance(0.7))
        .nodelay(rng.chance(0.5))
        .slow_start_after_idle(rng.chance(0.5))
        .prr(rng.chance(0.8))
        .tail_loss_probe(rng.chance(0.8))
        .frto(rng.chance(0.8))
        .pacing(rng.chance(0.7))
        .datagram_size(one_of(rng, &[512, 1_000, 1_232, 1_472], 1_232))
        .send_buffer(4_096 << rng.index(7))
        .receive_buffer(4_096 << rng.index(9))
        .buffer_tuning(rng.chance(0.7))
        .notsent_lowat(rng.chance(0.3).then(|| 4_096 << rng.index(5)))
        .backlog(1 + rng.index(5))
        .ack_delay(draw_millis(rng, &[0, 1, 25, 25, 200, 500]))
        .initial_rto(draw_millis(rng, &[100, 1_000, 1_000, 3_000]))
        .min_rto(draw_millis(rng, &[1, 10, 200, 200, 1_000]))
        // The last ACK may be lost again and again: many retransmissions of the FIN that it answers
        // have to fall into TIME-WAIT, or the peer is right to report a reset.
        .max_rto(draw_millis(rng, &[1_000, 2_000, 5_000]))
        .time_wait(Duration::from_secs(240))
        .initial_window(one_of(rng, &[1, 2, 10, 10, 100], 10));
    if rng.chance(0.5) {
        config = config.mss(u16::try_from(rng.range(64..=1_500)).unwrap_or(536));
    }
    if rng.chance(0.2) {
        config = config.keepalive(Some(rng.duration(Duration::from_secs(30)).max(MS)));
        // All probes together take longer than all blackouts.
        let interval = rng.duration(Duration::from_secs(30));
        config = config.keepalive_interval(interval.max(Duration::from_secs(1)));
    }
    if rng.chance(0.3) {
        config = config.congestion(if rng.chance(0.5) {
            CongestionControl::Bbr
        } else {
            CongestionControl::Cubic
        });
    } else if rng.chance(0.25) {
        let stop_and_wait = CongestionControl::custom(|params| StopAndWait { mss: params.mss });
        config = config.congestion(stop_and_wait);
    }
    config.build()
}

const MS: Duration = Duration::from_millis(1);

/// Never has more than one segment in flight: the opposite of what the core is written for.
#[derive(Debug)]
struct StopAndWait {
    mss: u64,
}

impl CongestionController for StopAndWait {
    fn on_acked(&mut self, _event: &Acked) {}

    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}

    fn on_timeout(&mut self, _event: &TimedOut) {}

    fn on_mss_changed(&mut self, mss: u64) {
        self.mss = mss;
    }

    fn cwnd(&self) -> u64 {
        self.mss
    }

    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
}

#[cfg(test)]
mod tests;
