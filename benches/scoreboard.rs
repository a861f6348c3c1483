//! What one ACK costs loss recovery with 100 to 1,000,000 segments in flight and many holes.
//!
//! Run with `cargo bench --manifest-path benches/Cargo.toml --bench scoreboard`. Prints nanoseconds per ACK,
//! retransmissions included. `SCOREBOARD=PATTERN/SEGMENTS` runs one case twice and prints the number of ACKs of one run,
//! for counting instructions: build with `--no-run` and put `valgrind --tool=callgrind
//! --toggle-collect='*measured*'` before the binary.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::env;
use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, RecoveryEntered, TimedOut,
};
use reliable_udp::internals::Offset;
use reliable_udp::internals::recovery::{AckArrival, Recovery, RecoveryStart};
use reliable_udp::{Config, Timestamp};

const MSS: u64 = 1_000;
const RTT: Duration = Duration::from_millis(100);
const SIZES: [u64; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
/// ACKs are counted over at least so many, by as many windows as that takes.
const ACKS: u64 = 100_000;

/// What the peer reports.
#[derive(Clone, Copy)]
struct Pattern {
    name: &'static str,
    /// Of so many segments one is missing; 0 is none.
    missing: u64,
    /// Bytes per segment.
    size: u64,
    /// Segments are reported in this order: the next one, or far apart.
    is_scattered: bool,
}

const PATTERNS: [Pattern; 6] = [
    pattern("in-order", 0, MSS, false),
    pattern("every-second", 2, MSS, false),
    pattern("every-third", 3, MSS, false),
    pattern("one-in-a-hundred", 100, MSS, false),
    // What an attacker would choose: blocks far apart, and as many records as the window can hold.
    pattern("scattered", 2, MSS, true),
    pattern("small-segments", 2, 10, true),
];

const fn pattern(name: &'static str, missing: u64, size: u64, is_scattered: bool) -> Pattern {
    Pattern {
        name,
        missing,
        size,
        is_scattered,
    }
}

/// A window that never is the limit.
#[derive(Debug)]
struct Boundless;

impl CongestionController for Boundless {
    fn on_acked(&mut self, _event: &Acked) {}
    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {}
    fn on_timeout(&mut self, _event: &TimedOut) {}
    fn cwnd(&self) -> u64 {
        1 << 40
    }
    fn ssthresh(&self) -> u64 {
        1 << 40
    }
    fn uses_prr(&self) -> bool {
        false
    }
}

struct Bench {
    now: Timestamp,
    recovery: Recovery,
    pattern: Pattern,
}

impl Bench {
    fn new(pattern: Pattern) -> Self {
        let config = Config::builder()
            .congestion(CongestionControl::custom(|_| Boundless))
            .build()
            .expect("a valid configuration");
        let mut recovery = Recovery::new(&config);
        let now = Timestamp::from_millis(1);
        recovery.start(
            now,
            RecoveryStart {
                mss: MSS,
                sack: true,
                rack: true,
                tail_loss_probe: true,
                timestamps: true,
                prr: true,
                handshake_rtt: Some(RTT),
                syn_retransmitted: false,
                peer_ack_delay: None,
                seed: 0,
            },
        );
        Self {
            now,
            recovery,
            pattern,
        }
    }

    fn at(&self, base: Offset, segment: u64) -> Offset {
        base + segment * self.pattern.size
    }

    fn send(&mut self, segments: u64) {
        for n in 0..segments {
            let start = self.recovery.snd_nxt();
            self.recovery
                .on_sent(self.now, start..start + self.pattern.size);
            if n % 10 == 0 {
                self.now = self.now + Duration::from_micros(10);
            }
        }
    }

    fn ack(&mut self, ack: Offset, sack: &[Range<Offset>]) {
        // A window of any size is reported well within a round trip.
        self.now = self.now + Duration::from_nanos(100);
        let outcome = self.recovery.on_ack(
            self.now,
            &AckArrival {
                ack,
                sack,
                is_duplicate: false,
                rtt: Some(RTT),
                rtt_tsecr: Some(0),
                ecn_echo: false,
            },
        );
        black_box(outcome);
        black_box(self.recovery.timer());
        // What an ACK lets go at most, as the sender asks for it.
        for _ in 0..2 {
            let Some(range) = self.recovery.next_retransmission(MSS) else {
                break;
            };
            self.recovery.on_retransmitted(self.now, range);
        }
    }

    /// Acknowledges one window as the pattern says; returns the number of ACKs.
    #[inline(never)]
    fn measured(&mut self, base: Offset, order: &[u64], segments: u64) -> u64 {
        let mut blocks: Vec<Range<Offset>> = Vec::new();
        if self.pattern.missing == 0 {
            for n in 1..=segments {
                self.ack(self.at(base, n), &[]);
            }
            return segments;
        }
        let mut acks = 0;
        for &n in order {
            let block = self.at(base, n)..self.at(base, n + 1);
            match blocks.first_mut() {
                Some(first) if first.end == block.start => first.end = block.end,
                _ => {
                    blocks.insert(0, block);
                    blocks.truncate(4);
                }
            }
            self.ack(base, &blocks);
            acks += 1;
        }
        // The holes are filled, in order.
        for n in (0..segments).step_by(usize::try_from(self.pattern.missing).unwrap_or(1)) {
            let next = (n + self.pattern.missing).min(segments);
            self.ack(self.at(base, next), &[]);
            acks += 1;
        }
        acks
    }
}

/// The segments that arrive, in the order in which they do.
fn order(pattern: Pattern, segments: u64) -> Vec<u64> {
    let is_there = |n: &u64| pattern.missing > 0 && !n.is_multiple_of(pattern.missing);
    let arriving: Vec<u64> = (0..segments).filter(is_there).collect();
    if !pattern.is_scattered || arriving.is_empty() {
        return arriving;
    }
    // A step that is coprime to their number visits each once, far from the one before.
    let len = arriving.len();
    let step = (len * 618 / 1_000..)
        .find(|step| gcd(*step, len) == 1)
        .unwrap_or(1);
    (0..len).map(|i| arriving[i * step % len]).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Runs `rounds` windows, after one that is not counted, because memory that grows is paid for once, and returns
/// the time per ACK in nanoseconds and the number of ACKs.
fn run(pattern: Pattern, segments: u64, rounds: u64) -> (f64, u64) {
    let order = order(pattern, segments);
    let mut bench = Bench::new(pattern);
    let (mut acks, mut time) = (0, Duration::ZERO);
    for round in 0..=rounds {
        let base = bench.recovery.snd_nxt();
        bench.send(segments);
        bench.now = bench.now + RTT;
        let begin = Instant::now();
        let count = bench.measured(base, &order, segments);
        if round > 0 {
            acks += count;
            time += begin.elapsed();
        }
        assert_eq!(bench.recovery.flight_size(), 0, "all is acknowledged");
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    let nanos = time.as_nanos() as f64 / acks as f64;
    (nanos, acks)
}

fn main() {
    let only = env::var("SCOREBOARD").unwrap_or_default();
    if let Some((name, segments)) = only.split_once('/') {
        let segments = segments.parse().expect("a number of segments");
        let pattern = PATTERNS.iter().find(|pattern| pattern.name == name);
        let (_, acks) = run(*pattern.expect("a pattern"), segments, 1);
        println!("{acks}");
        return;
    }
    println!("ns per ACK, by segments in flight");
    print!("{:>18}", "");
    SIZES.iter().for_each(|size| print!("{size:>10}"));
    println!();
    for pattern in PATTERNS {
        print!("{:>18}", pattern.name);
        for size in SIZES {
            let (nanos, _) = run(pattern, size, (ACKS / size).max(1));
            print!("{nanos:>10.0}");
        }
        println!();
    }
}
