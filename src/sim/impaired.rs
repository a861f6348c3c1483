//! `Impaired`: a real datagram transport behind the simulator's links.
//!
//! What is sent passes one [`Link`] before the transport below sees it, what is received another one
//! after. Datagrams that a link delays wait here; whoever polls for receiving also sends those whose
//! time has come, so that no task of its own is needed.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use crate::driver::{DatagramTransport, RecvBuffer, RecvMeta, Transmit, Unreachable};
use crate::endpoint::Ecn;
use crate::sim::clock::{Alarm, LazyClock};
use crate::sim::link::{Link, LinkConfig, LinkQueue, LinkStats};
use crate::sim::schedule::Schedule;
use crate::timestamp::Timestamp;

/// Bytes that wait in one direction before further ones are dropped: a bound on memory only.
const WAITING_LIMIT: usize = 256 * 1024 * 1024;

/// A [`DatagramTransport`] that does to another one's datagrams what its links say.
///
/// ```
/// # async fn example(socket: impl reliable_udp::DatagramTransport)
/// # -> Result<(), reliable_udp::ConfigError> {
/// use reliable_udp::sim::{Impaired, LinkConfig};
///
/// let lossy = LinkConfig::builder().loss(0.05).build()?;
/// let transport = Impaired::new(socket, lossy.clone(), lossy, 7);
/// # let _ = transport;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Impaired<T> {
    inner: T,
    clock: LazyClock,
    outgoing: Mutex<Direction>,
    incoming: Mutex<Direction>,
}

/// One direction.
///
/// Invariant: `bytes` is the sum of the lengths in `waiting`.
#[derive(Debug)]
struct Direction {
    link: Link,
    waiting: Schedule<Parcel>,
    bytes: usize,
    alarm: Alarm,
    /// The task that polls for receiving; it also sends what was delayed.
    receiver: Option<Waker>,
    overflows: u64,
}

/// Datagrams of equal size, but for the last, that travel together.
#[derive(Debug)]
struct Parcel {
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    ecn: Option<Ecn>,
    bytes: Bytes,
    stride: usize,
}

impl Direction {
    fn new(seed: u64, config: LinkConfig) -> Self {
        Self {
            link: Link::new(seed, config),
            waiting: Schedule::new(),
            bytes: 0,
            alarm: Alarm::default(),
            receiver: None,
            overflows: 0,
        }
    }

    /// Tells whether datagrams may pass by without being looked at.
    fn is_open(&self) -> bool {
        self.waiting.is_empty() && self.link.config().is_transparent()
    }

    /// Sends a parcel through the link; what comes out waits for its time.
    fn put(&mut self, now: Timestamp, parcel: Parcel) {
        let Self {
            link,
            waiting,
            bytes: total,
            overflows,
            ..
        } = self;
        let (remote, local_ip, ecn) = (parcel.remote, parcel.local_ip, parcel.ecn);
        let (bytes, stride) = (parcel.bytes, parcel.stride);
        link.send_train(now, bytes, stride, ecn, |at, bytes, stride, ecn| {
            if *total >= WAITING_LIMIT {
                *overflows += 1;
                return;
            }
            *total += bytes.len();
            waiting.push(
                at,
                Parcel {
                    remote,
                    local_ip,
                    ecn,
                    bytes,
                    stride,
                },
            );
        });
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<Parcel> {
        let (_, parcel) = self.waiting.pop_due(now)?;
        self.bytes -= parcel.bytes.len();
        Some(parcel)
    }
}

impl Parcel {
    /// Makes what the transport below is told to send.
    fn transmit<'a>(&self, contents: &'a [IoSlice<'a>]) -> Transmit<'a> {
        let mut transmit = Transmit::new(self.remote, contents);
        transmit.local_ip = self.local_ip;
        transmit.ecn = self.ecn;
        transmit.segment_size = (self.bytes.len() > self.stride).then_some(self.stride);
        transmit
    }
}

fn lock(direction: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    direction.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: DatagramTransport> Impaired<T> {
    /// Wraps `inner`: what is sent passes a link of `send`, what is received one of `recv`; both draw
    /// from `seed`.
    pub fn new(inner: T, send: LinkConfig, recv: LinkConfig, seed: u64) -> Self {
        Self {
            inner,
            clock: LazyClock::default(),
            outgoing: Mutex::new(Direction::new(seed, send)),
            incoming: Mutex::new(Direction::new(!seed, recv)),
        }
    }

    /// Replaces what the links do, from now on; datagrams that already wait are not affected.
    pub fn set_links(&self, send: LinkConfig, recv: LinkConfig) {
        lock(&self.outgoing).link.set_config(send);
        lock(&self.incoming).link.set_config(recv);
    }

    /// Returns what the sending link has done so far.
    pub fn send_stats(&self) -> LinkStats {
        lock(&self.outgoing).link.stats()
    }

    /// Returns what waits now for the sending link's transmitter.
    pub fn send_queue(&self) -> LinkQueue {
        let now = self.clock.now();
        lock(&self.outgoing).link.queue(now)
    }

    /// Returns what the receiving link has done so far.
    pub fn recv_stats(&self) -> LinkStats {
        lock(&self.incoming).link.stats()
    }

    /// Returns what waits now for the receiving link's transmitter.
    pub fn recv_queue(&self) -> LinkQueue {
        let now = self.clock.now();
        lock(&self.incoming).link.queue(now)
    }

    /// Sends what is due; with `cx`, its task is woken when the transport below takes more.
    fn flush(&self, outgoing: &mut Direction, cx: Option<&mut Context<'_>>) -> Poll<()> {
        if outgoing.waiting.is_empty() {
            return Poll::Ready(());
        }
        let now = self.clock.now();
        let mut cx = cx;
        while let Some(parcel) = outgoing.waiting.peek_due(now) {
            let contents = [IoSlice::new(&parcel.bytes)];
            let transmit = parcel.transmit(&contents);
            let is_taken = match cx.as_deref_mut() {
                Some(cx) => self.inner.poll_send(cx, &transmit).is_ready(),
                None => !is_would_block(&self.inner.try_send(&transmit)),
            };
            if !is_taken {
                return Poll::Pending;
            }
            // Any other error is the loss of this datagram.
            outgoing.pop_due(now);
        }
        Poll::Ready(())
    }

    /// Sends, or does nothing and returns `Pending` if the transport below takes nothing more.
    fn send(
        &self,
        transmit: &Transmit<'_>,
        mut cx: Option<&mut Context<'_>>,
    ) -> Poll<io::Result<()>> {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.is_open() {
            let len = transmit.contents.iter().map(|slice| slice.len()).sum();
            let result = match cx {
                Some(cx) => self.inner.poll_send(cx, transmit),
                None => Poll::Ready(self.inner.try_send(transmit)),
            };
            if matches!(result, Poll::Ready(Ok(()))) {
                outgoing
                    .link
                    .count_train(len, transmit.segment_size.unwrap_or(len));
            }
            return result;
        }
        if self.flush(&mut outgoing, cx.as_deref_mut()).is_pending() {
            return Poll::Pending;
        }
        let mut bytes = Vec::new();
        for slice in transmit.contents {
            bytes.extend_from_slice(slice);
        }
        let parcel = Parcel {
            remote: transmit.remote,
            local_ip: transmit.local_ip,
            ecn: transmit.ecn,
            stride: transmit.segment_size.unwrap_or(bytes.len()),
            bytes: Bytes::from(bytes),
        };
        outgoing.put(self.clock.now(), parcel);
        // What the transport does not take now stays; the task below is woken for it.
        let _ = self.flush(&mut outgoing, cx);
        let has_more = !outgoing.waiting.is_empty();
        let receiver = outgoing.receiver.take_if(|_| has_more);
        drop(outgoing);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is due until nothing is; the task is woken for what follows.
    fn poll_flush(&self, cx: &mut Context<'_>) {
        let mut outgoing = lock(&self.outgoing);
        outgoing.receiver = Some(cx.waker().clone());
        loop {
            if self.flush(&mut outgoing, Some(cx)).is_pending() {
                return;
            }
            let Some(at) = outgoing.waiting.next_at() else {
                return;
            };
            if outgoing.alarm.poll(cx, &self.clock, at).is_pending() {
                return;
            }
        }
    }
}

fn is_would_block(result: &io::Result<()>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

impl<T: DatagramTransport> DatagramTransport for Impaired<T> {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.send(transmit, None) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        self.send(transmit, Some(cx))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        self.poll_flush(cx);
        let mut incoming = lock(&self.incoming);
        if incoming.is_open() {
            let filled = ready!(self.inner.poll_recv(cx, buffers))?;
            for buffer in buffers.iter().take(filled) {
                if let Some((_, meta)) = buffer.received() {
                    incoming.link.count_train(meta.len, meta.stride);
                }
            }
            return Poll::Ready(Ok(filled));
        }
        loop {
            let inner = self.inner.poll_recv(cx, buffers)?;
            let now = self.clock.now();
            if let Poll::Ready(filled) = inner {
                for (bytes, meta) in buffers.iter().take(filled).filter_map(RecvBuffer::received) {
                    let parcel = Parcel {
                        remote: meta.remote,
                        local_ip: meta.local_ip,
                        ecn: meta.ecn,
                        bytes: Bytes::copy_from_slice(bytes),
                        stride: meta.stride,
                    };
                    incoming.put(now, parcel);
                }
            }
            let filled = incoming.fill(now, buffers);
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
            if inner.is_ready() {
                continue;
            }
            let Some(at) = incoming.waiting.next_at() else {
                return Poll::Pending;
            };
            ready!(incoming.alarm.poll(cx, &self.clock, at));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_send_segments(&self) -> usize {
        self.inner.max_send_segments()
    }

    fn max_datagram_size(&self) -> usize {
        self.inner.max_datagram_size()
    }

    fn stats(&self) -> crate::TransportStats {
        self.inner.stats()
    }

    fn take_unreachable(&self) -> Option<Unreachable> {
        self.inner.take_unreachable()
    }
}

impl Direction {
    /// Moves what has arrived into `buffers`; returns how many were filled.
    fn fill(&mut self, now: Timestamp, buffers: &mut [RecvBuffer]) -> usize {
        let mut filled = 0;
        for buffer in buffers {
            let Some(parcel) = self.pop_due(now) else {
                break;
            };
            // It was received into a buffer of the same kind, so it fits.
            let len = parcel.bytes.len().min(buffer.storage_mut().len());
            buffer.storage_mut()[..len].copy_from_slice(&parcel.bytes[..len]);
            let mut meta = RecvMeta::new(parcel.remote, len);
            meta.stride = parcel.stride;
            meta.local_ip = parcel.local_ip;
            meta.ecn = parcel.ecn;
            buffer.fill(meta);
            filled += 1;
        }
        filled
    }
}
