//! In-memory datagram transports on tokio's clock: a pair, or a network of many.
//!
//! A datagram goes through its sender's uplink when it is sent and through its receiver's downlink
//! when it gets there; both are [`Link`]s. It waits in the receiver's inbox, which keeps what is
//! still on its way ordered by time: no task of its own is needed, the receiver sleeps until the next
//! arrival. Over links that do nothing no clock is read and no timer armed, and a train of equal
//! datagrams (GSO) travels whole, in one piece of memory.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::task::coop;

use crate::driver::{DatagramTransport, RecvBuffer, RecvMeta, Transmit};
use crate::endpoint::Ecn;
use crate::sim::clock::{Alarm, LazyClock};
use crate::sim::link::{Link, LinkConfig, LinkQueue, LinkStats};
use crate::sim::schedule::Schedule;
use crate::timestamp::Timestamp;

/// Bytes that wait unread before a pair's clean direction holds its sender back: few enough to stay
/// in a processor's cache.
const HOLD_BACK: usize = 1024 * 1024;
/// Bytes that wait unread before further ones are dropped, as by a socket's receive buffer.
const INBOX_LIMIT: usize = 16 * 1024 * 1024;
/// Bytes on their way to one receiver before further ones are dropped: a bound on memory only.
const TRANSIT_LIMIT: usize = 256 * 1024 * 1024;
/// Datagrams in a train, as with Linux's GSO.
const MAX_SEGMENTS: usize = 64;
/// Largest datagram, as with UDP over IPv4.
const MAX_DATAGRAM: usize = 65_507;

/// Makes two connected in-memory transports, 192.0.2.1:1 and 192.0.2.2:1.
///
/// A direction whose configuration does nothing loses nothing either: its sender waits while the
/// receiver has 1 MiB unread. Otherwise datagrams that find 16 MiB unread are dropped.
///
/// ```
/// use reliable_udp::sim::{self, LinkConfig};
///
/// # fn main() -> Result<(), reliable_udp::ConfigError> {
/// let lossy = LinkConfig::builder().loss(0.05).build()?;
/// let (a, b) = sim::pair(7, lossy, LinkConfig::default());
/// # let _ = (a, b);
/// # Ok(())
/// # }
/// ```
pub fn pair(seed: u64, a_to_b: LinkConfig, b_to_a: LinkConfig) -> (SimTransport, SimTransport) {
    let network = SimNetwork::with_hold_back(seed, true);
    let addr = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 1);
    let a = network.attach(addr(1), a_to_b, LinkConfig::default());
    let b = network.attach(addr(2), b_to_a, LinkConfig::default());
    (a, b)
}

/// A simulated network to which transports are attached by address.
///
/// Datagrams to an address that is not attached vanish. Datagrams that find 16 MiB unread at their
/// receiver are dropped.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    holds_back: bool,
    clock: LazyClock,
    ports: RwLock<Ports>,
}

#[derive(Debug, Default)]
struct Ports {
    by_addr: HashMap<SocketAddr, Arc<Port>>,
    attached: u64,
}

impl SimNetwork {
    /// Makes an empty network; the links of what is attached draw from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_hold_back(seed, false)
    }

    fn with_hold_back(seed: u64, holds_back: bool) -> Self {
        let shared = Shared {
            seed,
            holds_back,
            clock: LazyClock::default(),
            ports: RwLock::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Attaches a transport under `addr`: what it sends passes `up`, what it receives `down`. An
    /// address that is already attached passes to the new transport. Dropping the transport detaches it.
    pub fn attach(&self, addr: SocketAddr, up: LinkConfig, down: LinkConfig) -> SimTransport {
        let mut ports = self.shared.write_ports();
        let number = ports.attached;
        ports.attached += 1;
        let down = Link::new(self.shared.seed ^ (2 * number + 1), down);
        let port = Arc::new(Port {
            inbox: Mutex::new(Inbox::new(down)),
        });
        ports.by_addr.insert(addr, Arc::clone(&port));
        SimTransport {
            shared: Arc::clone(&self.shared),
            port,
            addr,
            outside: Mutex::new(addr),
            up: Mutex::new(Link::new(self.shared.seed ^ (2 * number), up)),
        }
    }
}

impl Shared {
    fn write_ports(&self) -> std::sync::RwLockWriteGuard<'_, Ports> {
        self.ports.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn port(&self, addr: SocketAddr) -> Option<Arc<Port>> {
        let ports = self.ports.read().unwrap_or_else(PoisonError::into_inner);
        ports.by_addr.get(&addr).map(Arc::clone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An in-memory [`DatagramTransport`], made by [`pair`] or [`SimNetwork::attach`].
#[derive(Debug)]
pub struct SimTransport {
    shared: Arc<Shared>,
    port: Arc<Port>,
    addr: SocketAddr,
    outside: Mutex<SocketAddr>,
    up: Mutex<Link>,
}

/// The receiving end of a transport.
#[derive(Debug)]
struct Port {
    inbox: Mutex<Inbox>,
}

/// Datagrams of equal size, but for the last, that travel together.
#[derive(Debug)]
struct Train {
    from: SocketAddr,
    ecn: Option<Ecn>,
    bytes: Bytes,
    stride: usize,
}

/// Where a train that has not arrived will be next.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// At the entrance of the receiver's downlink.
    Downlink,
    /// At the receiver.
    Arrival,
}

/// What waits at a receiver or is on its way to it.
///
/// Invariants: `waiting_bytes` and `transit_bytes` are the lengths of `waiting` and `transit`; a
/// sender in `held_back` was told to wait when `waiting_bytes` was at least [`HOLD_BACK`].
#[derive(Debug)]
struct Inbox {
    waiting: VecDeque<Train>,
    waiting_bytes: usize,
    transit: Schedule<(Stage, Train)>,
    transit_bytes: usize,
    down: Link,
    alarm: Alarm,
    reader: Option<Waker>,
    /// When the reader wakes by itself.
    wakes_at: Option<Timestamp>,
    held_back: VecDeque<Waker>,
    overflows: u64,
}

impl Inbox {
    fn new(down: Link) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            transit: Schedule::new(),
            transit_bytes: 0,
            down,
            alarm: Alarm::default(),
            reader: None,
            wakes_at: None,
            held_back: VecDeque::new(),
            overflows: 0,
        }
    }

    /// Takes in what leaves its sender's uplink at `at`.
    fn put(&mut self, now: Timestamp, at: Timestamp, train: Train) {
        if !self.down.config().is_transparent() {
            self.put_transit(at, Stage::Downlink, train);
        } else if at <= now && self.transit.is_empty() {
            self.put_waiting(train);
        } else {
            self.put_transit(at, Stage::Arrival, train);
        }
    }

    /// Remembers a sender that found too much unread.
    fn hold_back(&mut self, waker: &Waker) {
        if !self.held_back.iter().any(|held| held.will_wake(waker)) {
            self.held_back.push_back(waker.clone());
        }
    }

    /// Moves what waits into `buffers`; returns how many were filled.
    fn fill(&mut self, buffers: &mut [RecvBuffer], local_ip: IpAddr) -> usize {
        let mut filled = 0;
        for buffer in buffers {
            let Some(train) = self.waiting.front_mut() else {
                break;
            };
            // What does not fit stays for the next buffer; one datagram that does not fit is cut.
            let room = buffer.storage_mut().len();
            let fitting = (room / train.stride * train.stride).max(train.stride);
            let bytes = train.bytes.split_to(fitting.min(train.bytes.len()));
            let copied = bytes.len().min(room);
            buffer.storage_mut()[..copied].copy_from_slice(&bytes[..copied]);
            let mut meta = RecvMeta::new(train.from, copied);
            meta.stride = train.stride;
            meta.ecn = train.ecn;
            meta.local_ip = Some(local_ip);
            buffer.fill(meta);
            filled += 1;
            self.waiting_bytes -= bytes.len();
            if train.bytes.is_empty() {
                self.waiting.pop_front();
            }
        }
        filled
    }

    fn put_waiting(&mut self, train: Train) {
        if self.waiting_bytes >= INBOX_LIMIT {
            self.overflows += train.datagrams();
            return;
        }
        self.waiting_bytes += train.bytes.len();
        self.waiting.push_back(train);
    }

    fn put_transit(&mut self, at: Timestamp, stage: Stage, train: Train) {
        if self.transit_bytes >= TRANSIT_LIMIT {
            self.overflows += train.datagrams();
            return;
        }
        self.transit_bytes += train.bytes.len();
        self.transit.push(at, (stage, train));
    }

    /// Moves everything to where it is at `now`.
    fn advance(&mut self, now: Timestamp) {
        while let Some((at, (stage, train))) = self.transit.pop_due(now) {
            self.transit_bytes -= train.bytes.len();
            match stage {
                Stage::Arrival => self.put_waiting(train),
                Stage::Downlink => {
                    let (from, ecn) = (train.from, train.ecn);
                    let mut arrivals = Vec::new();
                    self.down.send_train(
                        at,
                        train.bytes,
                        train.stride,
                        ecn,
                        |at, bytes, stride, ecn| {
                            arrivals.push((
                                at,
                                Train {
                                    from,
                                    ecn,
                                    bytes,
                                    stride,
                                },
                            ));
                        },
                    );
                    for (at, train) in arrivals {
                        self.put_transit(at, Stage::Arrival, train);
                    }
                }
            }
        }
    }

    /// Takes the reader's waker if it has to know of what was just put in.
    fn reader_to_wake(&mut self) -> Option<Waker> {
        let has_earlier = match (self.transit.next_at(), self.wakes_at) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if has_earlier || !self.waiting.is_empty() {
            return self.reader.take();
        }
        None
    }
}

impl Train {
    fn datagrams(&self) -> u64 {
        self.bytes.len().div_ceil(self.stride.max(1)).max(1) as u64
    }
}

impl SimTransport {
    /// Lets the others see this transport under `outside` from now on, as when a NAT has forgotten its
    /// binding: what is sent to the old address vanishes. [`local_addr`] stays.
    ///
    /// [`local_addr`]: DatagramTransport::local_addr
    pub fn rebind(&self, outside: SocketAddr) {
        let mut ports = self.shared.write_ports();
        let mut current = lock(&self.outside);
        detach(&mut ports, *current, &self.port);
        ports.by_addr.insert(outside, Arc::clone(&self.port));
        *current = outside;
    }

    /// Replaces what the links do, from now on; datagrams on their way are not affected.
    pub fn set_links(&self, up: LinkConfig, down: LinkConfig) {
        lock(&self.up).set_config(up);
        lock(&self.port.inbox).down.set_config(down);
    }

    /// Returns what the uplink has done so far.
    pub fn send_stats(&self) -> LinkStats {
        lock(&self.up).stats()
    }

    /// Returns what the downlink has done so far.
    pub fn recv_stats(&self) -> LinkStats {
        lock(&self.port.inbox).down.stats()
    }

    /// Returns what waits now for the uplink's transmitter.
    pub fn send_queue(&self) -> LinkQueue {
        let now = self.shared.clock.now();
        lock(&self.up).queue(now)
    }

    /// Returns what waits now for the downlink's transmitter.
    pub fn recv_queue(&self) -> LinkQueue {
        let now = self.shared.clock.now();
        let mut inbox = lock(&self.port.inbox);
        inbox.advance(now);
        inbox.down.queue(now)
    }

    /// Returns how many datagrams were dropped because too many were waiting to be received.
    pub fn overflows(&self) -> u64 {
        lock(&self.port.inbox).overflows
    }

    /// Sends, or returns false and keeps `waker` if the receiver has too much unread.
    fn send(&self, transmit: &Transmit<'_>, waker: Option<&Waker>) -> io::Result<bool> {
        let len: usize = transmit.contents.iter().map(|slice| slice.len()).sum();
        let stride = transmit.segment_size.unwrap_or(len).clamp(1, len.max(1));
        if stride > MAX_DATAGRAM || len.div_ceil(stride) > MAX_SEGMENTS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Some(to) = self.shared.port(transmit.remote) else {
            return Ok(true);
        };
        let mut up = lock(&self.up);
        let mut inbox = lock(&to.inbox);
        let is_clean = up.config().is_transparent() && inbox.down.config().is_transparent();
        if is_clean && self.shared.holds_back && inbox.waiting_bytes >= HOLD_BACK {
            if let Some(waker) = waker {
                inbox.hold_back(waker);
            }
            return Ok(false);
        }
        drop(inbox);

        // A clean path needs no clock: everything has arrived before it was sent.
        let now = if is_clean {
            Timestamp::ZERO
        } else {
            self.shared.clock.now()
        };
        let from = *lock(&self.outside);
        let ecn = transmit.ecn;
        let mut first = None;
        let mut more = Vec::new();
        up.send_train(
            now,
            gather(transmit.contents, len),
            stride,
            ecn,
            |at, bytes, stride, ecn| {
                let train = Train {
                    from,
                    ecn,
                    bytes,
                    stride,
                };
                match first {
                    None => first = Some((at, train)),
                    Some(_) => more.push((at, train)),
                }
            },
        );
        let mut inbox = lock(&to.inbox);
        for (at, train) in first.into_iter().chain(more) {
            inbox.put(now, at, train);
        }
        let reader = inbox.reader_to_wake();
        drop(inbox);
        drop(up);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(true)
    }
}

impl Drop for SimTransport {
    fn drop(&mut self) {
        let outside = *lock(&self.outside);
        detach(&mut self.shared.write_ports(), outside, &self.port);
        // Whoever waits for room finds nobody there.
        let held_back = std::mem::take(&mut lock(&self.port.inbox).held_back);
        held_back.into_iter().for_each(Waker::wake);
    }
}

impl DatagramTransport for SimTransport {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.send(transmit, None)? {
            return Ok(());
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        match self.send(transmit, Some(cx.waker())) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let mut inbox = lock(&self.port.inbox);
        loop {
            if !inbox.transit.is_empty() {
                inbox.advance(self.shared.clock.now());
            }
            let filled = inbox.fill(buffers, self.addr.ip());
            if filled > 0 || buffers.is_empty() {
                let has_room = inbox.waiting_bytes < HOLD_BACK / 2;
                let held_back = if has_room {
                    std::mem::take(&mut inbox.held_back)
                } else {
                    VecDeque::new()
                };
                drop(inbox);
                held_back.into_iter().for_each(Waker::wake);
                budget.made_progress();
                return Poll::Ready(Ok(filled));
            }
            inbox.reader = Some(cx.waker().clone());
            inbox.wakes_at = inbox.transit.next_at();
            let Some(at) = inbox.wakes_at else {
                return Poll::Pending;
            };
            ready!(inbox.alarm.poll(cx, &self.shared.clock, at));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_send_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn max_datagram_size(&self) -> usize {
        MAX_DATAGRAM
    }
}

/// Copies what is to be sent into one piece of memory.
fn gather(contents: &[IoSlice<'_>], len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    for slice in contents {
        bytes.extend_from_slice(slice);
    }
    Bytes::from(bytes)
}

/// Takes `port` off the network unless somebody else has its address by now.
fn detach(ports: &mut Ports, addr: SocketAddr, port: &Arc<Port>) {
    if ports
        .by_addr
        .get(&addr)
        .is_some_and(|current| Arc::ptr_eq(current, port))
    {
        ports.by_addr.remove(&addr);
    }
}

#[cfg(test)]
mod tests;
