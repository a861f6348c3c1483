//! Sends files and directory trees to a `file_copy_server`.
//!
//! ```sh
//! cargo run --release --features copy,capture --example file_copy_client -- --to 127.0.0.1:7777 src README.md
//! ```
//!
//! The exit code is 0 only if every file was verified by the server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reliable_udp::ReliableUdpSocket;
use reliable_udp::copy::{Sender, survey};

#[path = "file_copy/link.rs"]
#[expect(dead_code, reason = "closes the other side too")]
mod link;
#[path = "file_copy/recording.rs"]
mod recording;
#[path = "file_copy/ui.rs"]
mod ui;

use recording::{Recording, RecordingArgs};

/// Sends files and directory trees over reliable UDP.
#[derive(Debug, Parser)]
struct Args {
    /// Server to send to, as HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// Seconds after which a silent server is given up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// Files and directories to send; each lands under its own last part and replaces what stands
    /// there. Symbolic links, devices and FIFOs are named and not sent, and make the exit code 1.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    recording: RecordingArgs,
}

/// Runs, and writes down what went over the wire however it ends.
async fn record(args: Args) -> Result<bool, Box<dyn std::error::Error>> {
    let recording = Recording::start(&args.recording)?;
    let outcome = tokio::select! {
        outcome = run(args, &recording) => outcome,
        error = recording::interrupted(&recording) => Err(error),
    };
    recording.finish(outcome).await
}

async fn run(args: Args, recording: &Recording) -> Result<bool, Box<dyn std::error::Error>> {
    let paths = args.paths.clone();
    let survey = tokio::task::spawn_blocking(move || survey(&paths)).await??;
    let patience = Duration::from_secs(args.timeout);
    let config = recording.observe(link::config(patience)?)?;
    let mut socket = ReliableUdpSocket::connect_with(&args.to, config)
        .await
        .map_err(|error| format!("cannot connect to {}: {}", args.to, ui::chain(&error)))?;

    let watch = ui::Stopwatch::start();
    let mut progress = ui::Progress::new(&args.to, Some(survey));
    let report = Sender::builder()
        .handshake_timeout(patience)
        .build()?
        .send_with(&mut socket, &args.paths, move |event| {
            progress.on_event(&event);
        })
        .await?;
    let elapsed = watch.elapsed();
    let stats = socket.stats();
    ui::summarize(
        format_args!("sent to {}", args.to),
        &report,
        elapsed,
        &stats,
    );
    link::close_first(socket).await;
    Ok(report.is_complete())
}

#[tokio::main]
async fn main() -> ExitCode {
    match record(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::complain(format_args!("error: {}", ui::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}
