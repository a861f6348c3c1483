//! BBR over a simulated bottleneck, in virtual time: how much it delivers, how much it queues, how it follows the
//! path.
//!
//! Goodput is given as a share of the link: bytes delivered for the first time, with the headers that carried them,
//! over what the link can carry. What is measured is printed (`--nocapture`).
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "helpers of tests may unwrap and print as tests may; counts of a test are small"
)]

#[path = "support/world.rs"]
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use reliable_udp::congestion::CongestionControl;
use reliable_udp::sim::Rng;
use reliable_udp::{Config, ConfigBuilder, ConnectionStats, Timestamp};

use world::{CLIENT, Path, SERVER, World, delay};

/// Payload of a full segment, and its datagram: with a header of 20 and timestamps of 12 bytes.
const MSS: u64 = 1_200;
const DATAGRAM: u64 = 1_232;
/// More than any test sends.
const ENDLESS: u64 = 1 << 34;
/// 100 Mbit/s in bytes per second.
const FAST: u64 = 12_500_000;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What the bottleneck has seen.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    datagrams: u64,
    dropped: u64,
    queued: Duration,
}

/// A bottleneck with a drop-tail queue, random loss behind it, and half of the RTT behind that.
#[derive(Debug, Clone)]
struct Bottleneck {
    /// Rates in bytes per second, and from when on they hold.
    rates: Vec<(Duration, u64)>,
    rtt: Duration,
    queue: u64,
    loss: f64,
}

impl Bottleneck {
    /// A queue of so many times the BDP.
    fn new(rate: u64, rtt: Duration, bdps: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few megabytes"
        )]
        let queue = (rate as f64 * rtt.as_secs_f64() * bdps) as u64;
        Self {
            rates: vec![(Duration::ZERO, rate)],
            rtt,
            queue: queue.max(2 * DATAGRAM),
            loss: 0.0,
        }
    }

    fn lossy(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    fn then(mut self, from: Duration, rate: u64) -> Self {
        self.rates.push((from, rate));
        self
    }

    fn rate_at(&self, now: Timestamp) -> u64 {
        let age = now.saturating_since(Timestamp::ZERO);
        let rates = self.rates.iter().rev();
        rates.clone().find(|(from, _)| *from <= age).unwrap().1
    }

    fn path(&self, seed: u64, seen: &Rc<RefCell<Seen>>) -> Path {
        let (link, seen) = (self.clone(), Rc::clone(seen));
        let mut rng = Rng::stream(seed, 17);
        let mut busy_until = Timestamp::ZERO;
        Box::new(move |sent, bytes| {
            let rate = link.rate_at(sent.at);
            let wait = busy_until.saturating_since(sent.at);
            let backlog = wait.as_secs_f64() * rate as f64;
            let mut seen = seen.borrow_mut();
            let is_lost = rng.chance(link.loss);
            seen.datagrams += 1;
            if backlog + bytes.len() as f64 > link.queue as f64 {
                seen.dropped += 1;
                return None;
            }
            seen.queued += wait;
            let time = Duration::from_secs_f64(bytes.len() as f64 / rate as f64);
            busy_until = busy_until.max(sent.at) + time;
            (!is_lost).then_some(busy_until + link.rtt / 2)
        })
    }
}

/// A transfer over a bottleneck.
struct Run {
    world: World,
    link: Bottleneck,
    seen: Rc<RefCell<Seen>>,
}

impl Run {
    fn new(seed: u64, config: ConfigBuilder, link: &Bottleneck) -> Self {
        let seen = Rc::default();
        let config = config.build().unwrap();
        let paths = [link.path(seed, &seen), delay(link.rtt / 2)];
        let mut world = World::new(seed, [config, Config::default()], paths);
        world.establish();
        world.check_every = 64;
        Self {
            world,
            link: link.clone(),
            seen,
        }
    }

    /// A transfer without an end.
    fn endless(seed: u64, config: ConfigBuilder, link: &Bottleneck) -> Self {
        let mut run = Self::new(seed, config, link);
        run.world.write(CLIENT, ENDLESS);
        run
    }

    /// Runs for `length` and returns what share of the link was used meanwhile.
    fn goodput(&mut self, length: Duration) -> f64 {
        let before = self.world.ends[SERVER].received;
        let rate = self.link.rate_at(self.world.now);
        self.world.pass(length);
        let received = self.world.ends[SERVER].received - before;
        let on_wire = received as f64 * DATAGRAM as f64 / MSS as f64;
        on_wire / (rate as f64 * length.as_secs_f64())
    }

    fn stats(&self) -> ConnectionStats {
        self.world.stats(CLIENT)
    }

    fn mean_queue(&self) -> Duration {
        let seen = self.seen.borrow();
        let sent = seen.datagrams - seen.dropped;
        seen.queued / u32::try_from(sent.max(1)).unwrap()
    }
}

fn with(congestion: CongestionControl) -> ConfigBuilder {
    // The links have no MTU, and the bounds are those of paths that have one.
    let config = Config::builder().datagram_size(1_232);
    config.nodelay(true).congestion(congestion)
}

fn bbr() -> ConfigBuilder {
    with(CongestionControl::Bbr)
}

/// Runs for 30 s from the start over 100 Mbit/s with a queue of one BDP, and prints what came of it: the share of the
/// link in all and after the first ten seconds.
fn thirty_seconds(
    seed: u64,
    config: ConfigBuilder,
    rtt: u64,
    loss: f64,
) -> (f64, f64, ConnectionStats) {
    let link = Bottleneck::new(FAST, ms(rtt), 1.0).lossy(loss);
    let mut run = Run::endless(seed, config, &link);
    let first = run.goodput(secs(10));
    let rest = run.goodput(secs(20));
    let share = (first + 2.0 * rest) / 3.0;
    let stats = run.stats();
    println!(
        "{rtt} ms, loss {loss}, seed {seed}: {share:.3} of the link, {rest:.3} after 10 s, mean queue {:?}, {} dropped, \
         {} retransmitted, {} timeouts, {} recoveries, {} undone",
        run.mean_queue(),
        run.seen.borrow().dropped,
        stats.segments_retransmitted,
        stats.rto_count,
        stats.fast_recovery_count,
        stats.undo_count,
    );
    (share, rest, stats)
}

#[test]
fn a_clean_path_is_filled() {
    // At 300 ms Startup alone takes three seconds, and ProbeRTT half a second of five.
    for (rtt, least, least_rest) in [
        (10, 0.95, 0.96),
        (50, 0.93, 0.95),
        (100, 0.93, 0.95),
        (300, 0.84, 0.92),
    ] {
        let (share, rest, stats) = thirty_seconds(1, bbr(), rtt, 0.0);
        assert!(
            share >= least && rest >= least_rest,
            "{rtt} ms: {share}, {rest}"
        );
        assert_eq!(
            (stats.rto_count, stats.segments_spurious),
            (0, 0),
            "{rtt} ms"
        );
    }
}

#[test]
fn one_percent_of_random_loss_costs_little() {
    for rtt in [10, 50, 100] {
        for seed in 1..=3 {
            let (share, _, stats) = thirty_seconds(seed, bbr(), rtt, 0.01);
            assert!(share >= 0.85, "{rtt} ms, seed {seed}: {share}");
            // All losses are real.
            assert_eq!(
                (stats.undo_count, stats.segments_spurious),
                (0, 0),
                "{rtt} ms"
            );
        }
    }
}

#[test]
fn heavy_loss_is_lived_with() {
    for rtt in [10, 50, 100] {
        for loss in [0.05, 0.1] {
            let link = Bottleneck::new(FAST, ms(rtt), 1.0).lossy(loss);
            let mut run = Run::endless(1, bbr(), &link);
            // In no second of thirty does nothing arrive.
            let shares: Vec<_> = (0..30).map(|_| run.goodput(secs(1))).collect();
            let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
            let mean = shares.iter().sum::<f64>() / 30.0;
            println!("{rtt} ms, loss {loss}: {mean:.4} of the link, least {least:.4} in a second");
            assert!(least > 0.0, "{rtt} ms, loss {loss}: {shares:?}");
        }
    }
}

#[test]
fn a_higher_threshold_keeps_the_rate_under_heavy_loss() {
    let cases = [
        (10, 0.05, 0.15, 0.85),
        (50, 0.05, 0.12, 0.8),
        (100, 0.1, 0.2, 0.5),
    ];
    for (rtt, loss, threshold, least) in cases {
        let (tolerant, ..) = thirty_seconds(1, bbr().bbr_loss_threshold(threshold), rtt, loss);
        assert!(tolerant >= least, "{rtt} ms, loss {loss}: {tolerant}");
    }
}

#[test]
fn a_deep_queue_stays_short() {
    for rtt in [10, 50, 100] {
        let link = Bottleneck::new(FAST, ms(rtt), 4.0);
        let queues = [CongestionControl::Cubic, CongestionControl::Bbr].map(|control| {
            let mut run = Run::endless(1, with(control.clone()), &link);
            let share = run.goodput(secs(30));
            println!(
                "{control:?}, {rtt} ms: {share:.3}, mean queue {:?}",
                run.mean_queue()
            );
            run.mean_queue()
        });
        assert!(queues[1] <= queues[0].mul_f64(0.35), "{queues:?}");
    }
}

#[test]
fn a_slow_link_is_used_without_flooding_it() {
    // 400 kbit/s.
    let link = Bottleneck::new(50_000, ms(100), 1.0);
    let mut run = Run::endless(1, bbr(), &link);
    let share = run.goodput(secs(60));
    let stats = run.stats();
    let (again, sent) = (stats.segments_retransmitted, stats.segments_sent);
    println!("{share:.3}, {again} of {sent} sent again");
    assert!(share >= 0.9, "{share}");
    assert!(again * 20 < sent, "{stats:?}");
}

#[test]
fn probes_of_the_round_trip_time_empty_the_pipe_every_five_seconds() {
    let link = Bottleneck::new(FAST, ms(100), 1.0);
    let mut run = Run::endless(1, bbr(), &link);
    run.goodput(secs(3));
    // Half a BDP, and some.
    let small = FAST / 10 * 55 / 100;
    let (mut dips, mut was_small, mut time_small) = (0, false, 0);
    for _ in 0..3_000 {
        run.world.pass(ms(10));
        let is_small = run.stats().bytes_in_flight < small;
        dips += u32::from(is_small && !was_small);
        time_small += u32::from(is_small);
        was_small = is_small;
    }
    // Every 5 s, or later if a shorter round trip was seen meanwhile; 200 ms and about a round trip each.
    println!("{dips} dips, {time_small} of 3000 times");
    assert!((4..=6).contains(&dips), "{dips}");
    assert!((60..=250).contains(&time_small), "{time_small}");
}

#[test]
fn what_the_application_does_not_send_is_not_held_against_the_path() {
    let link = Bottleneck::new(FAST, ms(50), 1.0);
    let mut run = Run::new(1, bbr(), &link);
    run.world.write(CLIENT, 60_000_000);
    run.world.deliver(SERVER, 60_000_000, secs(30));
    let before = run.stats().pacing_rate.unwrap();
    // 20 s of 12 kB every 100 ms, a hundredth of the link.
    for _ in 0..200 {
        run.world.write(CLIENT, 12_000);
        run.world.pass(ms(100));
    }
    let after = run.stats().pacing_rate.unwrap();
    println!("{before} bytes/s before the pauses, {after} after");
    assert!(after >= before * 85 / 100, "{before}, {after}");
    // And the link is full at once when there is enough again.
    run.world.write(CLIENT, ENDLESS);
    run.world.pass(ms(100));
    let share = run.goodput(secs(1));
    assert!(share >= 0.85, "{share}");
}

#[test]
fn a_path_that_changes_is_followed() {
    // A probe comes every two to three seconds, and the largest bandwidth is remembered for two of them.
    for (name, rate, least) in [("half", FAST / 2, 0.9), ("twice", FAST * 2, 0.85)] {
        let link = Bottleneck::new(FAST, ms(50), 1.0).then(secs(10), rate);
        let mut run = Run::endless(1, bbr(), &link);
        run.goodput(secs(10));
        let at_once = run.goodput(secs(3));
        let soon = run.goodput(secs(5));
        let later = run.goodput(secs(7));
        let pace = run.stats().pacing_rate.unwrap();
        println!(
            "{name}: {at_once:.3} in 3 s, {soon:.3} in the next 5, {later:.3} in the next 7, {pace} bytes/s"
        );
        assert!(later >= least, "{name}: {later}");
        assert!(pace <= rate * 13 / 10, "{name}: {pace}");
    }
}
