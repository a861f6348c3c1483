//! The command line, the order of the measurements, and the processes that they run in.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};

use crate::figures::{Figures, Settings, resident};
use crate::peer::Peer;
use crate::peer::kcp::Kcp;
use crate::peer::kernel::Kernel;
use crate::peer::ours::Ours;
use crate::peer::quinn::Quinn;
use crate::peer::s2n::S2n;
use crate::peer::utp::Utp;
use crate::table;
use crate::work::{Sides, connects, echo, goodput, idle, many, raw};

/// The load from which figures mean little.
const HIGH_LOAD: f64 = 0.5;

/// The program with an allocator that counts.
const COUNTED: &str = "counted";

/// reliable-udp beside its peers, in turns within one run.
#[derive(Parser)]
struct Arguments {
    /// Only these measurements.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Work>,

    /// Only these peers.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Contestant>,

    /// How often each peer is measured.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,

    /// How long one measurement takes; without it, 5 for connects and 2 for all others.
    #[arg(long)]
    seconds: Option<f64>,

    /// How many connections are idle (1,000 and 10,000 without it) or active (1,000).
    #[arg(long)]
    connections: Option<usize>,

    /// Print the table as Markdown.
    #[arg(long)]
    markdown: bool,

    /// Print everything that was measured, as JSON.
    #[arg(long)]
    json: bool,

    /// One measurement of one peer, in this process.
    #[arg(long, hide = true)]
    child: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Work {
    /// One connection, one direction.
    Goodput,
    /// Four connections, two in each direction.
    Several,
    /// Round trips of 64 bytes.
    Echo,
    /// Round trips of 64 KiB.
    EchoLong,
    /// Connect, a byte each way, close.
    Connects,
    /// Connections that do nothing.
    Idle,
    /// A thousand connections at once.
    Active,
}

impl Work {
    /// Segments held to a size make a difference.
    fn is_bulk(self) -> bool {
        matches!(self, Self::Goodput | Self::Several | Self::Active)
    }

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        name(self)
    }

    fn seconds(self) -> f64 {
        if self == Self::Connects { 5.0 } else { 2.0 }
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Contestant {
    Ours,
    OursFixed,
    Kernel,
    KernelFixed,
    Quinn,
    QuinnPlain,
    S2n,
    Kcp,
    Utp,
    Raw,
}

impl Contestant {
    fn name(self) -> String {
        name(self)
    }

    fn takes_part(self, work: Work) -> bool {
        match self {
            Self::OursFixed | Self::KernelFixed => work.is_bulk(),
            Self::Raw => work == Work::Goodput,
            _ => true,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "reliable-udp",
            Self::OursFixed => "reliable-udp, 1,452-byte datagrams",
            Self::Kernel => "kernel TCP",
            Self::KernelFixed => "kernel TCP, 1,428-byte segments",
            Self::Quinn => "quinn",
            Self::QuinnPlain => "quinn without encryption",
            Self::S2n => "s2n-quic",
            Self::Kcp => "tokio_kcp",
            Self::Utp => "librqbit-utp",
            Self::Raw => "raw UDP, GSO and GRO, 1,452 bytes",
        }
    }
}

/// All figures of one measurement of one contestant, in the order of the repetitions.
pub(crate) type Samples = BTreeMap<(Work, Contestant), BTreeMap<String, Vec<f64>>>;

/// Runs the program.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    if arguments.child {
        let (Some(&work), Some(&contestant)) = (arguments.only.first(), arguments.peers.first())
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let settings = Settings {
            seconds: arguments.seconds.unwrap_or(work.seconds()),
            connections: arguments.connections,
        };
        let mut figures = measure(work, contestant, settings)?;
        // What was divided by nothing is no figure.
        figures.retain(|_, value| value.is_finite());
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    warn_of_load();
    let samples = interleave(arguments)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        table::json(&mut out, &samples)
    } else {
        table::print(&mut out, &samples, arguments.markdown)
    }
}

/// Round robin over the contestants, so that whatever changes while it runs meets all of them.
fn interleave(arguments: &Arguments) -> io::Result<Samples> {
    let mut samples = Samples::new();
    for &work in chosen(&arguments.only) {
        for repetition in 1..=arguments.repetitions {
            for &contestant in chosen(&arguments.peers) {
                if !contestant.takes_part(work) {
                    continue;
                }
                eprint!(
                    "\r\x1b[K{} {repetition}: {}",
                    work.name(),
                    contestant.title()
                );
                io::stderr().flush()?;
                match in_a_process(work, contestant, arguments) {
                    Ok(figures) => {
                        let samples = samples.entry((work, contestant)).or_default();
                        for (name, value) in figures {
                            samples.entry(name).or_default().push(value);
                        }
                    }
                    Err(error) => {
                        eprintln!("\r\x1b[K{} of {}: {error}", work.name(), contestant.title())
                    }
                }
            }
        }
    }
    eprint!("\r\x1b[K");
    Ok(samples)
}

fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// What was chosen, or everything.
fn chosen<T: ValueEnum>(of: &[T]) -> &[T] {
    if of.is_empty() {
        T::value_variants()
    } else {
        of
    }
}

fn in_a_process(work: Work, contestant: Contestant, arguments: &Arguments) -> io::Result<Figures> {
    let mut program = env::current_exe()?;
    let counted = program.with_file_name(COUNTED);
    if work == Work::Idle && counted.exists() {
        program = counted;
    }
    let mut command = Command::new(program);
    command
        .arg("--child")
        .args(["--only", &work.name()])
        .args(["--peers", &contestant.name()])
        .stderr(Stdio::inherit());
    if let Some(seconds) = arguments.seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(connections) = arguments.connections {
        command.args(["--connections", &connections.to_string()]);
    }
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(output.status.to_string()));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(work: Work, contestant: Contestant, settings: Settings) -> io::Result<Figures> {
    let sides = Sides::new(settings)?;
    let measured = match contestant {
        Contestant::Ours => with(&Ours { datagram: None }, work, &sides),
        Contestant::OursFixed => with(
            &Ours {
                datagram: Some(1_452),
            },
            work,
            &sides,
        ),
        Contestant::Kernel => with(&Kernel { segment: None }, work, &sides),
        Contestant::KernelFixed => with(
            &Kernel {
                segment: Some(1_428),
            },
            work,
            &sides,
        ),
        Contestant::Quinn => with(&Quinn::encrypted()?, work, &sides),
        Contestant::QuinnPlain => with(&Quinn::plain(), work, &sides),
        Contestant::S2n => with(&S2n::new()?, work, &sides),
        Contestant::Kcp => with(&Kcp, work, &sides),
        Contestant::Utp => with(&Utp, work, &sides),
        Contestant::Raw if work == Work::Goodput => raw::goodput(&sides),
        Contestant::Raw => Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut figures = measured?;
    figures.insert("peak_mib".to_owned(), resident()?.0 / f64::from(1 << 20));
    sides.end();
    Ok(figures)
}

fn with<P: Peer>(peer: &P, work: Work, sides: &Sides) -> io::Result<Figures> {
    match work {
        Work::Goodput => goodput::measure(peer, sides),
        Work::Several => many::several(peer, sides),
        Work::Echo => echo::short(peer, sides),
        Work::EchoLong => echo::long(peer, sides),
        Work::Connects => connects::measure(peer, sides),
        Work::Idle => idle::measure(peer, sides),
        Work::Active => many::active(peer, sides),
    }
}

fn warn_of_load() {
    let load = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(load) = load
        && load > HIGH_LOAD
    {
        eprintln!("peers: the load is {load}: what else runs here spoils the figures");
    }
}
