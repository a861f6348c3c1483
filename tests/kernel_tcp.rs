//! The Linux kernel's TCP as our peer, through a shim that swaps our UDP for IP.
//!
//! Every case has a network namespace with a TUN device of its own, so that cases run side by side. It
//! needs `CAP_NET_ADMIN`, `CAP_SYS_ADMIN` and `/dev/net/tun`; where these are missing each test says so on
//! standard error, in a line that begins with `SKIPPED kernel_tcp`, and does nothing.
//!
//! Environment:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `RELIABLE_UDP_RUNS` | how often each case runs, each time with the next seed | 1 |
//! | `RELIABLE_UDP_SEED_START` | the first seed | 0 |
//! | `RELIABLE_UDP_KERNEL_CASE` | runs only cases whose name contains this | all |
//! | `RELIABLE_UDP_KERNEL_JOBS` | cases at the same time, per test | 6 |
//! | `RELIABLE_UDP_SEEDS` | goodput: seeds per loss rate | 10 |
//! | `RELIABLE_UDP_MIB` | goodput: MiB per transfer | 64 |
//! | `RELIABLE_UDP_LOSS` | goodput: loss rates in per cent | 0.1,1,3 |
//! | `RELIABLE_UDP_LOG` | goodput: a directory for logs of all segments | none |

#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "modules of one test")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code, outside the test functions"
)]
#![allow(clippy::disallowed_methods, reason = "the kernel's time is real")]

#[path = "kernel_tcp/case.rs"]
mod case;
#[path = "kernel_tcp/goodput.rs"]
mod goodput;
#[path = "kernel_tcp/ip.rs"]
mod ip;
#[path = "kernel_tcp/kernel.rs"]
mod kernel;
#[path = "kernel_tcp/namespace.rs"]
mod namespace;
#[path = "kernel_tcp/ours.rs"]
mod ours;
#[path = "kernel_tcp/script.rs"]
mod script;
#[path = "kernel_tcp/shim.rs"]
mod shim;
#[path = "kernel_tcp/table.rs"]
mod table;

use std::io::Write as _;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use self::case::{Case, Path, refused};
use self::script::Side;

/// Says on standard error, whatever the test runner captures, why something is not tested.
fn report_skip(what: &str, why: &str) {
    #[expect(clippy::explicit_write, reason = "the test runner swallows eprintln's")]
    writeln!(std::io::stderr(), "\nSKIPPED kernel_tcp: {what}: {why}").unwrap();
}

/// Tells whether nothing can be tested here, and reports it.
fn skips() -> bool {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(namespace::obstacle);
    if let Some(obstacle) = &*OBSTACLE {
        report_skip("everything", obstacle);
    }
    OBSTACLE.is_some()
}

/// The kernel's congestion controllers that it has, and a report of those that it has not.
fn congestion() -> Vec<&'static str> {
    let (there, missing): (Vec<_>, Vec<_>) = table::CONGESTION
        .into_iter()
        .partition(|name| kernel::has_congestion(name));
    for name in missing {
        report_skip(name, "this kernel has no such congestion controller");
    }
    there
}

fn env<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{name}: {text} is no value for it"))
}

/// Runs `job` for every number below `count`, some at the same time.
fn side_by_side(count: usize, job: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let jobs: usize = env("RELIABLE_UDP_KERNEL_JOBS", 6);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    job(number);
                }
            });
        }
    });
}

/// The seeds of this run.
fn seeds() -> Range<u64> {
    let start: u64 = env("RELIABLE_UDP_SEED_START", 0);
    let runs: u64 = env("RELIABLE_UDP_RUNS", 1);
    start..start + runs
}

/// Runs all cases of a table, and fails with all that failed.
fn run_all(cases: &[Case]) {
    if skips() {
        return;
    }
    let filter: String = env("RELIABLE_UDP_KERNEL_CASE", String::new());
    let congestion = congestion();
    let plan: Vec<(u64, &Case)> = seeds()
        .flat_map(|seed| cases.iter().map(move |case| (seed, case)))
        .filter(|(_, case)| congestion.contains(&case.congestion))
        .filter(|(_, case)| case.to_string().contains(&filter))
        .collect();
    assert!(
        !plan.is_empty() || !filter.is_empty(),
        "no case is left to run"
    );
    let failures = Mutex::new(Vec::new());
    side_by_side(plan.len(), |number| {
        let (seed, case) = plan[number];
        let Err(failure) = case.run(seed) else {
            return;
        };
        let directory = FilePath::new(env!("CARGO_TARGET_TMPDIR"));
        let name = case.to_string().replace([',', ' ', '(', ')', '\''], "_");
        let file = directory.join(format!("kernel_tcp-{name}-{seed}.log"));
        std::fs::write(&file, &failure.log).unwrap();
        failures.lock().unwrap().push(format!(
            "{case}: {}\n  segments (> from us): {}\n  replay: RELIABLE_UDP_SEED_START={seed} \
             RELIABLE_UDP_KERNEL_CASE=\"{case}\" cargo test --release --all-features --test kernel_tcp",
            failure.what,
            file.display(),
        ));
    });
    let failures = failures.into_inner().unwrap();
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of {} failed\n{}",
        plan.len(),
        failures.join("\n")
    );
}

#[test]
fn bulk_arrives_whole() {
    run_all(&table::bulk());
}

#[test]
fn congestion_marks_are_echoed_and_answered() {
    run_all(&table::marks());
}

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    run_all(&table::half_close());
}

#[test]
fn a_reset_is_reported_by_the_other_side() {
    run_all(&table::reset());
}

#[test]
fn a_closed_window_opens_again() {
    run_all(&table::zero_window());
}

#[test]
fn crossing_syns_make_one_connection() {
    run_all(&table::simultaneous_open());
}

#[test]
fn connections_close_in_every_order() {
    run_all(&table::close());
}

#[test]
fn any_first_segment_may_be_lost() {
    run_all(&table::lost_by_ordinal());
}

#[test]
fn options_that_the_kernel_does_not_offer_are_not_used() {
    run_all(&table::offers());
}

#[test]
fn nobody_there_is_a_refusal() {
    if skips() {
        return;
    }
    for seed in seeds() {
        for opener in [Side::We, Side::Kernel] {
            for path in [Path::Clean, Path::Impaired] {
                let outcome = refused(opener, path, seed);
                assert_eq!(outcome, Ok(()), "{opener:?} {path:?}, seed {seed}");
            }
        }
    }
}

/// Prints a table of medians.
#[test]
#[ignore = "takes a quarter of an hour: .ci/long kernel-goodput"]
fn goodput_is_that_of_the_kernel() {
    assert!(!skips(), "nothing was compared");
    let ratios = goodput::compare();
    assert!(
        ratios.iter().all(|ratio| *ratio >= 0.95),
        "our goodput is below 0.95 of the kernel's: {ratios:?}"
    );
}
