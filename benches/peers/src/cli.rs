//! The command line, the order of the measurements, and the processes that they run in.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};

use crate::figures::{Figures, Settings, resident};
use crate::peer::Peer;
use crate::peer::kernel::Kernel;
use crate::peer::ours::Ours;
use crate::peer::quinn::Quinn;
use crate::table;
use crate::work::{Sides, goodput, raw};

/// The load from which figures mean little.
const HIGH_LOAD: f64 = 0.5;

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

    /// How long one measurement takes.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

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
    Goodput,
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
    Raw,
}

impl Contestant {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "reliable-udp",
            Self::OursFixed => "reliable-udp, 1,452-byte datagrams",
            Self::Kernel => "kernel TCP",
            Self::KernelFixed => "kernel TCP, 1,428-byte segments",
            Self::Quinn => "quinn",
            Self::QuinnPlain => "quinn without encryption",
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
            seconds: arguments.seconds,
        };
        let figures = measure(work, contestant, settings)?;
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
                eprint!("\r\x1b[K{work:?} {repetition}: {}", contestant.title());
                io::stderr().flush()?;
                match in_a_process(work, contestant, arguments) {
                    Ok(figures) => {
                        let samples = samples.entry((work, contestant)).or_default();
                        for (name, value) in figures {
                            samples.entry(name).or_default().push(value);
                        }
                    }
                    Err(error) => eprintln!("\r\x1b[K{work:?} of {}: {error}", contestant.title()),
                }
            }
        }
    }
    eprint!("\r\x1b[K");
    Ok(samples)
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
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    };
    let output = Command::new(env::current_exe()?)
        .arg("--child")
        .args(["--only", &name(&|| work.to_possible_value())])
        .args(["--peers", &name(&|| contestant.to_possible_value())])
        .args(["--seconds", &arguments.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
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
        Contestant::Raw => raw::goodput(&sides),
    };
    let mut figures = measured?;
    figures.insert("peak_mib".to_owned(), resident()?.0 / f64::from(1 << 20));
    sides.end();
    Ok(figures)
}

fn with<P: Peer>(peer: &P, work: Work, sides: &Sides) -> io::Result<Figures> {
    match work {
        Work::Goodput => goodput::measure(peer, sides),
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
