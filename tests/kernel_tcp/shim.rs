//! The shim: swaps the kernel's IP for our UDP, and loses, delays, reorders and duplicates what passes.
//!
//! One thread per shim. Segments travel between its ports as they stand in our datagrams; a port to the
//! kernel adds and takes the IP header. Each direction has a [`Link`] of the simulator on real time,
//! and before it rules that look at what a segment is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use reliable_udp::Timestamp;
use reliable_udp::sim::{Link, LinkConfig, LinkStats, Rng};
use socket2::SockRef;
use tun_rs::SyncDevice;

use super::ip::{self, ACK, CE, CWR, ECE, FIN, RST, SYN, Summary};

/// Segments taken from one port before the other one and the clock are looked at.
const BATCH: usize = 64;
/// The longest nap, after which the order to stop is noticed.
const NAP: Duration = Duration::from_millis(20);
/// What a port to us can hold: never what loses a datagram.
const SOCKET_BUFFER: usize = 32 * 1024 * 1024;

/// Bytes of a full segment's payload.
const FULL: u32 = 1_448;

/// Where segments come from and go to.
pub enum Port {
    Kernel(SyncDevice),
    Ours {
        socket: UdpSocket,
        endpoint: SocketAddr,
    },
}

impl Port {
    /// A port to one of our endpoints, and the address that it has to the endpoint.
    pub fn to_endpoint(endpoint: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER))?;
        let addr = socket.local_addr()?;
        Ok((Self::Ours { socket, endpoint }, addr))
    }

    /// Takes the next segment, with its mark if it is the kernel's; `Ok(None)` for what is none of ours.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(Bytes, u8)>> {
        match self {
            Self::Kernel(device) => {
                let len = device.recv(buffer)?;
                let segment = ip::unwrap(&buffer[..len]).map_err(io::Error::other)?;
                Ok(segment.map(|(segment, mark)| (Bytes::from(segment), mark)))
            }
            Self::Ours { socket, endpoint } => {
                let (len, from) = socket.recv_from(buffer)?;
                let is_ours = from == *endpoint;
                Ok(is_ours.then(|| (Bytes::copy_from_slice(&buffer[..len]), 0)))
            }
        }
    }

    fn send(&self, segment: &[u8], mark: u8) -> io::Result<()> {
        match self {
            Self::Kernel(device) => {
                let packet = ip::wrap(segment, mark).map_err(io::Error::other)?;
                device.send(&packet).map(drop)
            }
            Self::Ours { socket, endpoint } => {
                if mark != 0 {
                    SockRef::from(socket).set_tos_v4(mark.into())?;
                }
                let outcome = socket.send_to(segment, endpoint).map(drop);
                if mark != 0 {
                    SockRef::from(socket).set_tos_v4(0)?;
                }
                outcome
            }
        }
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let fd = match self {
            Self::Kernel(device) => device.as_fd(),
            Self::Ours { socket, .. } => socket.as_fd(),
        };
        PollFd::new(fd, PollFlags::POLLIN)
    }
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Syn,
    SynAck,
    /// An ACK with nothing else.
    PureAck,
    Data,
    Fin,
}

impl Kind {
    fn fits(self, segment: &Summary) -> bool {
        let control = segment.flags & (SYN | FIN | RST | ACK);
        match self {
            Self::Syn => control == SYN,
            Self::SynAck => control == SYN | ACK,
            Self::PureAck => control == ACK && segment.payload == 0,
            Self::Data => segment.payload > 0,
            Self::Fin => segment.has(FIN),
        }
    }
}

/// Which segments of one direction are lost for what they are.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// The first one of a kind.
    First(Kind),
    /// Of the first transmissions of data each one with this probability: which ones is a function of
    /// the seed and of their ordinal number alone. Retransmissions are never lost.
    FirstTransmissions { seed: u64, probability: f64 },
    /// Nothing is lost; each so-many-th first transmission of data arrives with the mark "congestion experienced".
    Mark { every: u64 },
}

/// What happens in one direction.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    pub link: LinkConfig,
    pub rules: Vec<Rule>,
}

/// What one direction has carried, before anything was lost.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub syn: u64,
    pub reset: u64,
    /// Segments whose window has no room for a full segment.
    pub closed_window: u64,
    /// Segments with data that nothing had been sent of before.
    pub first_transmissions: u64,
    /// Segments with data that had been sent before.
    pub retransmissions: u64,
    pub lost_by_rule: u64,
    /// Segments that the kernel has marked ECT.
    pub ect: u64,
    /// Segments that a rule has marked.
    pub marked: u64,
    /// Segments with ECE, and with CWR, SYNs aside.
    pub echoes: u64,
    pub reductions: u64,
    pub link: LinkStats,
    /// What should never happen: wrong checksums, failed sends.
    pub faults: Vec<String>,
}

/// One direction at work.
struct Direction {
    link: Link,
    rules: Vec<(Rule, bool)>,
    highest: Option<u32>,
    /// What the windows that it announces are shifted by.
    window_scale: u8,
    counts: Counts,
}

impl Direction {
    fn new(lane: Lane, seed: u64) -> Self {
        Self {
            link: Link::new(seed, lane.link),
            rules: lane.rules.into_iter().map(|rule| (rule, false)).collect(),
            highest: None,
            window_scale: 0,
            counts: Counts::default(),
        }
    }

    /// Counts a segment; tells whether a rule loses it, and whether one marks it.
    fn note(&mut self, segment: &Summary, mark: u8) -> (bool, bool) {
        let counts = &mut self.counts;
        counts.syn += u64::from(Kind::Syn.fits(segment));
        counts.reset += u64::from(segment.has(RST));
        if segment.has(SYN) {
            self.window_scale = segment.window_scale().unwrap_or(0);
        } else if !segment.has(RST) {
            let window = u32::from(segment.window) << self.window_scale;
            counts.closed_window += u64::from(window < FULL);
        }
        if !segment.has(SYN) {
            counts.echoes += u64::from(segment.has(ECE));
            counts.reductions += u64::from(segment.has(CWR));
        }
        counts.ect += u64::from(mark != 0);
        let end = segment.end();
        let reach = |highest: u32| end.wrapping_sub(highest).cast_signed();
        let is_new = !segment.has(RST) && self.highest.is_none_or(|highest| reach(highest) > 0);
        if is_new {
            self.highest = Some(end);
        }
        let ordinal = counts.first_transmissions;
        if segment.payload > 0 {
            counts.first_transmissions += u64::from(is_new);
            counts.retransmissions += u64::from(!is_new);
        }
        let (mut is_lost, mut is_marked) = (false, false);
        for (rule, is_spent) in &mut self.rules {
            is_lost |= match *rule {
                Rule::First(kind) => {
                    let fits = !*is_spent && kind.fits(segment);
                    *is_spent |= fits;
                    fits
                }
                Rule::FirstTransmissions { seed, probability } => {
                    is_new && segment.payload > 0 && Rng::stream(seed, ordinal).chance(probability)
                }
                Rule::Mark { every } => {
                    is_marked |= is_new && segment.payload > 0 && ordinal % every == every - 1;
                    false
                }
            };
        }
        self.counts.lost_by_rule += u64::from(is_lost);
        self.counts.marked += u64::from(is_marked);
        (is_lost, is_marked)
    }
}

/// A line of the log.
struct Entry {
    at: Timestamp,
    from: usize,
    segment: Summary,
    fate: &'static str,
}

/// A running shim.
pub struct Shim {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<VecDeque<Entry>>>,
    thread: JoinHandle<[Counts; 2]>,
}

/// What a shim leaves behind: per port, what came in there.
pub struct Report {
    pub counts: [Counts; 2],
    pub log: String,
}

/// How a shim is to work.
pub struct Plan {
    /// From port 0 to port 1, and back.
    pub lanes: [Lane; 2],
    pub seed: u64,
    /// Segments of this kind are held until both sides have sent one.
    pub crossing: Option<Kind>,
    /// Segments that the log keeps.
    pub log: usize,
}

impl Shim {
    pub fn start(ports: [Port; 2], plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::default());
        let [first, second] = plan.lanes;
        let worker = Worker {
            ports,
            directions: [
                Direction::new(first, plan.seed),
                Direction::new(second, !plan.seed),
            ],
            origin: Instant::now(),
            waiting: BTreeMap::new(),
            accepted: 0,
            crossing: plan.crossing.map(|kind| (kind, [false; 2])),
            held: Vec::new(),
            stop: Arc::clone(&stop),
            log: Arc::clone(&log),
            log_limit: plan.log,
        };
        let thread = std::thread::spawn(move || worker.run());
        Self { stop, log, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::SeqCst);
        let counts = self.thread.join().unwrap();
        let mut log = String::new();
        for entry in self.log.lock().unwrap().iter() {
            let arrow = if entry.from == 0 { ">" } else { "<" };
            let (at, segment, fate) = (entry.at, &entry.segment, entry.fate);
            writeln!(log, "{at} {arrow} {segment}{fate}").unwrap();
        }
        Report { counts, log }
    }
}

struct Worker {
    ports: [Port; 2],
    /// By the port that segments come from.
    directions: [Direction; 2],
    origin: Instant,
    /// What is on its way: by time of arrival and order, with the port that it came from.
    waiting: BTreeMap<(Timestamp, u64), (usize, Bytes, u8)>,
    accepted: u64,
    /// Segments of a kind that are to cross, and which sides have sent one.
    crossing: Option<(Kind, [bool; 2])>,
    /// Those that wait for the other side's: how long they travel then, and the port that they came from.
    held: Vec<(Duration, usize, Bytes)>,
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<VecDeque<Entry>>>,
    log_limit: usize,
}

impl Worker {
    fn run(mut self) -> [Counts; 2] {
        let mut buffer = vec![0; 65_536];
        while !self.stop.load(Ordering::SeqCst) {
            self.deliver();
            for from in 0..2 {
                self.take_batch(from, &mut buffer);
            }
            self.wait();
        }
        self.directions.map(|direction| Counts {
            link: direction.link.stats(),
            ..direction.counts
        })
    }

    fn now(&self) -> Timestamp {
        let nanos = self.origin.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap())
    }

    fn deliver(&mut self) {
        let now = self.now();
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= now
        {
            let (from, segment, mark) = entry.remove();
            if let Err(error) = self.ports[1 - from].send(&segment, mark) {
                let counts = &mut self.directions[from].counts;
                counts.faults.push(format!("send: {error}"));
            }
        }
    }

    fn take_batch(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            match self.ports[from].receive(buffer) {
                Ok(Some((segment, mark))) => self.take(from, segment, mark),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    let counts = &mut self.directions[from].counts;
                    counts.faults.push(format!("receive: {error}"));
                    return;
                }
            }
        }
    }

    /// Tells whether a segment has to wait until one of the other side is on its way too.
    fn crosses(&mut self, now: Timestamp, from: usize, segment: &Summary) -> bool {
        let Some((kind, seen)) = &mut self.crossing else {
            return false;
        };
        if !kind.fits(segment) {
            return false;
        }
        seen[from] = true;
        if seen[1 - from] {
            for (delay, from, segment) in self.held.drain(..) {
                let key = (now + delay, self.accepted);
                self.waiting.insert(key, (from, segment, 0));
                self.accepted += 1;
            }
        }
        !seen[1 - from]
    }

    fn take(&mut self, from: usize, segment: Bytes, mark: u8) {
        let now = self.now();
        let summary = Summary::of(&segment);
        let is_held = self.crosses(now, from, &summary);
        let direction = &mut self.directions[from];
        let mut fate = "";
        let (is_lost, is_marked) = direction.note(&summary, mark);
        let mark = if is_marked { CE } else { mark };
        if is_lost {
            fate = " LOST BY RULE";
        } else {
            let before = direction.link.stats();
            let mut arrivals = 0;
            for delivery in direction.link.send(now, segment) {
                arrivals += 1;
                if is_held {
                    let delay = delivery.at.saturating_since(now);
                    self.held.push((delay, from, delivery.datagram));
                    continue;
                }
                let key = (delivery.at, self.accepted);
                self.waiting.insert(key, (from, delivery.datagram, mark));
                self.accepted += 1;
            }
            let is_late = direction.link.stats().reordered > before.reordered;
            fate = match arrivals {
                0 => " LOST",
                1 if is_late => " LATE",
                1 => fate,
                _ => " TWICE",
            };
        }
        if self.log_limit == 0 {
            return;
        }
        let mut log = self.log.lock().unwrap();
        if log.len() == self.log_limit {
            log.pop_front();
        }
        log.push_back(Entry {
            at: now,
            from,
            segment: summary,
            fate,
        });
    }

    /// Sleeps until something comes in or is due, to the precision of the system's timers.
    fn wait(&self) {
        let due = self.waiting.first_key_value().map(|(key, _)| key.0);
        let nap = due.map_or(NAP, |at| at.saturating_since(self.now()).min(NAP));
        let mut fds = [self.ports[0].poll_fd(), self.ports[1].poll_fd()];
        // Interrupted or not, what there is to do is looked at next.
        let _ = ppoll(&mut fds, Some(TimeSpec::from(nap)), None);
    }
}
