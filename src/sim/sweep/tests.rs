use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Report, describe_seed, run_seed, run_seed_traced};
use crate::sim::network::Trace;

/// Seeds that once failed. What a seed means changes with the code that draws from it; then these stay
/// what they are, more seeds.
const KEPT: &[u64] = &[
    // The peer's ACK of a cookie met a half-open connection that a copy of its SYN had made.
    5_964, 23_630, 34_403,
];

fn env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
        Err(_) => default,
    }
}

/// Runs a seed; a failure and a panic come as a message that says how to replay it.
fn outcome(seed: u64) -> Result<Report, String> {
    let lines = env("RELIABLE_UDP_TRACE_LINES", 200);
    let trace = Trace::new(usize::try_from(lines).unwrap());
    let result = catch_unwind(AssertUnwindSafe(|| run_seed(seed)));
    if let Ok(Ok(report)) = result {
        return Ok(report);
    }
    let what = match catch_unwind(AssertUnwindSafe(|| run_seed_traced(seed, &trace))) {
        Ok(Ok(_)) => format!("seed {seed}: fails and then does not"),
        Ok(Err(failure)) => failure.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("seed {seed}: panic: {}", text.unwrap_or("?"))
        }
    };
    Err(format!(
        "{}\n{trace}{what}\nreplay: RELIABLE_UDP_SEED_START={seed} RELIABLE_UDP_SEEDS=1 \
         RELIABLE_UDP_TRACE_LINES=10000 \
         cargo test --release --all-features --lib sim::sweep",
        describe_seed(seed),
    ))
}

/// Runs seeds on all processors and returns their sum, or the first few failures.
fn sweep(seeds: impl Iterator<Item = u64> + Send) -> Result<Report, Vec<String>> {
    let seeds = Mutex::new(seeds);
    let total = Mutex::new(Report::default());
    let failures = Mutex::new(Vec::new());
    let failed = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) < 3 {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        return;
                    };
                    match outcome(seed) {
                        Ok(report) => {
                            let mut total = total.lock().unwrap();
                            total.duration += report.duration;
                            total.steps += report.steps;
                            total.connections += report.connections;
                            total.bytes += report.bytes;
                            total.datagrams += report.datagrams;
                            total.datagrams_lost += report.datagrams_lost;
                        }
                        Err(what) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            failures.lock().unwrap().push(what);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    if failures.is_empty() {
        return Ok(total.into_inner().unwrap());
    }
    Err(failures)
}

/// Without optimization a seed takes ten times as long.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 2_000 };

/// `RELIABLE_UDP_SEEDS` runs, [`SEEDS`] by default, from `RELIABLE_UDP_SEED_START`, 0 by default.
#[test]
fn random_seeds_end_in_order() {
    let start = env("RELIABLE_UDP_SEED_START", 0);
    let count = env("RELIABLE_UDP_SEEDS", SEEDS);
    match sweep((start..).take(usize::try_from(count).unwrap())) {
        Ok(total) => {
            println!("{count} seeds: {total:?}");
            // That the scenarios are not all idle ones.
            if count >= 1_000 {
                assert!(total.bytes > 10_000 * count, "{total:?}");
                assert!(total.datagrams_lost * 50 > total.datagrams, "{total:?}");
            }
        }
        Err(failures) => panic!("{}", failures.join("\n\n")),
    }
}

#[test]
fn kept_seeds_end_in_order() {
    if let Err(failures) = sweep(KEPT.iter().copied()) {
        panic!("{}", failures.join("\n\n"));
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..20 {
        let traces = [Trace::new(usize::MAX), Trace::new(usize::MAX)];
        let reports = traces.each_ref().map(|trace| run_seed_traced(seed, trace));
        let [a, b] = traces.map(|trace| trace.to_string());
        let first_difference = a.lines().zip(b.lines()).find(|(a, b)| a != b);
        assert_eq!(first_difference, None, "{seed}");
        assert_eq!(reports[0], reports[1], "{seed}");
    }
}
