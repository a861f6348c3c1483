//! One case: a script for each side, a path between them, and what has to come of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use reliable_udp::sim::LinkConfig;
use reliable_udp::{Config, Endpoint};

use super::kernel::Opening;
use super::namespace::{self, Offers};
use super::script::{Ending, Script, Side};
use super::shim::{Counts, Kind, Lane, Plan, Port, Report, Rule, Shim};
use super::{kernel, ours};

/// The port that is listened on or, in a simultaneous open, connected from and to.
const PORT: u16 = 7;
/// After this a case hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Segments of the log that a failure shows.
const LOG: usize = 20_000;

/// Who opens the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    One(Side),
    Both,
}

impl Opener {
    /// What `side` does.
    fn opening(self, side: Side) -> Opening {
        match self {
            Self::One(opener) if opener == side => Opening::Connect,
            Self::One(_) => Opening::Accept,
            Self::Both => Opening::Both,
        }
    }
}

/// What the path does to segments, in both directions alike unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Clean,
    Lossy,
    Reordering,
    Duplicating,
    /// All three.
    Impaired,
    /// Some segments with data arrive with the mark "congestion experienced".
    Marking,
    /// The first segment of a kind is lost that this side sends.
    Without(Kind, Side),
    /// The first one that either side sends.
    WithoutBoth(Kind),
}

impl Path {
    /// One way.
    const DELAY: Duration = Duration::from_millis(2);
    /// A segment on a detour comes behind those sent up to this much later.
    const LATENESS: Duration = Duration::from_millis(6);

    /// From us to the kernel, and back.
    fn lanes(self) -> [Lane; 2] {
        let is = |path| self == path || self == Self::Impaired;
        let mut link = LinkConfig::builder().delay(Self::DELAY);
        if is(Self::Lossy) {
            link = link.loss(0.03);
        }
        if is(Self::Reordering) {
            link = link.reorder(0.05, Self::LATENESS);
        }
        if is(Self::Duplicating) {
            link = link.duplicate(0.03);
        }
        let link = link.build().unwrap();
        [Side::We, Side::Kernel].map(|side| {
            let rule = match self {
                Self::Without(kind, sender) if sender == side => Some(Rule::First(kind)),
                Self::WithoutBoth(kind) => Some(Rule::First(kind)),
                Self::Marking => Some(Rule::Mark { every: 50 }),
                _ => None,
            };
            let rules = rule.into_iter().collect();
            let link = link.clone();
            Lane { link, rules }
        })
    }

    /// What has to have happened to segments of which there were many.
    fn check(self, sent: &Counts) -> Result<(), String> {
        let link = &sent.link;
        let is = |path| self == path || self == Self::Impaired;
        let happened = [
            ("lost", is(Self::Lossy), link.lost_random),
            ("late", is(Self::Reordering), link.reordered),
            ("doubled", is(Self::Duplicating), link.duplicated),
        ];
        match happened
            .iter()
            .find(|(_, wanted, count)| *wanted && *count == 0)
        {
            Some((what, ..)) if link.sent > 300 => Err(format!("no segment was {what}")),
            _ => Ok(()),
        }
    }
}

/// What both sides do, and what has to come of it.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub ours: Script,
    pub kernel: Script,
    /// Segments of this kind cross on their way.
    pub crossing: Option<Kind>,
    /// Whose window closes.
    pub closed_window: Option<Side>,
    /// Which sides end in TIME-WAIT, where that is certain: we, the kernel.
    pub time_wait: Option<[bool; 2]>,
}

impl Scenario {
    pub fn new(name: &'static str, ours: Script, kernel: Script) -> Self {
        Self {
            name,
            ours,
            kernel,
            crossing: None,
            closed_window: None,
            time_wait: None,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Case {
    pub scenario: Scenario,
    pub opener: Opener,
    pub path: Path,
    pub congestion: &'static str,
    pub offers: Offers,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opener = match self.opener {
            Opener::One(Side::We) => "we connect",
            Opener::One(Side::Kernel) => "kernel connects",
            Opener::Both => "both connect",
        };
        let (name, path, congestion) = (self.scenario.name, self.path, self.congestion);
        write!(f, "{name}, {opener}, {path:?}, {congestion}")?;
        match self.offers {
            Offers::Everything => Ok(()),
            less => write!(f, ", {less:?}"),
        }
    }
}

/// Why a case failed, and what passed on the wire before.
pub struct Failure {
    pub what: String,
    pub log: String,
}

/// The kernel's side at work: waits for `go` once the device is handed over.
struct KernelSide {
    go: mpsc::Sender<()>,
    /// How many of its sockets ended in TIME-WAIT.
    outcome: Receiver<Result<usize, String>>,
}

impl KernelSide {
    fn start(case: &Case) -> Result<(Self, tun_rs::SyncDevice), String> {
        let (go, gone) = mpsc::channel();
        let (hand_over, device) = mpsc::channel();
        let (tell, outcome) = mpsc::channel();
        let case = case.clone();
        std::thread::spawn(move || {
            let run = || {
                let device = namespace::enter(case.offers).map_err(|e| e.to_string())?;
                let opener = kernel::Opener::new(
                    case.opener.opening(Side::Kernel),
                    PORT,
                    case.congestion,
                    case.scenario.kernel.receive_buffer,
                );
                let opener = opener.map_err(|error| format!("kernel's socket: {error}"))?;
                hand_over.send(device).map_err(|e| e.to_string())?;
                gone.recv().map_err(|error| error.to_string())?;
                let stream = opener.open(PATIENCE);
                let stream = stream.map_err(|error| format!("kernel's opening: {error}"))?;
                kernel::play(stream, &case.scenario.kernel)?;
                namespace::settle(PATIENCE)
            };
            let _ = tell.send(run());
        });
        match device.recv() {
            Ok(device) => Ok((Self { go, outcome }, device)),
            Err(_) => Err(outcome.recv().unwrap().unwrap_err()),
        }
    }
}

impl Case {
    /// Runs it; `seed` decides what the path does.
    pub fn run(&self, seed: u64) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(self.run_in_runtime(seed));
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    }

    fn config(&self) -> Config {
        let mut config = Config::builder().linger(PATIENCE);
        if let Some(bytes) = self.scenario.ours.receive_buffer {
            config = config.receive_buffer(bytes);
        }
        config.build().unwrap()
    }

    async fn run_in_runtime(&self, seed: u64) -> Result<(), Failure> {
        let without_log = |what: String| Failure {
            what,
            log: String::new(),
        };
        let endpoint = Endpoint::bind("127.0.0.1:0", self.config()).await.unwrap();
        let (port, addr) = Port::to_endpoint(endpoint.local_addr().unwrap()).unwrap();
        let (kernel, device) = KernelSide::start(self).map_err(without_log)?;
        let plan = Plan {
            lanes: self.path.lanes(),
            seed,
            crossing: self.scenario.crossing,
            log: LOG,
        };
        let shim = Shim::start([port, Port::Kernel(device)], plan);
        let outcome = self.play(&endpoint, addr, kernel).await;
        let report = shim.stop();
        outcome
            .and_then(|time_wait| self.check(time_wait, &report))
            .map_err(|what| Failure {
                what,
                log: report.log,
            })
    }

    /// Runs both sides to their end; returns how many connections are in TIME-WAIT: ours, the kernel's.
    async fn play(
        &self,
        endpoint: &Endpoint,
        addr: SocketAddr,
        kernel: KernelSide,
    ) -> Result<[usize; 2], String> {
        let opening = self.opener.opening(Side::We);
        let opener = ours::Opener::new(endpoint, opening, PORT).unwrap();
        kernel.go.send(()).unwrap();
        let ours = async {
            let opened = opener.open(endpoint, addr, PORT, self.config()).await;
            let socket = opened.map_err(|error| format!("our opening: {error}"))?;
            ours::play(socket, &self.scenario.ours).await
        };
        let ours = tokio::time::timeout(PATIENCE, ours).await;
        let ours = ours.unwrap_or_else(|_| Err("our side hangs".to_owned()));
        let outcome = kernel.outcome;
        let theirs = tokio::task::spawn_blocking(move || {
            // If we have failed, there is nothing to wait for but what the kernel has already said.
            let patience = if ours.is_ok() {
                PATIENCE
            } else {
                Duration::from_millis(100)
            };
            let theirs = outcome.recv_timeout(patience);
            let theirs = theirs.unwrap_or_else(|_| Err("the kernel's side hangs".to_owned()));
            match (ours, theirs) {
                (Ok(()), theirs) => theirs,
                (Err(ours), Ok(_)) => Err(ours),
                (Err(ours), Err(theirs)) => Err(format!("{ours}; {theirs}")),
            }
        });
        let theirs = theirs.await.unwrap()?;
        Ok([ours::settle(endpoint, PATIENCE).await?, theirs])
    }

    fn check(&self, time_wait: [usize; 2], report: &Report) -> Result<(), String> {
        let sides = [
            (Side::We, &self.scenario.ours),
            (Side::Kernel, &self.scenario.kernel),
        ];
        if self.path == Path::Marking {
            check_marks(&report.counts)?;
        }
        for ((side, script), counts) in sides.into_iter().zip(&report.counts) {
            if let Some(fault) = counts.faults.first() {
                return Err(format!("shim, from {side:?}: {fault}"));
            }
            self.path.check(counts)?;
            if self.scenario.closed_window == Some(side) && counts.closed_window == 0 {
                return Err(format!("{side:?}: the window never closed"));
            }
            if script.ending == Ending::Abort && counts.reset == 0 {
                return Err(format!("{side:?}: no RST from the side that aborts"));
            }
            if self.opener == Opener::Both && counts.syn == 0 {
                return Err(format!("{side:?}: no SYN in a simultaneous open"));
            }
            let loses = match self.path {
                Path::Without(_, sender) => sender == side,
                Path::WithoutBoth(_) => true,
                _ => false,
            };
            // On a busy machine the kernel's SYN and its answer to ours reach us together; then we have no
            // SYN-ACK to send.
            let may_be_left_out = self.opener == Opener::Both
                && side == Side::We
                && matches!(
                    self.path,
                    Path::Without(Kind::SynAck, _) | Path::WithoutBoth(Kind::SynAck)
                );
            let least = u64::from(!may_be_left_out);
            if loses && !(least..=1).contains(&counts.lost_by_rule) {
                return Err(format!("{side:?}: the segment to lose never came"));
            }
        }
        let Some(mut wanted) = self.scenario.time_wait else {
            return Ok(());
        };
        let ended = time_wait.map(|connections| connections > 0);
        // An ACK that comes again when we are through is answered by RST, as RFC 9293 §3.10.7.1 wants
        // it, and the kernel lets a RST end TIME-WAIT (RFC 1337).
        wanted[1] &= self.path == Path::Clean || ended[1];
        if ended == wanted {
            Ok(())
        } else {
            Err(format!(
                "in TIME-WAIT (we, kernel): {ended:?}, not {wanted:?}"
            ))
        }
    }
}

/// Every direction in which something was marked has CWR in it, and the other one echoes; nothing else does.
fn check_marks(counts: &[Counts; 2]) -> Result<(), String> {
    let mut is_any = false;
    for (side, way, back) in [
        (Side::We, &counts[0], &counts[1]),
        (Side::Kernel, &counts[1], &counts[0]),
    ] {
        is_any |= way.marked > 0;
        let wanted = way.marked > 0;
        let seen = (back.echoes > 0, way.reductions > 0);
        if seen != (wanted, wanted) {
            let (marked, echoes, reductions) = (way.marked, back.echoes, way.reductions);
            return Err(format!(
                "{side:?}: {marked} segments marked, {echoes} echoes, {reductions} with CWR"
            ));
        }
    }
    if counts[1].first_transmissions > 50 && counts[1].ect == 0 {
        return Err("the kernel has not marked its segments ECT".to_owned());
    }
    if is_any {
        Ok(())
    } else {
        Err("nothing was marked".to_owned())
    }
}

/// Connects to a port that nobody listens on: both sides find out, with the path at its worst.
pub fn refused(opener: Side, path: Path, seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::bind("127.0.0.1:0", Config::default())
            .await
            .unwrap();
        let (port, addr) = Port::to_endpoint(endpoint.local_addr().unwrap()).unwrap();
        let (hand_over, device) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let theirs = std::thread::spawn(move || {
            hand_over
                .send(namespace::enter(Offers::Everything).unwrap())
                .unwrap();
            gone.recv().unwrap();
            (opener == Side::Kernel).then(|| {
                let connect = kernel::Opener::new(Opening::Connect, PORT, "cubic", None).unwrap();
                connect.open(PATIENCE).map(drop)
            })
        });
        let plan = Plan {
            lanes: path.lanes(),
            seed,
            crossing: None,
            log: LOG,
        };
        let shim = Shim::start([port, Port::Kernel(device.recv().unwrap())], plan);
        let outcome = if opener == Side::We {
            let connect = endpoint.connect_with(addr, PORT, Config::default());
            let outcome = tokio::time::timeout(PATIENCE, connect).await;
            let outcome = outcome.map_err(std::io::Error::from).flatten().map(drop);
            go.send(()).unwrap();
            theirs.join().unwrap();
            outcome
        } else {
            go.send(()).unwrap();
            let theirs = tokio::task::spawn_blocking(|| theirs.join().unwrap());
            theirs.await.unwrap().unwrap()
        };
        shim.stop();
        match outcome {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{opener:?}: {other:?} instead of a refusal")),
        }
    })
}
