//! What each congestion controller makes of published paths, in virtual time: a table of cases, each with its
//! bound.
//!
//! ```text
//! cargo test --release --all-features --test paths                    every case of the gate
//! cargo test --release --all-features --test paths -- fairness BBR    those whose names contain one of these
//! cargo test --release --all-features --test paths -- --include-ignored    the longer ones too
//! cargo test --release --all-features --test paths -- --markdown      for docs/PATHS.md
//! ```
//!
//! The last line and the exit status are those of any test. `RELIABLE_UDP_SEED_START` (0) is added to every
//! seed; `PATHS_TRACE=100` prints every 100 ms what the senders do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a table is printed, helpers of tests may unwrap as tests may, and counts of a test are small"
)]

mod cases;
mod report;
#[path = "../support/shared.rs"]
mod shared;

use std::any::Any;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Parser;

use report::{Case, Row, Style};

/// Runs the cases and prints the table; takes the options of a test binary too.
#[derive(Debug, Parser)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of a command line, independent of each other"
)]
struct Options {
    /// Only cases whose names contain one of these.
    filters: Vec<String>,
    /// Names have to be equal.
    #[arg(long)]
    exact: bool,
    /// Leaves out what contains this.
    #[arg(long)]
    skip: Vec<String>,
    /// Only the longer cases.
    #[arg(long)]
    ignored: bool,
    /// The longer cases too.
    #[arg(long)]
    include_ignored: bool,
    /// Lists the names.
    #[arg(long)]
    list: bool,
    /// Prints the table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// How many cases run at a time; as many as there are processors if not given.
    #[arg(long)]
    test_threads: Option<usize>,
    /// Of a test binary; means nothing here.
    #[arg(long)]
    nocapture: bool,
    /// Of a test binary; means nothing here.
    #[arg(long)]
    no_capture: bool,
    /// Of a test binary; means nothing here.
    #[arg(long)]
    show_output: bool,
    /// Of a test binary; means nothing here.
    #[arg(long, short)]
    quiet: bool,
    /// Of a test binary; means nothing here.
    #[arg(long)]
    format: Option<String>,
    /// Of a test binary; means nothing here.
    #[arg(long)]
    color: Option<String>,
}

impl Options {
    fn selects(&self, case: &Case) -> bool {
        let name = case.name();
        let is_named = |filter: &String| {
            if self.exact {
                name == *filter
            } else {
                name.contains(filter.as_str())
            }
        };
        let is_of_this_length = self.include_ignored || case.is_long == self.ignored;
        is_of_this_length
            && (self.filters.is_empty() || self.filters.iter().any(is_named))
            && !self.skip.iter().any(is_named)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let all = cases::all();
    if options.list {
        // A test runner asks for the names of the ignored ones apart from all names.
        for case in all.iter().filter(|case| case.is_long || !options.ignored) {
            println!("{}: test", case.name());
        }
        return ExitCode::SUCCESS;
    }
    let total = all.len();
    let chosen: Vec<Case> = all
        .into_iter()
        .filter(|case| options.selects(case))
        .collect();
    let seed = env::var("RELIABLE_UDP_SEED_START").ok();
    let seed = 1 + seed.and_then(|text| text.parse().ok()).unwrap_or(0);
    let threads = options
        .test_threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let results = run(&chosen, seed, threads);

    let style = if options.markdown {
        Style::Markdown
    } else {
        Style::Plain
    };
    let rows: Vec<(&Case, &Row)> = chosen
        .iter()
        .zip(&results)
        .flat_map(|(case, rows)| rows.iter().flatten().map(move |row| (case, row)))
        .collect();
    if !rows.is_empty() {
        print!("{}", report::table(&rows, style));
    }
    let mut failed = 0;
    for (case, rows) in chosen.iter().zip(&results) {
        let reason = match rows {
            Ok(rows) if rows.iter().all(Row::is_met) => continue,
            Ok(_) => "a bound is missed",
            Err(reason) => reason,
        };
        failed += 1;
        println!("FAILED {}, seed {seed}: {reason}", case.name());
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        total - chosen.len(),
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

/// Runs the cases, several at a time; a panic is a result too.
fn run(cases: &[Case], seed: u64, threads: usize) -> Vec<Result<Vec<Row>, String>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else {
                        break;
                    };
                    let rows = catch_unwind(AssertUnwindSafe(|| (case.run)(seed)));
                    let rows = rows.map_err(|panic| message(panic.as_ref()));
                    results.lock().unwrap().push((index, rows));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, rows)| rows).collect()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "panicked".to_owned())
}
