//! Copies a tree across a bad link, both ends in one process, and checks the result by itself.
//!
//! ```sh
//! cargo run --release --features copy,capture,sim --example file_copy_demo
//! cargo run --release --features copy,capture,sim --example file_copy_demo -- \
//!     --size-mib 4 --loss 5% --duplicate 2% --reorder 5% --corrupt 1% --delay-ms 20
//! ```
//!
//! The exit code is 0 only if every file was verified and both trees are equal.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use reliable_udp::copy::{Receiver, Report, Sender, survey};
use reliable_udp::sim::{self, LinkConfig, Rng};
use reliable_udp::{ConnectionStats, Endpoint, ReliableUdpListener};

#[path = "file_copy/exit.rs"]
#[expect(dead_code, reason = "two codes will do")]
mod exit;
#[path = "file_copy/link.rs"]
#[expect(dead_code, reason = "nothing breaks off here")]
mod link;
#[path = "file_copy/output.rs"]
#[expect(dead_code, reason = "shows everything to people")]
mod output;
#[path = "file_copy/progress.rs"]
#[expect(dead_code, reason = "one session will do")]
mod progress;
#[path = "file_copy/recording.rs"]
mod recording;
#[path = "file_copy/summary.rs"]
#[expect(dead_code, reason = "a client shows more")]
mod summary;
#[path = "file_copy/tally.rs"]
#[expect(dead_code, reason = "one session will do")]
mod tally;
#[path = "file_copy/text.rs"]
mod text;
#[path = "file_copy/tree.rs"]
mod tree;

use exit::{Exit, Failure};
use output::{Output, OutputArgs};
use progress::Progress;
use recording::{Recording, RecordingArgs};
use summary::Stopwatch;
use tally::Tally;

/// Copies a tree across a simulated bad link and verifies it.
#[derive(Debug, Parser)]
struct Args {
    /// Copy this file or directory instead of a made-up tree.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Size of the made-up tree in MiB; half of it is one file.
    #[arg(long, value_name = "N", default_value_t = 64)]
    size_mib: u64,
    /// Files in the made-up tree.
    #[arg(long, value_name = "N", default_value_t = 400)]
    files: u64,
    /// Share of the datagrams that are lost, such as 0.01 or 1%.
    #[arg(long, value_name = "P", default_value = "1%", value_parser = share)]
    loss: f64,
    /// Share of the datagrams that arrive twice.
    #[arg(long, value_name = "P", default_value = "1%", value_parser = share)]
    duplicate: f64,
    /// Share of the datagrams that arrive late.
    #[arg(long, value_name = "P", default_value = "1%", value_parser = share)]
    reorder: f64,
    /// Share of the datagrams that have bits flipped.
    #[arg(long, value_name = "P", default_value = "0.1%", value_parser = share)]
    corrupt: f64,
    /// One-way delay in milliseconds.
    #[arg(long, value_name = "N", default_value_t = 2)]
    delay_ms: u64,
    /// Largest datagram in bytes of UDP payload; the default fits every path.
    #[arg(long, value_name = "N", default_value_t = 1_232)]
    datagram_size: usize,
    /// Seed of the link's dice and of the made-up tree.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    recording: RecordingArgs,
}

/// Reads `0.01` or `1%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let value = number
        .trim()
        .parse::<f64>()
        .map_err(|error| error.to_string())?
        / scale;
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err("must be from 0 to below 1; one percent is 0.01 or 1%".into())
    }
}

async fn receive(
    listener: ReliableUdpListener,
    root: PathBuf,
) -> Result<Report, Box<dyn Error + Send + Sync>> {
    let receiver = Receiver::builder(root).build()?;
    let (mut socket, _) = listener.accept().await?;
    let report = receiver.receive(&mut socket).await?;
    link::close_last(socket).await?;
    Ok(report)
}

async fn send(
    endpoint: &Endpoint,
    to: SocketAddr,
    path: &Path,
    output: &Output,
) -> Result<(Report, Tally, ConnectionStats), Box<dyn Error>> {
    let surveyed = path.to_path_buf();
    let survey = tokio::task::spawn_blocking(move || survey(&[surveyed])).await??;
    let mut progress = Progress::new(output, "copying", Some(survey));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let counted = Arc::clone(&tally);
    let mut socket = endpoint.connect(to).await?;
    let report = Sender::new()
        .send_with(&mut socket, [path], move |event| {
            let mut tally = counted.lock().unwrap_or_else(PoisonError::into_inner);
            tally.on_event(&event);
            progress.on_event(&event);
        })
        .await?;
    let stats = socket.stats();
    link::close_first(socket).await;
    let mut tally = *tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.end(Some(&report));
    Ok((report, tally, stats))
}

async fn run(args: Args, recording: &Recording) -> Result<bool, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let source = if let Some(path) = &args.path {
        let named = |error| format!("cannot copy {}: {error}", path.display());
        fs::canonicalize(path).map_err(named)?
    } else {
        let source = scratch.path().join("tree");
        let rng = Rng::new(args.seed);
        tree::make(&source, args.files, args.size_mib << 20, rng)?;
        source
    };
    let root = scratch.path().join("received");
    fs::create_dir(&root)?;

    let delay = Duration::from_millis(args.delay_ms);
    let impaired = LinkConfig::builder()
        .delay(delay)
        .loss(args.loss)
        .duplicate(args.duplicate)
        .reorder(args.reorder, delay.max(Duration::from_millis(1)))
        .corrupt(args.corrupt)
        .build()?;
    text::say(format_args!(
        "link: {:.1} % loss, {:.1} % duplication, {:.1} % reordering, {:.1} % corruption of datagrams \
         of up to {} bytes, {delay:?} one way",
        args.loss * 100.0,
        args.duplicate * 100.0,
        args.reorder * 100.0,
        args.corrupt * 100.0,
        args.datagram_size,
    ));
    let (near, far) = sim::pair(args.seed, impaired.clone(), impaired);
    let config = link::config(Duration::from_secs(30), &link::CongestionArgs::default())?
        .to_builder()
        .datagram_size(args.datagram_size)
        .build()?;
    // The sender's side: on the other one, each segment would be seen a second time.
    let observed = recording.observe(config.clone())?;
    let near = Endpoint::with_transport(Arc::new(near), observed)?;
    let far = Endpoint::with_transport(Arc::new(far), config)?;

    let watch = Stopwatch::start();
    let output = Output::new(OutputArgs::default());
    let receiving = tokio::spawn(receive(far.listen(1)?, root.clone()));
    let (report, tally, stats) = send(&near, far.local_addr()?, &source, &output).await?;
    let elapsed = watch.elapsed();
    let received = receiving.await?.map_err(|error| error as Box<dyn Error>)?;
    summary::print(&output, "copied", &tally, elapsed, Some(&stats));

    let name = source.file_name().ok_or("the source has no name")?;
    let differences = tree::differences(&source, &root.join(name))?;
    for path in &differences {
        text::complain(format_args!("differs: {}", path.display()));
    }
    let is_whole = report.is_complete() && received.is_complete() && differences.is_empty();
    if is_whole {
        let verified = report.totals.files_verified;
        text::say(format_args!(
            "all {verified} hashes verified; both trees are equal"
        ));
    } else {
        text::say(format_args!("the copy is NOT complete"));
    }
    Ok(is_whole)
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let work = async {
        let recording = Recording::start(&args.recording).map_err(Failure::usage)?;
        let outcome = tokio::select! {
            outcome = run(args, &recording) => {
                outcome.map_err(|error| Failure::connection(text::chain(&*error)))
            }
            // So that the recording is finished.
            signal = tokio::signal::ctrl_c() => {
                let exit = Exit::Interrupted;
                let words = signal.map_or_else(|error| error.to_string(), |()| "interrupted".into());
                Err(Failure { exit, words })
            }
        };
        recording.finish(outcome).await
    };
    match work.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            text::complain(format_args!("error: {}", failure.words));
            failure.exit.into()
        }
    }
}
