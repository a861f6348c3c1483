//! What the driver task and all handles of one endpoint share: the state machine behind one lock, the
//! sender behind another, and the wakers of those who wait.
//!
//! Lock order: the transmitter's before the core's. No system call happens under the core's lock, and no
//! waker is woken or dropped under either: a waker may run foreign code that comes back here.
//!
//! Invariants:
//! - Datagrams leave in the order in which the endpoint made them: whoever holds the transmitter asks
//!   for one and sends it before asking for the next.
//! - Whoever changed the core and called [`Shared::transmit`] may rely on somebody draining it: this
//!   task, the one whose turn it is at the transmitter, or the driver, which either of them has woken.
//! - While the transport is full, the driver is registered for room in it, or has been woken.
//! - The driver's sleep is never later than the core's earliest deadline, or the driver has been woken.

use std::io::{self, IoSlice};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::baton::{Baton, Turn};
use super::clock::Clock;
use super::core::{Core, Phase, Wakeups};
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use super::transport::{DatagramTransport, Transmit};
use crate::connection::{MAX_SLICES, Walk};
use crate::endpoint::{Departure, Endpoint};
use crate::{EndpointStats, Timestamp};

/// The largest run of datagrams in one send: what IPv4 and UDP can carry.
const MAX_SEND: usize = 65_507;
/// Sends in one turn before the driver task takes over, so that no caller sends for ever.
const SENDS_PER_TURN: usize = 64;

/// The shared part of an endpoint.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    transmitter: Baton<Transmitter>,
    /// Whether the last turn at the transmitter left something there that is not sent.
    has_pending: AtomicBool,
    transport: Arc<dyn DatagramTransport>,
    clock: Clock,
    /// Sockets, listeners and endpoint handles; the driver ends after the last one.
    handles: AtomicUsize,
    send_errors: AtomicU64,
    receive_errors: AtomicU64,
}

/// The way out: one at a time.
struct Transmitter {
    /// Whole segments, or their headers.
    buffer: Box<[u8]>,
    /// The payloads, where `buffer` has only the headers.
    pieces: Vec<Bytes>,
    /// In `buffer` and `pieces`, and not sent yet.
    pending: Option<Departure>,
    /// Whether the driver waits for room for `pending`.
    is_blocked: bool,
}

/// How a turn of the transmitter ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// The core has nothing more to send.
    Done,
    /// Someone else holds the transmitter and goes on.
    Elsewhere,
    /// The transport is full; the driver waits for it.
    Blocked,
    /// There is more, but this turn was long enough.
    Unfinished,
}

impl Shared {
    pub(crate) fn new(
        endpoint: Endpoint,
        transport: Arc<dyn DatagramTransport>,
        clock: Clock,
    ) -> Arc<Self> {
        let transmitter = Transmitter {
            buffer: vec![0; MAX_SEND].into_boxed_slice(),
            pieces: Vec::new(),
            pending: None,
            is_blocked: false,
        };
        Arc::new(Self {
            core: Mutex::new(Core::new(endpoint)),
            transmitter: Baton::new(transmitter),
            has_pending: AtomicBool::new(false),
            transport,
            clock,
            handles: AtomicUsize::new(0),
            send_errors: AtomicU64::new(0),
            receive_errors: AtomicU64::new(0),
        })
    }

    /// Runs `f` on the core, hands out what it changed and sends what it made.
    pub(crate) fn enter<R>(&self, f: impl FnOnce(&mut Core, Timestamp, &mut Wakeups) -> R) -> R {
        let (result, has_transmit) = self.update(|core, now, wakeups| {
            let result = f(core, now, wakeups);
            (result, core.endpoint.has_transmit())
        });
        if has_transmit {
            self.transmit();
        }
        result
    }

    /// Runs `f` on the core and hands out what it changed, without sending.
    pub(crate) fn update<R>(&self, f: impl FnOnce(&mut Core, Timestamp, &mut Wakeups) -> R) -> R {
        let mut wakeups = Wakeups::default();
        let result = {
            let mut core = self.lock();
            let now = core.advance(&self.clock);
            let result = f(&mut core, now, &mut wakeups);
            core.settle(&mut wakeups);
            result
        };
        wakeups.run();
        result
    }

    /// Runs `f` on the core, which it only looks at.
    pub(crate) fn inspect<R>(&self, f: impl FnOnce(&Core) -> R) -> R {
        f(&self.lock())
    }

    /// Sends what the core has to send, or leaves it to the one who is sending already.
    pub(crate) fn transmit(&self) {
        match self.send(None) {
            Sending::Done | Sending::Elsewhere => {}
            Sending::Blocked | Sending::Unfinished => self.wake_driver(),
        }
    }

    /// Does the same for the driver task, which can wait for room in the transport.
    pub(crate) fn poll_transmit(&self, cx: &mut Context<'_>) -> Sending {
        self.send(Some(cx))
    }

    fn send(&self, mut cx: Option<&mut Context<'_>>) -> Sending {
        let mut wakeups = Wakeups::default();
        let mut sends_left = SENDS_PER_TURN;
        let sending = loop {
            let turn = self.transmitter.take_turn(|transmitter| {
                let cx = cx.as_deref_mut();
                let sending = self.drain(transmitter, cx, &mut sends_left, &mut wakeups);
                let has_pending = transmitter.pending.is_some();
                self.has_pending.store(has_pending, Ordering::Release);
                sending
            });
            let Some(Turn { outcome, is_asked }) = turn else {
                break Sending::Elsewhere;
            };
            let has_news = self.take_unreachable(&mut wakeups);
            // Somebody may have found the transmitter taken in the meantime. If this turn ended early,
            // that is the driver's business too.
            if outcome != Sending::Done || !(is_asked || has_news) {
                break outcome;
            }
        };
        wakeups.run();
        sending
    }

    fn drain(
        &self,
        transmitter: &mut Transmitter,
        mut cx: Option<&mut Context<'_>>,
        sends_left: &mut usize,
        wakeups: &mut Wakeups,
    ) -> Sending {
        if transmitter.is_blocked && cx.is_none() {
            // The driver waits for room and goes on from there; or it has just found some, and this
            // turn in its way.
            return Sending::Blocked;
        }
        while *sends_left > 0 {
            *sends_left -= 1;
            let departure = if let Some(departure) = transmitter.pending.take() {
                departure
            } else {
                let mut core = self.lock();
                let now = core.advance(&self.clock);
                let segments = self.transport.max_send_segments();
                let Transmitter { buffer, pieces, .. } = &mut *transmitter;
                let next = core
                    .endpoint
                    .poll_transmit_gathered(now, segments, buffer, pieces);
                let Some(departure) = next else {
                    core.settle(wakeups);
                    return Sending::Done;
                };
                departure
            };
            let (whole, mut slices);
            let contents = if departure.header_len.is_some() {
                slices = [IoSlice::new(&[]); MAX_SLICES];
                gather(
                    &departure,
                    &transmitter.buffer,
                    &transmitter.pieces,
                    &mut slices,
                )
            } else {
                let bytes = transmitter.buffer.get(..departure.len);
                whole = [IoSlice::new(bytes.unwrap_or(&transmitter.buffer))];
                &whole
            };
            let transmit = Transmit {
                remote: departure.remote,
                local_ip: departure.local_ip,
                ecn: departure.ecn,
                contents,
                segment_size: (departure.segments > 1).then_some(departure.segment_size),
            };
            let outcome = match &mut cx {
                None => self.transport.try_send(&transmit),
                Some(cx) => match self.transport.poll_send(cx, &transmit) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                },
            };
            transmitter.is_blocked = false;
            if let Err(error) = &outcome
                && error.kind() == io::ErrorKind::WouldBlock
            {
                transmitter.pending = Some(departure);
                transmitter.is_blocked = true;
                return Sending::Blocked;
            }
            // The send buffers may use the memory again.
            transmitter.pieces.clear();
            match outcome {
                Ok(()) => {}
                Err(error) if Transmit::is_too_large(&error) => {
                    // A probe of the path's MTU, as a rule; the connection sends its data again at once.
                    tracing::debug!(%error, remote = %departure.remote, size = departure.segment_size, "datagram refused");
                    let mut core = self.lock();
                    let now = core.advance(&self.clock);
                    core.endpoint.handle_refused(now, &departure);
                    core.settle(wakeups);
                }
                Err(error) => {
                    // As good as lost on the way: recovery sends it again.
                    self.send_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, remote = %departure.remote, "datagram not sent");
                }
            }
        }
        Sending::Unfinished
    }

    /// The driver begins its turn: until it falls asleep, nobody has to wake it for an earlier deadline.
    pub(super) fn wake_up(&self, waker: &Waker, wakeups: &mut Wakeups) {
        self.lock().on_driver_awake(waker, wakeups);
    }

    /// Lets the endpoint's timers run that have expired; says whether there may be something to send.
    pub(super) fn run_timers(&self) -> bool {
        let mut wakeups = Wakeups::default();
        let has_transmit = {
            let mut core = self.lock();
            if let Some(deadline) = core.endpoint.poll_timeout() {
                let now = core.advance(&self.clock);
                if deadline <= now {
                    core.endpoint.handle_timeout(now);
                    core.settle(&mut wakeups);
                }
            }
            core.endpoint.has_transmit()
        };
        wakeups.run();
        has_transmit || self.has_pending.load(Ordering::Acquire)
    }

    /// The driver ends its turn with its sleep set to `armed`; or not yet, if there is an earlier deadline, which
    /// is returned.
    pub(super) fn fall_asleep(&self, armed: Option<Timestamp>) -> Option<Timestamp> {
        let mut core = self.lock();
        let deadline = core.endpoint.poll_timeout();
        let earlier = deadline.filter(|&deadline| armed.is_none_or(|armed| deadline < armed));
        if earlier.is_none() {
            core.on_driver_asleep(armed);
        }
        earlier
    }

    /// Tells the core of ICMP errors that came up; returns whether there were any.
    pub(crate) fn take_unreachable(&self, wakeups: &mut Wakeups) -> bool {
        let mut has_news = false;
        while let Some(report) = self.transport.take_unreachable() {
            let mut core = self.lock();
            let now = core.advance(&self.clock);
            core.endpoint
                .handle_unreachable(now, report.remote, &report.quoted);
            core.settle(wakeups);
            has_news = true;
        }
        has_news
    }

    /// Counts a failed receive.
    pub(crate) fn on_receive_error(&self, error: &io::Error) {
        self.receive_errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "receive failed");
    }

    pub(crate) fn transport(&self) -> &dyn DatagramTransport {
        &*self.transport
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn stats(&self) -> EndpointStats {
        let mut stats = self.inspect(|core| core.endpoint.stats());
        stats.transport_send_errors += self.send_errors.load(Ordering::Relaxed);
        stats.transport = self.transport.stats();
        stats.transport_receive_errors += self.receive_errors.load(Ordering::Relaxed);
        stats
    }

    pub(crate) fn has_handles(&self) -> bool {
        self.handles.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing is on its way out and no connection is left.
    pub(crate) fn is_finished(&self) -> bool {
        let turn = self
            .transmitter
            .take_turn(|transmitter| transmitter.pending.is_none());
        let is_sent = turn.is_some_and(|turn| turn.outcome && !turn.is_asked);
        is_sent && self.inspect(|core| core.endpoint.is_idle() && !core.endpoint.has_transmit())
    }

    /// Waits until no connection is left but those in TIME-WAIT.
    pub(crate) async fn wait_idle(&self) {
        struct Waiting<'a>(&'a Shared);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.lock().idle_waiters -= 1;
            }
        }
        let idle = {
            let mut core = self.lock();
            core.idle_waiters += 1;
            Arc::clone(&core.idle)
        };
        let _waiting = Waiting(self);
        loop {
            let mut notified = std::pin::pin!(idle.notified());
            notified.as_mut().enable();
            if self.inspect(|core| core.phase == Phase::Gone || core.endpoint.is_idle()) {
                return;
            }
            notified.await;
        }
    }

    /// The driver task is gone: nothing moves any more, and everybody learns of it; the peers by RST,
    /// as far as the transport takes one at once, or they would wait for a connection that is no more.
    pub(crate) fn on_driver_gone(&self) {
        let turns = self.update(|core, now, wakeups| {
            let turns = core.endpoint.stats().connections / SENDS_PER_TURN + 1;
            core.endpoint.cut(now);
            core.on_driver_gone(wakeups);
            turns
        });
        for _ in 0..turns {
            if self.send(None) != Sending::Unfinished {
                break;
            }
        }
    }

    fn wake_driver(&self) {
        let driver = self.inspect(|core| core.driver.clone());
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lays out a departure of which the buffer has only the headers as the places that its bytes lie in, in order.
fn gather<'a, 'b>(
    departure: &Departure,
    buffer: &'a [u8],
    pieces: &'a [Bytes],
    slices: &'b mut [IoSlice<'a>; MAX_SLICES],
) -> &'b [IoSlice<'a>] {
    let mut count = 0;
    let mut put = |slice: &'a [u8]| {
        if let Some(place) = slices.get_mut(count) {
            *place = IoSlice::new(slice);
            count += 1;
        }
    };
    let header_len = departure.header_len.unwrap_or_default();
    let payload = departure.segment_size.saturating_sub(header_len);
    let mut walk = Walk::new(pieces);
    for header in buffer.chunks(header_len.max(1)).take(departure.segments) {
        put(header);
        walk.take(payload).for_each(&mut put);
    }
    slices.get(..count).unwrap_or_default()
}

impl std::fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transmitter")
            .field("pending", &self.pending)
            .field("is_blocked", &self.is_blocked)
            .finish_non_exhaustive()
    }
}

/// A counted reference: the driver ends when no handle is left and all connections are over.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.handles.fetch_add(1, Ordering::SeqCst);
        Self { shared }
    }
}

impl std::ops::Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.handles.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::task::Wake;

    use super::*;
    use crate::Config;
    use crate::driver::{RecvBuffer, draw_secrets};
    use crate::endpoint::EndpointLocal;

    /// Takes nothing from those who cannot wait, and everything from the one who can while there is room.
    #[derive(Debug, Default)]
    struct Narrow {
        has_room: AtomicBool,
        sent: AtomicUsize,
    }

    impl DatagramTransport for Narrow {
        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn poll_send(&self, _: &mut Context<'_>, _: &Transmit<'_>) -> Poll<io::Result<()>> {
            if self.has_room.load(Ordering::SeqCst) {
                self.sent.fetch_add(1, Ordering::SeqCst);
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        }

        fn poll_recv(&self, _: &mut Context<'_>, _: &mut [RecvBuffer]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([10, 0, 0, 1], 1)))
        }
    }

    #[derive(Debug, Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn shared(transport: &Arc<Narrow>) -> Arc<Shared> {
        let local = EndpointLocal {
            addr: transport.local_addr().unwrap(),
        };
        let clock = Clock::start();
        let secrets = draw_secrets().unwrap();
        let endpoint = Endpoint::new(clock.now(), Config::default(), secrets, local);
        Shared::new(endpoint, Arc::<Narrow>::clone(transport), clock)
    }

    #[test]
    fn a_driver_that_finds_the_transmitter_taken_is_woken_afterwards() {
        let transport = Arc::<Narrow>::default();
        let shared = shared(&transport);
        let woken = Arc::<Flag>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        shared.wake_up(cx.waker(), &mut Wakeups::default());
        let peer = SocketAddr::from(([10, 0, 0, 2], 2));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // An application whose writes find the transport full.
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    shared.transmit();
                }
            });
            for round in 1..=5_000 {
                transport.has_room.store(false, Ordering::SeqCst);
                let id = shared.enter(|core, now, _| {
                    let id = core.endpoint.connect(now, peer, 1, None).unwrap();
                    core.adopt(id);
                    id
                });
                // The SYN waits for the driver, and the driver for room.
                while shared.poll_transmit(&mut cx) == Sending::Elsewhere {}
                // The transport has room and wakes the driver, once.
                transport.has_room.store(true, Ordering::SeqCst);
                woken.0.store(false, Ordering::SeqCst);
                let began = Clock::start();
                while shared.poll_transmit(&mut cx) == Sending::Elsewhere
                    && transport.sent.load(Ordering::SeqCst) < round
                {
                    while !woken.0.swap(false, Ordering::SeqCst) {
                        if began.now() > Timestamp::from_millis(10_000) {
                            is_over.store(true, Ordering::SeqCst);
                            panic!("nobody wakes the driver in round {round}");
                        }
                        std::thread::yield_now();
                    }
                }
                drop(shared.enter(|core, now, _| core.release(now, id)));
            }
            is_over.store(true, Ordering::SeqCst);
        });
    }
}
