//! The datagram transport on a UDP socket: batches, segmentation offload in both directions, ECN marks,
//! source addresses, and ICMP errors where Linux queues them.
//!
//! Here is what every platform shares: how tasks wait, and what is made of errors. The calls themselves are
//! Linux's own or those of `quinn-udp`.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod portable;
mod ready;
mod refusals;
mod setup;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::time::Sleep;

#[cfg(any(target_os = "linux", target_os = "android"))]
use self::linux::Io;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use self::portable::Io;
use self::ready::{Readiness, Socket};
use self::refusals::Refusals;
use super::canonical;
use super::transport::{DatagramTransport, RecvBuffer, Transmit, Unreachable};
use crate::TransportStats;
use crate::config::SocketBuffers;

/// How many ICMP errors wait to be taken; the rest is dropped, since they are only hints.
const MAX_UNREACHABLE: usize = 256;
/// How many entries of the error queue are taken before the rest has to wait for its turn.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_DRAINED: usize = 256;
/// How often one call is repeated that only reported an error left behind by an earlier datagram.
const MAX_STALE_ERRORS: usize = 4;
/// When a full socket is tried again while the readiness of the runtime cannot tell (see `poll_send`).
const RETRY_DELAY: Duration = Duration::from_millis(1);

/// A UDP socket as a [`DatagramTransport`].
pub(crate) struct UdpTransport {
    socket: Socket,
    ready: Readiness,
    io: Io,
    is_ipv6: bool,
    refusals: Refusals,
    /// What the error queue held and the endpoint has not taken yet.
    unreachable: Mutex<VecDeque<Unreachable>>,
    has_unreachable: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// How a receive went.
#[derive(Debug, Clone, Copy)]
struct Received {
    /// Buffers filled, at least 1.
    filled: usize,
    /// Whether the socket was seen empty afterwards: what comes then signals itself.
    is_drained: bool,
}

/// What `poll_recv` and `poll_send` wait for beyond the two directions that tokio polls.
#[derive(Default)]
struct Waiting {
    /// Resolves when the system signals an error on the socket.
    error: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
    /// Runs while a full socket is tried again on time.
    retry: Option<Pin<Box<Sleep>>>,
}

impl UdpTransport {
    /// Binds a socket; one on an unspecified IPv6 address takes IPv4 too.
    pub(crate) fn bind(addr: SocketAddr, buffers: SocketBuffers) -> io::Result<Self> {
        Self::new(setup::bind(addr, buffers)?)
    }

    /// Takes over a bound socket.
    pub(crate) fn from_std(
        socket: std::net::UdpSocket,
        buffers: SocketBuffers,
    ) -> io::Result<Self> {
        setup::enlarge(&SockRef::from(&socket), buffers);
        Self::new(socket)
    }

    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        // tokio's own constructor panics outside a runtime.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        let (ready, socket) = Readiness::new(socket)?;
        let io = Io::new(Arc::clone(&socket))?;
        Ok(Self {
            is_ipv6: socket.local_addr()?.is_ipv6(),
            socket,
            ready,
            refusals: Refusals::new(io.max_segments()),
            io,
            unreachable: Mutex::default(),
            has_unreachable: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let outward = Transmit {
            remote: self.outward(transmit.remote),
            local_ip: transmit.local_ip.map(|ip| self.outward_ip(ip)),
            ..*transmit
        };
        self.refusals.send(&outward, |transmit| {
            self.past_stale_errors(is_stale_error, || self.io.send(transmit))
        })
    }

    fn receive(&self, buffers: &mut [RecvBuffer]) -> io::Result<Received> {
        // Whatever a receive reports but an empty socket came from outside: ICMP knows more errors than
        // those of `is_stale_error`, and nobody may keep the socket deaf with them.
        self.past_stale_errors(
            |error| error.kind() != io::ErrorKind::WouldBlock,
            || self.io.receive(buffers),
        )
    }

    /// Repeats a call while it fails with what an ICMP error for an earlier datagram, perhaps another
    /// peer's, left on the socket: the system then has neither sent nor received.
    fn past_stale_errors<T>(
        &self,
        is_stale: fn(&io::Error) -> bool,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut outcome = call();
        for _ in 0..MAX_STALE_ERRORS {
            match &outcome {
                Err(error) if is_stale(error) => {
                    self.drain_errors();
                    outcome = call();
                }
                _ => break,
            }
        }
        outcome
    }

    /// Takes what the error queue holds; says whether that was all.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn drain_errors(&self) -> bool {
        for _ in 0..MAX_DRAINED {
            let entry = linux::next(&self.socket);
            match entry {
                Ok(None) => {}
                Ok(Some(entry)) => self.queue_unreachable(entry),
                Err(_) => return true,
            }
        }
        false
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn drain_errors(&self) -> bool {
        true
    }

    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "only Linux has the error queue")
    )]
    fn queue_unreachable(&self, entry: Unreachable) {
        let mut queue = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if queue.len() < MAX_UNREACHABLE {
            queue.push_back(entry);
            self.has_unreachable.store(true, Ordering::Release);
        }
    }

    /// Drains the error queue whenever the system signals an error, and registers for the next.
    fn poll_errors(&self, cx: &mut Context<'_>) {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let error = waiting
                .error
                .get_or_insert_with(|| Box::pin(self.ready.error()));
            match error.as_mut().poll(cx) {
                Poll::Pending => return,
                Poll::Ready(outcome) => {
                    waiting.error = None;
                    let is_drained = self.drain_errors();
                    if !is_drained {
                        cx.waker().wake_by_ref();
                    }
                    if outcome.is_err() || !is_drained {
                        return;
                    }
                }
            }
        }
    }

    /// The form that the socket's family wants.
    fn outward(&self, remote: SocketAddr) -> SocketAddr {
        match remote {
            SocketAddr::V4(v4) if self.is_ipv6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            _ => remote,
        }
    }

    fn outward_ip(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.is_ipv6 => v4.to_ipv6_mapped().into(),
            _ => ip,
        }
    }
}

impl DatagramTransport for UdpTransport {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.send(transmit)
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        // An error on the socket can make it look as if there were room for ever. After a second refusal the
        // clock decides when to try again.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(retry) = &mut waiting.retry {
            ready!(retry.as_mut().poll(cx));
            waiting.retry = None;
        }
        for _ in 0..2 {
            match self.send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    self.ready.on_room();
                    return Poll::Ready(outcome);
                }
            }
            match self.ready.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    // No descriptor to wait with, perhaps: what is to be sent is not lost for that.
                    tracing::debug!(%error, "cannot wait for room");
                    break;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let mut retry = Box::pin(tokio::time::sleep(RETRY_DELAY));
        if retry.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        waiting.retry = Some(retry);
        Poll::Pending
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        self.poll_errors(cx);
        self.ready.poll_arrival(cx, || {
            let received = self.receive(buffers)?;
            Ok((received.filled, received.is_drained))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr().map(canonical)
    }

    fn max_send_segments(&self) -> usize {
        self.refusals.max_segments()
    }

    fn stats(&self) -> TransportStats {
        let [send_buffer, receive_buffer] = setup::sizes(&SockRef::from(&*self.socket));
        TransportStats {
            send_buffer,
            receive_buffer,
            kernel_drops: self.io.drops(),
            refuses_segmentation: self.refusals.refuses_segmentation(),
            refuses_marks: self.refusals.refuses_marks(),
            refuses_source: self.refusals.refuses_source(),
        }
    }

    fn take_unreachable(&self) -> Option<Unreachable> {
        if !self.has_unreachable.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let entry = queue.pop_front();
        self.has_unreachable
            .store(!queue.is_empty(), Ordering::Release);
        entry
    }
}

impl fmt::Debug for UdpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpTransport")
            .field("local_addr", &self.local_addr().ok())
            .field("refusals", &self.refusals)
            .finish_non_exhaustive()
    }
}

/// What an ICMP error for an earlier datagram may look like on a later call, whose own error says so again.
///
/// That a datagram is too large is one of these: a router on the way says so of a probe, and anybody can in its
/// name. Taken for this call's own it would cost a size or the segmentation, on connections of other peers too.
fn is_stale_error(error: &io::Error) -> bool {
    /// Linux: `EPROTO`, `ENONET`, `EOPNOTSUPP` and `EHOSTDOWN`, which stand for rarer codes of ICMP.
    const RARE: [i32; 4] = [71, 64, 95, 112];
    let is_linux = cfg!(any(target_os = "linux", target_os = "android"));
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied
    ) || Transmit::is_too_large(error)
        || (is_linux
            && error
                .raw_os_error()
                .is_some_and(|code| RARE.contains(&code)))
}

#[cfg(test)]
mod tests;
