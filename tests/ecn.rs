//! Explicit congestion notification, measured on a virtual clock: what marks in place of drops cost and save,
//! and what becomes of a connection whose path mistreats them.
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::time::Duration;

use reliable_udp::sim::{LinkConfig, LinkConfigBuilder};
use reliable_udp::{Config, CongestionControl, EcnState};

#[path = "support/world.rs"]
mod world;

use world::{CLIENT, SERVER, World, marking_link};

/// 100 Mbit/s.
const RATE: u64 = 12_500_000;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn controllers() -> [(&'static str, CongestionControl); 3] {
    [
        ("NewReno", CongestionControl::NewReno),
        ("CUBIC", CongestionControl::Cubic),
        ("BBR", CongestionControl::Bbr),
    ]
}

/// A round trip of 50 ms with a bottleneck on the way out, whose queue holds one bandwidth-delay product.
fn bottleneck() -> LinkConfigBuilder {
    LinkConfig::builder()
        .delay(ms(25))
        .rate(RATE)
        .queue_bytes(625_000)
}

fn world(seed: u64, config: &Config, out: LinkConfigBuilder) -> World {
    let back = LinkConfig::builder().delay(ms(25)).build().unwrap();
    let mut world = World::marking(
        seed,
        [config.clone(), config.clone()],
        [
            marking_link(seed, out.build().unwrap()),
            marking_link(seed, back),
        ],
    );
    world.establish();
    world
}

/// Sends for `length` and returns the bytes that were read in the last of it, and of the first `start_up`.
fn goodput(world: &mut World, start_up: Duration, length: Duration) -> u64 {
    world.write(CLIENT, 1 << 40);
    world.pass(start_up);
    let before = world.ends[SERVER].received;
    world.pass(length);
    world.ends[SERVER].received - before
}

#[test]
fn marks_in_place_of_drops_cost_no_goodput_and_save_every_retransmission() {
    for (name, congestion) in controllers() {
        let config = |ecn| {
            let congestion = congestion.clone();
            let config = Config::builder().congestion(congestion).ecn(ecn);
            config.build().unwrap()
        };
        let (start_up, length) = (Duration::from_secs(5), Duration::from_secs(20));
        let mut without = world(1, &config(false), bottleneck());
        let dropping = goodput(&mut without, start_up, length);

        let marking = bottleneck().mark_above_bytes(400_000);
        let mut with = world(1, &config(true), marking);
        with.write(CLIENT, 1 << 40);
        with.pass(start_up);
        let (before, received) = (with.stats(CLIENT), with.ends[SERVER].received);
        with.pass(length);
        let (after, marked) = (with.stats(CLIENT), with.ends[SERVER].received - received);
        println!(
            "{name}: {dropping} B with drops ({} retransmitted), {marked} B with marks ({} before, {} after start-up), {} echoes, {} CE",
            without.stats(CLIENT).segments_retransmitted,
            before.segments_retransmitted,
            after.segments_retransmitted - before.segments_retransmitted,
            after.ecn_reductions,
            with.stats(SERVER).ecn_ce,
        );
        assert_eq!(after.ecn, EcnState::Capable, "{name}");
        assert_eq!(
            after.segments_retransmitted, before.segments_retransmitted,
            "{name}"
        );
        assert!(after.ecn_reductions > before.ecn_reductions, "{name}");
        assert!(without.stats(CLIENT).segments_retransmitted > 0, "{name}");
        assert!(
            marked * 100 >= dropping * 97,
            "{name}: {marked} of {dropping}"
        );
    }
}
