//! Loss recovery as a whole, measured in virtual time.
//!
//! Every test is a function of its seeds; `RELIABLE_UDP_SEEDS` above 2,000 runs more of them, from
//! `RELIABLE_UDP_SEED_START` on. What is measured is printed (`--nocapture`).
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests may unwrap as tests may; counts of a test are small"
)]

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use reliable_udp::sim::{LinkConfig, Rng};
use reliable_udp::{Config, ConnectionStats, Timestamp};

use world::{CLIENT, Path, SERVER, Sent, World, link, percentile, seeds};

/// Payload of a full segment: 1,232 less the header of 20 and timestamps of 12 bytes.
const MSS: u64 = 1_200;
/// More than any test sends.
const ENDLESS: u64 = 1 << 31;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1_000.0
}

fn config() -> Config {
    // The links have no MTU, and the bounds are those of paths that have one.
    let config = Config::builder().nodelay(true).datagram_size(1_232);
    config.build().unwrap()
}

/// A path that keeps the order, delays by `base` and up to `jitter` more, and loses what `is_lost` says.
fn jittery(
    seed: u64,
    base: Duration,
    jitter: Duration,
    mut is_lost: impl FnMut(&Sent) -> bool + 'static,
) -> Path {
    let mut rng = Rng::stream(seed, 31);
    let mut last = Timestamp::ZERO;
    Box::new(move |sent, _| {
        last = last.max(sent.at + base + rng.duration(jitter));
        (!is_lost(sent)).then_some(last)
    })
}

/// A path that keeps the order and delays by what `delay_at` says.
fn varying(mut delay_at: impl FnMut(Timestamp) -> Duration + 'static) -> Path {
    let mut last = Timestamp::ZERO;
    Box::new(move |sent, _| {
        last = last.max(sent.at + delay_at(sent.at));
        Some(last)
    })
}

/// Responses of a server over an idle connection, the last of which loses its last segments.
struct Tail {
    /// From the first sending of the last segment until everything had arrived, in ms.
    took: f64,
    /// The same from the first sending of the first lost segment.
    took_from_first: f64,
    stats: ConnectionStats,
}

/// Loses the first `copies` copies of each of the last `lost` segments. The RTT is `rtt` ms, give or take
/// 2 ms.
fn lose_tail(seed: u64, rtt: u64, lost: u64, copies: u64, config: &Config) -> Tail {
    let mut rng = Rng::stream(seed, 1);
    let responses = rng.range(1..=6);
    let sizes: Vec<u64> = (0..responses)
        .map(|_| match rng.below(4) {
            0 => rng.range(lost..=12) * MSS,
            1 => rng.range(1..=12 * MSS),
            2 => rng.range(1..=60 * MSS),
            _ => rng.range(lost..=5) * MSS,
        })
        .collect();
    let total: u64 = sizes.iter().sum();
    let last = sizes.last().copied().unwrap_or(0);
    let whole = last.div_ceil(MSS);
    let tail = 1 + total - last + (whole - whole.min(lost)) * MSS;
    let mut left = lost.min(whole) * copies;
    let is_lost = move |sent: &Sent| {
        let is_tail = sent.len > 0 && sent.start >= tail && left > 0;
        left -= u64::from(is_tail);
        is_tail
    };
    let half = Duration::from_micros((rtt * 500).saturating_sub(1_000));
    let up = jittery(seed, half, ms(2), |_| false);
    let down = jittery(seed + 1_000_000, half, ms(2), is_lost);
    let mut world = World::new(seed, [config.clone(), config.clone()], [up, down]);
    world.timer_slack = ms(1);
    world.keeps_log = true;
    world.establish();
    let mut sum = 0;
    for size in sizes {
        world.pass(rng.duration(ms(300)));
        world.write(SERVER, size);
        sum += size;
        world.deliver(CLIENT, sum, ms(60_000));
    }
    let log = world.ends[SERVER].log.iter().filter(|sent| sent.len > 0);
    let is_tail = |sent: &&Sent| sent.start >= tail;
    let first = log.clone().find(is_tail).unwrap();
    let last = log
        .clone()
        .find(|sent| sent.start + sent.len == 1 + sum)
        .unwrap();
    Tail {
        took: millis(world.now.saturating_since(last.at)),
        took_from_first: millis(world.now.saturating_since(first.at)),
        stats: world.stats(SERVER),
    }
}

#[test]
fn a_lost_tail_is_repaired_within_two_round_trips_and_50_ms() {
    for rtt in [20, 50, 100] {
        for lost in 1..=3 {
            let (mut times, mut from_first) = (Vec::new(), Vec::new());
            for seed in seeds(1_000) {
                let tail = lose_tail(seed, rtt, lost, 1, &config());
                assert_eq!(
                    tail.stats.rto_count, 0,
                    "seed {seed}, RTT {rtt}, lost {lost}"
                );
                times.push(tail.took);
                from_first.push(tail.took_from_first);
            }
            // From the first sending of the first segment that was lost, the strictest count.
            let p99 = percentile(&mut from_first, 0.99);
            println!(
                "RTT {rtt} ms, {lost} lost: p50 {:.1}, p99 {p99:.1} ms; from the last lost: p99 {:.1} ms",
                percentile(&mut from_first, 0.5),
                percentile(&mut times, 0.99),
            );
            if rtt == 20 {
                assert!(p99 < 90.0, "{lost} lost: {p99} ms");
            }
        }
    }
}

/// Sends for four seconds over 200 Mbit/s and 20 ms, with 1 in 100 segments up to `late` late.
fn reorder(seed: u64, late: Duration) -> (u64, ConnectionStats) {
    let wire = LinkConfig::builder().delay(ms(10)).rate(25_000_000);
    let up = wire.clone().reorder(0.01, late).build().unwrap();
    // Half a window more than fits the path.
    let config = Config::builder()
        .send_buffer(1_000_000)
        .datagram_size(1_232);
    let config = config.build().unwrap();
    let paths = [link(seed, up), link(seed + 100, wire.build().unwrap())];
    let mut world = World::new(seed, [config.clone(), config], paths);
    world.establish();
    world.write(CLIENT, ENDLESS);
    world.pass(ms(4_000));
    (world.ends[SERVER].received, world.stats(CLIENT))
}

#[test]
fn reordering_alone_costs_neither_window_nor_goodput() {
    for seed in seeds(4) {
        let (undisturbed, _) = reorder(seed, Duration::ZERO);
        let (received, stats) = reorder(seed, ms(20));
        let ratio = received as f64 / undisturbed as f64;
        let again = stats.segments_retransmitted as f64 / stats.segments_sent as f64;
        println!(
            "seed {seed}: goodput {ratio:.3}, sent again {:.3} %, {} recoveries, {} undone, cwnd {}",
            again * 100.0,
            stats.fast_recovery_count,
            stats.undo_count,
            stats.cwnd,
        );
        assert!(ratio >= 0.95, "seed {seed}: {stats:?}");
        assert!(again < 0.005, "seed {seed}: {stats:?}");
        assert_eq!(stats.rto_count, 0, "seed {seed}");
        // One may be in progress.
        let lasting = stats.fast_recovery_count - stats.undo_count;
        assert!(lasting <= 1, "seed {seed}: {stats:?}");
    }
}

#[test]
fn after_a_blackout_data_flows_again() {
    let mut worst = f64::NEG_INFINITY;
    for seed in seeds(100) {
        let mut rng = Rng::stream(seed, 5);
        let length = ms(rng.range(200..=10_000));
        let start = ms(rng.range(500..=2_500));
        let wire = LinkConfig::builder()
            .delay(ms(25))
            .rate(2_500_000)
            .queue_bytes(125_000)
            .blackout(start, length)
            .build()
            .unwrap();
        let paths = [link(seed, wire.clone()), link(seed + 1_000_000, wire)];
        let mut world = World::new(seed, [config(), config()], paths);
        world.establish();
        world.write(CLIENT, ENDLESS);
        let begin = Timestamp::ZERO + start;
        // What was on its way arrives.
        world.pass((begin + ms(150)).saturating_since(world.now));
        let before = world.ends[SERVER].received;
        world.deliver(SERVER, before + 1, ms(60_000));
        let took = millis(world.now.saturating_since(begin)) - 2.0 * millis(length);
        assert!(
            took <= 500.0,
            "seed {seed}: {length:?} and {took} ms: {:?}",
            world.stats(CLIENT)
        );
        worst = worst.max(took);
    }
    println!("at worst {worst:.0} ms after twice its length");
}

#[test]
fn no_timeout_fires_while_sacks_arrive() {
    let (mut timeouts, mut again, mut sent) = (0, 0, 0);
    for seed in seeds(60) {
        let wire = LinkConfig::builder()
            .delay(ms(25))
            .loss(0.1)
            .build()
            .unwrap();
        let paths = [link(seed, wire.clone()), link(seed + 1_000_000, wire)];
        let mut world = World::new(seed, [config(), config()], paths);
        world.timer_slack = ms(1);
        world.establish();
        world.write(CLIENT, 1_000_000);
        world.deliver(SERVER, 1_000_000, ms(300_000));
        let despite = world.ends[CLIENT].timeouts_despite_sack;
        assert_eq!(despite, 0, "seed {seed}: {:?}", world.stats(CLIENT));
        let stats = world.stats(CLIENT);
        timeouts += stats.rto_count;
        again += stats.segments_retransmitted;
        sent += stats.segments_sent;
    }
    println!(
        "{timeouts} timeouts, none with a SACK in the RTO before; {again} of {sent} sent again"
    );
}

/// One path delay of 25 ms grows at once by `spike` and falls back as fast as time passes, so that what
/// was held up arrives together.
fn spike(name: &str, config: &Config, spike: u64) -> [ConnectionStats; 2] {
    let begin = Timestamp::from_millis(2_000);
    let up = varying(move |now| {
        let since = now.saturating_since(begin);
        let is_in_it = now >= begin && since < ms(spike);
        ms(25)
            + if is_in_it {
                ms(spike).saturating_sub(since)
            } else {
                ms(0)
            }
    });
    let is_first = |sent: &Sent| {
        sent.len > 0 && !sent.is_again && (sent.start..sent.start + sent.len).contains(&360_000)
    };
    let mut up = up;
    let lossy: Path = Box::new(move |sent, bytes| up(sent, bytes).filter(|_| !is_first(sent)));
    let mut world = World::new(
        1,
        [config.clone(), config.clone()],
        [lossy, world::delay(ms(25))],
    );
    world.establish();
    world.write(CLIENT, ENDLESS);
    world.pass(begin.saturating_since(world.now));
    let before = world.stats(CLIENT);
    assert!(before.ssthresh < u64::MAX, "{name}: nothing to restore");
    world.pass(ms(spike + 400));
    [before, world.stats(CLIENT)]
}

#[test]
fn a_delay_spike_is_found_out_by_each_detector_alone() {
    // Name, SACK, timestamps, F-RTO, and how many segments an expiry may send again in vain.
    type Case = (&'static str, bool, bool, bool, u64);
    let cases: [Case; 7] = [
        ("nothing", false, false, false, u64::MAX),
        ("F-RTO, basic", false, false, true, 1),
        ("F-RTO with SACK", true, false, true, 1),
        ("Eifel", false, true, false, 1),
        ("Eifel with SACK", true, true, false, 1),
        // A report takes a round trip, in which the ACKs of the originals let more out.
        ("DSACK", true, false, false, u64::MAX),
        ("all", true, true, true, 1),
    ];
    for (name, sack, timestamps, frto, in_vain) in cases {
        for length in [300, 1_000] {
            let config = Config::builder()
                .sack(sack)
                .timestamps(timestamps)
                .frto(frto)
                .tail_loss_probe(false)
                .send_buffer(500_000)
                .datagram_size(1_232)
                .build()
                .unwrap();
            let [before, after] = spike(name, &config, length);
            let timeouts = after.rto_count - before.rto_count;
            let again = after.segments_retransmitted - before.segments_retransmitted;
            println!(
                "{name}, {length} ms: {timeouts} timeouts, {again} sent again, cwnd {} -> {}, ssthresh {} -> {}",
                before.cwnd, after.cwnd, before.ssthresh, after.ssthresh
            );
            let undone = after.undo_count - before.undo_count;
            if name == "nothing" {
                assert_eq!(undone, 0, "{name}");
                assert!(after.ssthresh < before.cwnd);
                continue;
            }
            assert!(timeouts > 0 && undone > 0, "{name}, {length}: {after:?}");
            assert!(after.cwnd >= before.cwnd, "{name}, {length}: {after:?}");
            assert!(
                after.ssthresh >= before.ssthresh,
                "{name}, {length}: {after:?}"
            );
            let allowed = timeouts.saturating_mul(in_vain);
            assert!(again <= allowed, "{name}, {length}: {again} sent again");
            let is_frto_alone = frto && !timestamps;
            assert_eq!(after.frto_count > 0, is_frto_alone, "{name}, {length}");
        }
    }
}

/// NewReno's average window under random loss: sqrt(3 / (2 b p)) segments, with b = 1, because
/// acknowledged bytes and not ACKs are counted.
#[test]
fn the_window_under_random_loss_is_that_of_theory() {
    for loss in [0.001, 0.01, 0.03] {
        for sack in [true, false] {
            let mut window = 0.0;
            for seed in 0..4 {
                let wire = LinkConfig::builder().delay(ms(20));
                let config = Config::builder().sack(sack).datagram_size(1_232);
                let config = config.build().unwrap();
                let up = wire.clone().loss(loss).build().unwrap();
                let paths = [link(seed, up), link(seed + 9, wire.build().unwrap())];
                let mut world = World::new(seed, [config.clone(), config], paths);
                world.establish();
                world.write(CLIENT, ENDLESS);
                world.pass(ms(10_000));
                let before = world.ends[SERVER].received;
                world.pass(ms(60_000));
                let received = world.ends[SERVER].received - before;
                window += received as f64 / (60.0 / 0.04) / MSS as f64 / 4.0;
            }
            let theory = (1.5_f64 / loss).sqrt();
            println!(
                "loss {loss}, SACK {sack}: {window:.1} segments per RTT, in theory {theory:.1}"
            );
            let least = if sack { 0.8 } else { 0.4 };
            assert!(
                window > least * theory,
                "loss {loss}, SACK {sack}: {window}"
            );
        }
    }
}

/// A path with `jitter` ms of jitter and stalls of `stall` ms, one every `every` ms on average, at whose end
/// everything arrives.
#[derive(Clone, Copy)]
struct Stalling {
    name: &'static str,
    base: u64,
    jitter: u64,
    stall: (u64, u64),
    every: u64,
}

const fn stalling(
    name: &'static str,
    base: u64,
    jitter: u64,
    stall: (u64, u64),
    every: u64,
) -> Stalling {
    Stalling {
        name,
        base,
        jitter,
        stall,
        every,
    }
}

const STALLING: [Stalling; 4] = [
    stalling("LAN 1 ms, stalls of 5-40 ms", 0, 1, (5, 40), 300),
    stalling("Wi-Fi 10 ms, stalls of 20-80 ms", 4, 2, (20, 80), 500),
    stalling("Wi-Fi 20 ms, stalls of 50-150 ms", 8, 4, (50, 150), 1_000),
    stalling("LTE 50 ms, stalls of 50-300 ms", 20, 10, (50, 300), 3_000),
];

impl Stalling {
    fn path(self, seed: u64) -> Path {
        let mut rng = Rng::stream(seed, 17);
        let (mut from, mut until) = (Timestamp::from_millis(300), Timestamp::from_millis(300));
        varying(move |now| {
            let at = now + ms(self.base) + rng.duration(ms(self.jitter));
            while at > until {
                from = until + rng.duration(ms(2 * self.every));
                until = from + ms(rng.range(self.stall.0..=self.stall.1));
            }
            let at = if at >= from { until } else { at };
            at.saturating_since(now)
        })
    }

    /// Returns timeouts per minute, all of them spurious: nothing is lost.
    fn spurious_timeouts(self, runs: u64, min_rto: u64) -> f64 {
        let mut timeouts = 0;
        for seed in 0..runs {
            let config = Config::builder()
                .send_buffer(100_000)
                .min_rto(ms(min_rto))
                .datagram_size(1_232)
                .build()
                .unwrap();
            let paths = [self.path(seed), self.path(seed + 1_000)];
            let mut world = World::new(seed, [config.clone(), config], paths);
            world.timer_slack = ms(1);
            world.establish();
            world.write(CLIENT, ENDLESS);
            world.pass(ms(30_000));
            timeouts += world.stats(CLIENT).rto_count;
        }
        timeouts as f64 / (runs as f64 / 2.0)
    }
}

/// What a lost tail costs whose probe is lost too, at the 99th percentile, in ms.
fn lost_probe(runs: u64, rtt: u64, min_rto: u64) -> f64 {
    let config = Config::builder()
        .nodelay(true)
        .min_rto(ms(min_rto))
        .datagram_size(1_232)
        .build()
        .unwrap();
    let mut times: Vec<f64> = (0..runs)
        .map(|seed| lose_tail(seed, rtt, 1, 2, &config).took)
        .collect();
    percentile(&mut times, 0.99)
}

#[test]
fn stalls_of_the_path_are_no_timeouts_and_a_lost_probe_costs_one() {
    for pattern in STALLING.into_iter().skip(1) {
        let rate = pattern.spurious_timeouts(10, 200);
        println!("{}: {rate} spurious timeouts per minute", pattern.name);
        assert!(rate <= 1.0, "{}: {rate} timeouts per minute", pattern.name);
    }
    let p99 = lost_probe(100, 20, 200);
    assert!(p99 < 310.0, "{p99} ms");
}

#[test]
#[ignore = "prints the figures behind the default of Config::min_rto"]
fn floors_of_the_timeout_compared() {
    let floors = [10, 50, 100, 200, 300];
    println!("floor in ms: {floors:?}");
    for pattern in STALLING {
        let rates = floors.map(|floor| pattern.spurious_timeouts(20, floor));
        println!(
            "{}, spurious timeouts per minute: {rates:.1?}",
            pattern.name
        );
    }
    for rtt in [2, 20, 100, 180] {
        let times = floors.map(|floor| lost_probe(200, rtt, floor));
        println!("tail and probe lost, RTT {rtt} ms, p99 in ms: {times:.0?}");
    }
}
