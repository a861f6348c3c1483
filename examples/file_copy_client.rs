//! Sends files and directory trees to one or more `file_copy_server`s at once.
//!
//! ```sh
//! cargo run --release --features copy,capture --example file_copy_client -- --to 127.0.0.1:7777 src README.md
//! cargo run --release --features copy,capture --example file_copy_client -- --addresses servers.txt src
//! ```
//!
//! A lost connection is made again, and the copy goes on where it was; so does another run of the same
//! command. `--help` lists the exit codes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reliable_udp::copy::{RateLimit, Sender, SenderBuilder, Source, survey};
use serde_json::Value;
use tokio::task::JoinSet;

#[path = "file_copy/distrust.rs"]
mod distrust;
#[path = "file_copy/exit.rs"]
mod exit;
#[path = "file_copy/json.rs"]
mod json;
#[path = "file_copy/link.rs"]
#[expect(dead_code, reason = "closes the other side too")]
mod link;
#[path = "file_copy/output.rs"]
mod output;
#[path = "file_copy/progress.rs"]
mod progress;
#[path = "file_copy/recording.rs"]
mod recording;
#[path = "file_copy/secure.rs"]
#[expect(dead_code, reason = "knows the server's side too")]
mod secure;
#[path = "file_copy/stop.rs"]
mod stop;
#[path = "file_copy/summary.rs"]
mod summary;
#[path = "file_copy/tally.rs"]
mod tally;
#[path = "file_copy/target.rs"]
mod target;
#[path = "file_copy/targets.rs"]
mod targets;
#[path = "file_copy/text.rs"]
mod text;
#[path = "file_copy/units.rs"]
mod units;

use exit::{Exit, Failure};
use output::Output;
use recording::{Recording, RecordingArgs};
use stop::Stop;
use summary::Stopwatch;
use tally::Tally;
use target::{Outcome, Plan};

/// Sends files and directory trees over reliable UDP.
#[derive(Debug, Parser)]
#[command(after_help = exit::HELP)]
struct Args {
    #[command(flatten)]
    targets: targets::TargetArgs,
    #[command(flatten)]
    copying: CopyArgs,
    /// Seconds after which a silent server is given up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// How often a lost connection is made again before a server is given up; what gets further starts the count
    /// anew.
    #[arg(long, value_name = "N", default_value_t = 3)]
    reconnects: u32,
    #[command(flatten)]
    congestion: link::CongestionArgs,
    #[command(flatten)]
    security: secure::ClientArgs,
    #[command(flatten)]
    output: output::OutputArgs,
    /// Print at the end what held each connection back.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    recording: RecordingArgs,
    /// Files and directories to send; each lands under its own last part. One that begins with `-` goes behind `--`.
    /// Links that lead out of their tree, devices, sockets and FIFOs are named, not sent, and make the exit code 1.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// What is copied, and how carefully.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct CopyArgs {
    /// Replace files that are there with other content.
    #[arg(long)]
    overwrite: bool,
    /// Do not keep modes and modification times.
    #[arg(long)]
    no_preserve: bool,
    /// Find files that are there already by their hash, and not by size and modification time.
    #[arg(long)]
    checksum: bool,
    /// Read again what an earlier copy left of a file before it goes on.
    #[arg(long)]
    recheck: bool,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Most bytes per second to all servers together, such as 500k or 10M (decimal; 1Mi is 1,048,576).
    #[arg(long, value_name = "RATE", value_parser = units::bytes)]
    limit_rate: Option<u64>,
    /// How often a file is sent whose check fails, or that changes meanwhile, before it is given up.
    #[arg(long, value_name = "N", default_value_t = 5)]
    attempts: u8,
    /// Read from a disk that lies: each byte until it had one value 2N + 1 times.
    #[arg(long, value_name = "N", default_value_t = 0)]
    read_votes: u8,
    /// Memory for what slow servers have yet to be sent; one that lags further behind has it read again.
    #[arg(long, value_name = "BYTES", default_value = "256Mi", value_parser = units::bytes)]
    cache: u64,
    /// Seconds without any progress after which a copy is broken off.
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stall_timeout: u64,
}

impl CopyArgs {
    fn sender(&self, patience: Duration) -> Result<SenderBuilder, Failure> {
        let mut builder = Sender::builder()
            .attempts(self.attempts)
            .overwrite(self.overwrite)
            .preserve(!self.no_preserve)
            .checksum(self.checksum)
            .recheck(self.recheck)
            .dry_run(self.dry_run)
            .stall_timeout(Duration::from_secs(self.stall_timeout))
            .handshake_timeout(patience);
        if let Some(rate) = self.limit_rate {
            builder = builder.rate_limit(RateLimit::new(rate).map_err(Failure::usage)?);
        }
        // What is wrong is found before anybody is connected to.
        builder.clone().build().map_err(Failure::usage)?;
        Ok(builder)
    }
}

async fn run(args: Args, recording: &Recording, output: &Output) -> Result<Exit, Failure> {
    let stop = Stop::listen().map_err(Failure::usage)?;
    let patience = Duration::from_secs(args.timeout);
    let targets = args.targets.list().map_err(Failure::usage)?;
    let config = link::config(patience, &args.congestion).map_err(Failure::usage)?;
    let source = Source::builder(&args.paths)
        .cache(args.copying.cache)
        .sessions(targets.len())
        .read_votes(args.copying.read_votes);
    let unreadable = |error| Failure::usage(text::chain(&error));
    let source = source.build().await.map_err(unreadable)?;
    let paths = args.paths.clone();
    let survey = tokio::task::spawn_blocking(move || survey(&paths));
    let survey = survey.await.map_err(Failure::usage)?.map_err(unreadable)?;
    let plan = Plan {
        sender: args.copying.sender(patience)?,
        source,
        survey,
        security: args.security.open()?,
        config: recording.observe(config).map_err(Failure::usage)?,
        patience,
        reconnects: args.reconnects,
        output: output.clone(),
        stop,
    };

    let clock = Stopwatch::start();
    let mut copies = JoinSet::new();
    for target in &targets {
        copies.spawn(target::copy(target.clone(), plan.clone()));
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = copies.join_next().await {
        let outcome = outcome.map_err(Failure::connection)?;
        show(output, &outcome, args.stats);
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| targets.iter().position(|target| *target == outcome.target));
    Ok(conclude(output, &outcomes, &plan.source, clock))
}

/// Shows how one target ended.
fn show(output: &Output, outcome: &Outcome, with_stats: bool) {
    let target = &outcome.target;
    if let Some(error) = &outcome.error {
        output.complain(format_args!("{target} {error}"));
    }
    summary::print(
        output,
        format_args!(
            "{}: {target}",
            sentence(outcome.exit, outcome.tally.planned > 0)
        ),
        &outcome.tally,
        outcome.elapsed,
        outcome.stats.as_ref(),
    );
    if let (true, Some(stats)) = (with_stats, &outcome.stats) {
        summary::print_stats(output, target, stats);
    }
}

fn sentence(exit: Exit, is_dry_run: bool) -> &'static str {
    match exit {
        Exit::Complete if is_dry_run => "nothing was sent, only asked",
        Exit::Complete => "everything is there",
        Exit::Incomplete => "sent, but not everything",
        Exit::Usage | Exit::Connection => "broken off",
        Exit::Refused => "refused",
        Exit::Interrupted => "interrupted",
    }
}

/// Shows what all targets together came to.
fn conclude(output: &Output, outcomes: &[Outcome], source: &Source, clock: Stopwatch) -> Exit {
    let mut sum = Tally::default();
    let mut exit = Exit::Complete;
    for outcome in outcomes {
        sum += outcome.tally;
        exit = exit.max(outcome.exit);
    }
    let elapsed = clock.elapsed();
    if outcomes.len() > 1 {
        let whole = outcomes.iter().filter(|o| o.exit == Exit::Complete).count();
        let label = format!(
            "together: {whole} of {} servers have everything",
            outcomes.len()
        );
        summary::print(output, label, &sum, elapsed, None);
    }
    output.say(format_args!(
        "read from disk: {} bytes",
        source.bytes_read()
    ));
    output.report(|| {
        serde_json::json!({
            "event": "report",
            "outcome": exit.word(),
            "exit": exit.number(),
            "seconds": elapsed.as_secs_f64(),
            "bytes_read": source.bytes_read(),
            "totals": json::sums(&sum),
            "targets": outcomes.iter().map(Outcome::json).collect::<Vec<Value>>(),
        })
    });
    exit
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.output);
    let work = async {
        let recording = Recording::start(&args.recording).map_err(Failure::usage)?;
        let outcome = run(args, &recording, &output).await;
        recording.finish(outcome).await
    };
    match work.await {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.complain(format_args!("error: {}", failure.words));
            failure.exit.into()
        }
    }
}
