//! Scenarios of path MTU discovery: links of every kind of MTU, a route that changes, and loss that is nothing
//! but loss.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Config, ConfigBuilder};
use crate::connection::{Connection, OpenParams};
use crate::sim::application::{Application, Plan};
use crate::sim::link::{LinkConfig, LinkConfigBuilder};
use crate::sim::network::Network;
use crate::sim::node::ConnectionNode;
use crate::stats::ConnectionStats;
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

const KB: u64 = 1_000;
const MB: u64 = 1_000_000;

/// A round trip of 20 ms.
fn link() -> LinkConfigBuilder {
    LinkConfig::builder().delay(Duration::from_millis(10))
}

/// A world in which the client, node 0, sends `bytes` to the server.
fn world(
    seed: u64,
    client: ConfigBuilder,
    up: LinkConfigBuilder,
    down: LinkConfigBuilder,
    bytes: u64,
) -> Network<ConnectionNode> {
    world_of(seed, [client, Config::builder()], up, down, bytes)
}

/// A world in which 8 MB take more than thirty round trips of always 20 ms, since the server's window is what limits
/// them.
fn steady(client: ConfigBuilder, up: LinkConfigBuilder) -> Network<ConnectionNode> {
    let server = Config::builder().receive_buffer(256 * 1024);
    world_of(1, [client, server], up, link(), 8 * MB)
}

fn world_of(
    seed: u64,
    [client, server]: [ConfigBuilder; 2],
    up: LinkConfigBuilder,
    down: LinkConfigBuilder,
    bytes: u64,
) -> Network<ConnectionNode> {
    let addr = |last| SocketAddr::from(([10, 0, 0, last], 1));
    let iss = u32::try_from(seed).unwrap() << 16;
    let params = |local_port, remote_port| OpenParams {
        local_port,
        remote_port,
        iss: SeqNumber::new(iss),
        timestamp_offset: 7,
    };
    let (plan, nothing) = (Plan::simple(bytes), Plan::simple(0));
    let client = ConnectionNode::connect(
        addr(2),
        client.build().unwrap(),
        params(1_000, 1),
        Application::new(plan.clone(), &nothing, seed, true),
    );
    let server = ConnectionNode::listen(
        addr(1),
        server.build().unwrap(),
        params(1, 1_000),
        Application::new(nothing, &plan, seed, false),
    );
    let mut network = Network::new(seed);
    network.add(addr(1), client);
    network.add(addr(2), server);
    network.link(0, 1, up.build().unwrap());
    network.link(1, 0, down.build().unwrap());
    network
}

fn stats(network: &Network<ConnectionNode>) -> ConnectionStats {
    let client = network.node(0).unwrap();
    client.connection().map(Connection::stats).unwrap()
}

fn bytes_read(network: &Network<ConnectionNode>) -> u64 {
    network.node(1).unwrap().application().bytes_read()
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

#[test]
fn the_mtu_of_every_link_is_found_and_the_search_costs_no_window() {
    // What the link carries, what is found at least, and with how many probes.
    for (mtu, at_least, probes) in [
        (1_232, 1_232, 12),
        (1_300, 1_259, 10),
        (1_452, 1_452, 4),
        (1_472, 1_472, 5),
        (1_500, 1_472, 5),
        (8_972, 8_972, 6),
        (9_000, 8_972, 6),
        (65_507, 65_507, 4),
    ] {
        let mut network = steady(Config::builder(), link().mtu(mtu));
        network.run().unwrap();
        let stats = stats(&network);
        assert!(
            (at_least..=mtu).contains(&stats.datagram_size),
            "{mtu}: {stats:?}"
        );
        assert!(stats.path_probes_sent <= probes, "{mtu}: {stats:?}");
        assert_eq!(
            network.link_stats(0, 1).dropped_mtu,
            stats.path_probes_lost,
            "{mtu}: {stats:?}"
        );
        // RFC 8899 §3: no sign of congestion, nor of anything else.
        let signs = [
            stats.segments_lost,
            stats.rto_count,
            stats.fast_recovery_count,
            stats.tlp_repair_count,
            stats.undo_count,
            stats.black_holes,
        ];
        assert_eq!(signs, [0; 6], "{mtu}: {stats:?}");
    }
}

#[test]
fn the_largest_datagrams_are_found_early() {
    let mut network = world(1, Config::builder(), link(), link(), 50 * MB);
    while stats(&network).datagram_size < 65_507 {
        let until = network.now() + Duration::from_millis(1);
        network.run_until(until).unwrap();
        assert!(bytes_read(&network) < 800 * KB, "{:?}", stats(&network));
        assert!(network.now() < seconds(1), "{:?}", stats(&network));
    }
}

#[test]
fn probes_that_are_lost_cost_next_to_no_time() {
    let time = |config: ConfigBuilder| {
        // A queue that takes everything: what is sent twice shows, and pauses do.
        let narrow = link().mtu(1_232).rate(10_000_000).queue_bytes(20_000_000);
        let mut network = world(1, config, narrow, link(), 8 * MB);
        while bytes_read(&network) < 8 * MB {
            let until = network.now() + Duration::from_millis(1);
            network.run_until(until).unwrap();
        }
        (network.now(), stats(&network))
    };
    let (without, _) = time(Config::builder().datagram_size(1_232));
    let (with, stats) = time(Config::builder());
    assert!(stats.path_probes_lost >= 4, "{stats:?}");
    // Each probe is sent again in two segments; the tail of the stream may be probed for loss.
    let twice = stats.path_probes_lost * 2;
    let again = stats.segments_retransmitted - stats.tlp_count;
    assert_eq!(again, twice, "{stats:?}");
    let lateness = with.saturating_since(without);
    assert!(lateness < Duration::from_millis(20), "{lateness:?}");
}

#[test]
fn a_few_bytes_are_no_reason_to_probe() {
    for bytes in [1, 64, 1_000, 15_800] {
        let mut network = world(1, Config::builder(), link(), link(), bytes);
        network.run().unwrap();
        assert_eq!(stats(&network).path_probes_sent, 0, "{bytes} bytes");
    }
}

#[test]
fn without_sack_nothing_is_probed() {
    let config = Config::builder().sack(false);
    let mut network = world(1, config, link(), link(), MB);
    network.run().unwrap();
    let stats = stats(&network);
    assert_eq!((stats.path_probes_sent, stats.datagram_size), (0, 1_232));
}

#[test]
fn a_route_that_shrinks_is_noticed_within_two_timeouts() {
    for (before, after) in [(8_972, 1_472), (65_507, 1_300), (1_472, 1_400)] {
        let up = link()
            .mtu(before)
            .mtu_from(Duration::from_secs(2), after)
            .rate(2_000_000)
            .queue_bytes(200_000);
        let mut network = world(1, Config::builder(), up, link(), 20 * MB);
        network.run_until(seconds(2)).unwrap();
        let (read, first) = (bytes_read(&network), stats(&network));
        assert_eq!(first.datagram_size, before, "{first:?}");
        // A probe of the tail and two timeouts of 200 and 400 ms, if the queue was long a little more.
        network
            .run_until(seconds(3) + Duration::from_millis(500))
            .unwrap();
        assert!(
            bytes_read(&network) > read + 100 * KB,
            "{:?}",
            stats(&network)
        );
        network.run_until(seconds(120)).unwrap();
        assert_eq!(bytes_read(&network), 20 * MB);
        let stats = stats(&network);
        assert_eq!(stats.black_holes, 1, "{stats:?}");
        assert!(stats.datagram_size <= after, "{stats:?}");
        assert!(stats.datagram_size * 32 >= after * 30, "{stats:?}");
    }
}

#[test]
fn ordinary_loss_is_no_black_hole() {
    let (mut searches, mut doubts) = (0, 0);
    for seed in 0..100 {
        let lossy = || link().mtu(1_472).loss(0.15);
        let mut network = world(seed, Config::builder(), lossy(), lossy(), MB);
        network.run_until(seconds(3_600)).unwrap();
        assert_eq!(bytes_read(&network), MB, "seed {seed}");
        let stats = stats(&network);
        assert_eq!(stats.black_holes, 0, "seed {seed}: {stats:?}");
        searches += u64::from(stats.datagram_size == 1_472);
        doubts += u64::from(stats.rto_count > 10);
    }
    assert!(searches > 80, "{searches} of 100 found the MTU");
    assert!(doubts > 50, "only {doubts} had reason for doubt");
}

#[test]
fn a_network_that_is_gone_for_a_while_is_no_black_hole() {
    let up = link()
        .mtu(8_972)
        .blackout(Duration::from_secs(1), Duration::from_secs(20));
    let up = up.rate(1_000_000).queue_bytes(100_000);
    let mut network = world(1, Config::builder(), up, link(), 20 * MB);
    network.run_until(seconds(120)).unwrap();
    assert_eq!(bytes_read(&network), 20 * MB);
    let stats = stats(&network);
    assert_eq!((stats.datagram_size, stats.black_holes), (8_972, 0));
}

#[test]
fn a_route_that_grows_is_noticed_after_ten_minutes() {
    let up = link().mtu(1_472).mtu_from(Duration::from_secs(300), 8_972);
    let up = up.rate(100_000).queue_bytes(50_000);
    let mut network = world(1, Config::builder(), up, link(), 80 * MB);
    network.run_until(seconds(590)).unwrap();
    assert_eq!(stats(&network).datagram_size, 1_472);
    network.run_until(seconds(700)).unwrap();
    let stats = stats(&network);
    assert_eq!((stats.datagram_size, stats.black_holes), (8_972, 0));
}
