//! Takes files from any number of clients at once and puts them below one directory.
//!
//! ```sh
//! cargo run --release --features copy,capture --example file_copy_server -- --listen 127.0.0.1:7777 --root incoming --once
//! ```
//!
//! Ends after the first client with `--once`, otherwise on Ctrl-C. The exit code is 0 only if every
//! file of every client was verified.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reliable_udp::copy::Receiver;
use reliable_udp::{ReliableUdpListener, ReliableUdpSocket};
use tokio::task::JoinSet;

#[path = "file_copy/link.rs"]
#[expect(dead_code, reason = "closes the other side too")]
mod link;
#[path = "file_copy/recording.rs"]
#[expect(dead_code, reason = "waits for Ctrl-C itself")]
mod recording;
#[path = "file_copy/ui.rs"]
mod ui;

use recording::{Recording, RecordingArgs};

/// Takes files over reliable UDP and puts them below one directory.
#[derive(Debug, Parser)]
struct Args {
    /// UDP address to listen on, such as 0.0.0.0:7777.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Directory below which everything is put; it must exist.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// End after one client.
    #[arg(long)]
    once: bool,
    /// Seconds after which a silent client is given up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    #[command(flatten)]
    recording: RecordingArgs,
}

/// Serves one client; returns whether all its files were verified.
async fn serve(receiver: Receiver, mut socket: ReliableUdpSocket, peer: SocketAddr) -> bool {
    let label = format!("[{peer}]");
    let watch = ui::Stopwatch::start();
    let mut progress = ui::Progress::new(&label, None);
    let result = receiver
        .receive_with(&mut socket, move |event| progress.on_event(&event))
        .await;
    let elapsed = watch.elapsed();
    match result {
        Ok(report) => {
            let stats = socket.stats();
            ui::summarize(&label, &report, elapsed, &stats);
            if let Err(error) = link::close_last(socket).await {
                ui::complain(format_args!("{label} closing: {}", ui::chain(&error)));
            }
            report.is_complete()
        }
        Err(error) => {
            ui::complain(format_args!("{label} {}", ui::chain(&error)));
            false
        }
    }
}

/// Runs, and writes down what went over the wire however it ends.
async fn record(args: Args) -> Result<bool, Box<dyn std::error::Error>> {
    let recording = Recording::start(&args.recording)?;
    let outcome = run(args, &recording).await;
    recording.finish(outcome).await
}

async fn run(args: Args, recording: &Recording) -> Result<bool, Box<dyn std::error::Error>> {
    let patience = Duration::from_secs(args.timeout);
    let receiver = Receiver::builder(&args.root)
        .handshake_timeout(patience)
        .build()?;
    let config = recording.observe(link::config(patience)?)?;
    let listener = ReliableUdpListener::bind_with(args.listen, config)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    ui::say(format_args!(
        "listening on {}; whoever reaches it may write below {}",
        listener.local_addr()?,
        args.root.display()
    ));
    let mut clients = JoinSet::new();
    let mut is_complete = true;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, peer) = accepted?;
                if args.once {
                    return tokio::select! {
                        is_complete = serve(receiver, socket, peer) => Ok(is_complete),
                        stopped = tokio::signal::ctrl_c() => {
                            stopped?;
                            Ok(false)
                        }
                    };
                }
                clients.spawn(serve(receiver.clone(), socket, peer));
            }
            Some(served) = clients.join_next() => is_complete &= served?,
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                clients.abort_all();
                let is_cut = std::iter::from_fn(|| clients.try_join_next()).any(|end| end.is_err());
                return Ok(is_complete && !is_cut && clients.is_empty());
            }
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    match record(Args::parse()).await {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            ui::complain(format_args!("error: {}", ui::chain(&*error)));
            Ok(ExitCode::FAILURE)
        }
    }
}
