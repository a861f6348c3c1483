//! Takes files from any number of clients at once and puts them below one directory.
//!
//! ```sh
//! cargo run --release --features copy,capture --example file_copy_server -- --listen 127.0.0.1:7777 --root incoming --once
//! ```
//!
//! Ends after the first client with `--once`, otherwise on Ctrl-C. `--help` lists the exit codes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use reliable_udp::Endpoint;
use reliable_udp::copy::{Receiver, ReceiverBuilder};
use tokio::task::JoinSet;

#[path = "file_copy/allow.rs"]
mod allow;
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
#[expect(dead_code, reason = "a client's has several sessions")]
mod progress;
#[path = "file_copy/recording.rs"]
mod recording;
#[path = "file_copy/secure.rs"]
#[expect(dead_code, reason = "knows the client's side too")]
mod secure;
#[path = "file_copy/session.rs"]
mod session;
#[path = "file_copy/stop.rs"]
#[expect(dead_code, reason = "a client goes on with the channel")]
mod stop;
#[path = "file_copy/summary.rs"]
#[expect(dead_code, reason = "a client shows more")]
mod summary;
#[path = "file_copy/tally.rs"]
#[expect(dead_code, reason = "a client's has several sessions")]
mod tally;
#[path = "file_copy/text.rs"]
mod text;
#[path = "file_copy/units.rs"]
mod units;

use exit::{Exit, Failure};
use output::Output;
use recording::{Recording, RecordingArgs};
use session::House;
use stop::Stop;

/// The service port that clients connect to when they name none.
const SERVICE_PORT: u16 = 1;

/// How long the clients' resets may take to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(200);

/// Takes files over reliable UDP and puts them below one directory.
#[derive(Debug, Parser)]
#[command(after_help = exit::HELP)]
struct Args {
    /// UDP address to listen on, such as 0.0.0.0:7777.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    #[command(flatten)]
    taking: TakeArgs,
    /// End after one client.
    #[arg(long)]
    once: bool,
    /// Seconds after which a silent client is given up.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    timeout: u64,
    /// Most clients at once; the others are told so, and may come again.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = max_connections)]
    max_connections: usize,
    #[command(flatten)]
    allowed: allow::Allowed,
    #[command(flatten)]
    security: secure::ServerArgs,
    #[command(flatten)]
    output: output::OutputArgs,
    #[command(flatten)]
    recording: RecordingArgs,
}

/// What is taken, and how carefully.
#[derive(Debug, clap::Args)]
struct TakeArgs {
    /// Directory below which everything is put; it must exist.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Replace nothing, whatever a client asks for.
    #[arg(long)]
    never_overwrite: bool,
    /// Most files, links and directories in one copy.
    #[arg(long, value_name = "N")]
    max_files: Option<u64>,
    /// Most bytes in one copy, such as 500M or 20Gi.
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    max_bytes: Option<u64>,
    /// Bytes of the disk that stay free, such as 1G.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = units::bytes)]
    min_free: u64,
    /// Read every write back at once, and repeat it until it reads as written: for a disk that lies.
    #[arg(long)]
    verify_writes: bool,
    /// Read back each byte until it had one value 2N + 1 times: for a disk that lies.
    #[arg(long, value_name = "N", default_value_t = 0)]
    read_votes: u8,
    /// Refuse names that another system could not keep or tell apart.
    #[arg(long)]
    portable_names: bool,
    /// Seconds without any progress after which a copy is broken off.
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stall_timeout: u64,
}

fn max_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(connections @ 1..=65_536) => Ok(connections),
        _ => Err("expected 1 to 65536".into()),
    }
}

impl TakeArgs {
    fn receiver(&self, patience: Duration) -> ReceiverBuilder {
        let mut builder = Receiver::builder(&self.root)
            .may_overwrite(!self.never_overwrite)
            .min_free_space(self.min_free)
            .verify_writes(self.verify_writes)
            .read_votes(self.read_votes)
            .portable_names(self.portable_names)
            .stall_timeout(Duration::from_secs(self.stall_timeout))
            .handshake_timeout(patience);
        if let Some(files) = self.max_files {
            builder = builder.max_files(files);
        }
        if let Some(bytes) = self.max_bytes {
            builder = builder.max_bytes(bytes);
        }
        builder
    }
}

async fn run(args: Args, recording: &Recording, output: &Output) -> Result<Exit, Failure> {
    let stop = Stop::listen().map_err(Failure::usage)?;
    let patience = Duration::from_secs(args.timeout);
    let security = args.security.open()?;
    let mut builder = args.taking.receiver(patience);
    if let Some(secret) = security.secret() {
        builder = builder.secret(secret.clone());
    }
    let receiver = builder
        .build()
        .map_err(|error| Failure::usage(text::chain(&error)))?;
    let config = link::config(patience, &link::CongestionArgs::default());
    let config = recording.observe(config.map_err(Failure::usage)?);
    let cannot_listen = |error: std::io::Error| {
        Failure::connection(format!("cannot listen on {}: {error}", args.listen))
    };
    let endpoint = Endpoint::bind(args.listen, config.map_err(Failure::usage)?)
        .await
        .map_err(cannot_listen)?;
    let listener = endpoint.listen(SERVICE_PORT).map_err(cannot_listen)?;
    greet(
        output,
        endpoint.local_addr().map_err(cannot_listen)?,
        &args,
        &security,
    );

    let house = House::new(
        receiver,
        security,
        args.allowed,
        args.max_connections,
        patience,
        output,
        &stop,
    );
    let mut clients = JoinSet::new();
    let mut exit = Exit::Complete;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, peer) = accepted.map_err(cannot_listen)?;
                clients.spawn(house.clone().serve(socket, peer));
            }
            Some(served) = clients.join_next() => {
                exit = exit.max(served.unwrap_or(Exit::Connection));
                if args.once {
                    break;
                }
            }
            () = stop.requested() => {
                exit = Exit::Interrupted;
                break;
            }
        }
    }
    // Each keeps what can be continued, and then ends by itself.
    drop(listener);
    while clients.join_next().await.is_some() {}
    let _ = endpoint.close(LEAVE_TIMEOUT).await;
    Ok(exit)
}

/// Says where it listens, and who may do what.
fn greet(output: &Output, address: SocketAddr, args: &Args, security: &secure::ServerSecurity) {
    let root = args.taking.root.display();
    output.say(format_args!("listening on {address}; below {root}"));
    if let Some(pin) = security.pin() {
        output.say(format_args!("certificate: --pin {pin}"));
    }
    output.event(|| {
        Some(serde_json::json!({
            "event": "listening",
            "address": address.to_string(),
            "pin": security.pin(),
        }))
    });
    let who = (!args.allowed.is_everybody()).then(|| args.allowed.to_string());
    if let Some(warning) = security.warning(who.as_deref(), &args.taking.root) {
        output.complain(format_args!("{warning}"));
    }
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
