//! The datagram transport on a UDP socket: batches, segmentation offload in both directions, ECN marks
//! and source addresses through `quinn-udp`, ICMP errors where Linux queues them.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn_udp::{BATCH_SIZE, EcnCodepoint, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use super::canonical;
use super::transport::{DatagramTransport, RecvBuffer, RecvMeta, Transmit, Unreachable};
use crate::endpoint::Ecn;

/// What is asked of the system for `SO_RCVBUF` and `SO_SNDBUF`: the usual 208 KiB overflow between two
/// turns of the driver at a few Gbit/s. The system may grant less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
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
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
    is_ipv6: bool,
    /// The system has refused a datagram because of its congestion mark.
    refuses_marks: AtomicBool,
    /// What the error queue held and the endpoint has not taken yet.
    unreachable: Mutex<VecDeque<Unreachable>>,
    has_unreachable: AtomicBool,
    waiting: Mutex<Waiting>,
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
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6()
            && let Err(error) = socket.set_only_v6(false)
        {
            tracing::debug!(%error, "socket is not dual stack");
        }
        socket.bind(&addr.into())?;
        Self::from_std(socket.into())
    }

    /// Takes over a bound socket.
    pub(crate) fn from_std(socket: std::net::UdpSocket) -> io::Result<Self> {
        // tokio's own constructor panics outside a runtime.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        enlarge_buffers(&SockRef::from(&socket));
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let socket = UdpSocket::from_std(socket)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        super::linux::tune(&socket);
        Ok(Self {
            is_ipv6: socket.local_addr()?.is_ipv6(),
            socket: Arc::new(socket),
            state,
            refuses_marks: AtomicBool::new(false),
            unreachable: Mutex::default(),
            has_unreachable: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    /// Sends and falls back to single datagrams when the device cannot segment.
    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let gathered: Vec<u8>;
        let contents: &[u8] = match transmit.contents {
            [one] => one,
            many => {
                gathered = many
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                &gathered
            }
        };
        let segment_size = transmit.segment_size.filter(|&size| size < contents.len());
        let whole = quinn_udp::Transmit {
            destination: self.outward(transmit.remote),
            ecn: (transmit.ecn.map(ecn_outward))
                .filter(|_| !self.refuses_marks.load(Ordering::Relaxed)),
            contents,
            segment_size,
            src_ip: transmit.local_ip.map(|ip| self.outward_ip(ip)),
        };
        match (self.send_one(&whole), segment_size) {
            // The driver or device refused segmentation (quinn-udp has turned it off for what follows):
            // the same datagrams leave one by one. What does not fit into the socket counts as lost.
            (Err(error), Some(size)) if is_offload_error(&error) => {
                let mut outcome = Ok(());
                for segment in contents.chunks(size.max(1)) {
                    let one = quinn_udp::Transmit {
                        contents: segment,
                        segment_size: None,
                        ..whole.clone()
                    };
                    outcome = self.send_one(&one).or_else(|error| match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(()),
                        _ => Err(error),
                    });
                }
                outcome
            }
            (outcome, _) => outcome,
        }
    }

    /// Sends, without the mark if the system refuses it; then none is set any more.
    fn send_one(&self, transmit: &quinn_udp::Transmit<'_>) -> io::Result<()> {
        let (outcome, is_refused) = past_refused_mark(transmit, |transmit| {
            self.past_stale_errors(is_stale_error, || {
                self.state
                    .try_send(UdpSockRef::from(&*self.socket), transmit)
            })
        });
        if is_refused {
            self.refuses_marks.store(true, Ordering::Relaxed);
            tracing::debug!("the system refuses congestion marks");
        }
        outcome
    }

    fn receive(&self, buffers: &mut [RecvBuffer]) -> io::Result<usize> {
        let count = buffers.len().min(BATCH_SIZE);
        let mut metas = [quinn_udp::RecvMeta::default(); BATCH_SIZE];
        let filled = {
            let mut rest = buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
                IoSliceMut::new(rest.next().map_or(&mut [], |buffer| buffer.storage_mut()))
            });
            // Whatever a receive reports but an empty socket came from outside: ICMP knows more errors than
            // those of `is_stale_error`, and nobody may keep the socket deaf with them.
            self.past_stale_errors(
                |kind| kind != io::ErrorKind::WouldBlock,
                || {
                    let socket = UdpSockRef::from(&*self.socket);
                    self.state
                        .recv(socket, &mut slices[..count], &mut metas[..count])
                },
            )?
        };
        for (buffer, meta) in buffers.iter_mut().zip(&metas).take(filled) {
            buffer.fill(RecvMeta {
                remote: canonical(meta.addr),
                local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                ecn: meta.ecn.map(ecn_inward),
                len: meta.len,
                stride: meta.stride,
            });
        }
        Ok(filled)
    }

    /// Repeats a call while it fails with what an ICMP error for an earlier datagram, perhaps another
    /// peer's, left on the socket: the system then has neither sent nor received.
    fn past_stale_errors<T>(
        &self,
        is_stale: fn(io::ErrorKind) -> bool,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut outcome = call();
        for _ in 0..MAX_STALE_ERRORS {
            match &outcome {
                Err(error) if is_stale(error.kind()) => {
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
            let entry = self
                .socket
                .try_io(Interest::ERROR, || super::linux::next(&self.socket))
                // The error may have come before the runtime saw it: what `try_io` did not look at.
                .or_else(|_| super::linux::next(&self.socket));
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
            let error = waiting.error.get_or_insert_with(|| {
                let socket = Arc::clone(&self.socket);
                Box::pin(async move { socket.ready(Interest::ERROR).await.map(drop) })
            });
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
        self.socket
            .try_io(Interest::WRITABLE, || self.send(transmit))
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        // An error event leaves tokio's readiness at "write closed" for good, so that it reports a full
        // socket as ready. After a second refusal the clock decides when to try again.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(retry) = &mut waiting.retry {
            ready!(retry.as_mut().poll(cx));
            waiting.retry = None;
        }
        for _ in 0..2 {
            ready!(self.socket.poll_send_ready(cx))?;
            match self.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
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
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            match self
                .socket
                .try_io(Interest::READABLE, || self.receive(buffers))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr().map(canonical)
    }

    fn max_send_segments(&self) -> usize {
        self.state.max_gso_segments().max(1)
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
            .finish()
    }
}

/// Sends one datagram, and again without its mark if that is what the system refuses; says whether it is. What is
/// to be segmented is refused for that first.
fn past_refused_mark(
    transmit: &quinn_udp::Transmit<'_>,
    mut send: impl FnMut(&quinn_udp::Transmit<'_>) -> io::Result<()>,
) -> (io::Result<()>, bool) {
    match send(transmit) {
        Err(error)
            if is_offload_error(&error)
                && transmit.ecn.is_some()
                && transmit.segment_size.is_none() =>
        {
            let outcome = send(&quinn_udp::Transmit {
                ecn: None,
                ..transmit.clone()
            });
            let is_refused = outcome.is_ok();
            (outcome, is_refused)
        }
        outcome => (outcome, false),
    }
}

fn enlarge_buffers(socket: &SockRef<'_>) {
    if socket
        .recv_buffer_size()
        .is_ok_and(|size| size < SOCKET_BUFFER)
    {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if socket
        .send_buffer_size()
        .is_ok_and(|size| size < SOCKET_BUFFER)
    {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
}

fn ecn_outward(ecn: Ecn) -> EcnCodepoint {
    match ecn {
        Ecn::Ect0 => EcnCodepoint::Ect0,
        Ecn::Ect1 => EcnCodepoint::Ect1,
        Ecn::Ce => EcnCodepoint::Ce,
    }
}

fn ecn_inward(ecn: EcnCodepoint) -> Ecn {
    match ecn {
        EcnCodepoint::Ect0 => Ecn::Ect0,
        EcnCodepoint::Ect1 => Ecn::Ect1,
        EcnCodepoint::Ce => Ecn::Ce,
    }
}

/// `EIO` and `EINVAL`, which drivers answer to segmentation or marks that they cannot do.
fn is_offload_error(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const EINVAL: i32 = 22;
    cfg!(unix) && matches!(error.raw_os_error(), Some(EIO | EINVAL))
}

/// What an ICMP error for an earlier datagram looks like on a later call.
fn is_stale_error(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSlice;

    use super::*;

    fn loopback() -> UdpTransport {
        UdpTransport::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    async fn send(transport: &UdpTransport, transmit: Transmit<'_>) {
        poll_fn(|cx| transport.poll_send(cx, &transmit))
            .await
            .unwrap();
    }

    async fn receive(transport: &UdpTransport) -> Vec<(Vec<u8>, RecvMeta)> {
        let mut buffers: Vec<_> = (0..BATCH_SIZE).map(|_| RecvBuffer::new(65_536)).collect();
        let count = poll_fn(|cx| transport.poll_recv(cx, &mut buffers))
            .await
            .unwrap();
        buffers[..count]
            .iter()
            .map(|buffer| {
                buffer
                    .received()
                    .map(|(bytes, meta)| (bytes.to_vec(), meta))
                    .unwrap()
            })
            .collect()
    }

    #[cfg(unix)]
    #[test]
    fn a_datagram_whose_mark_is_refused_leaves_without_it() {
        const EINVAL: i32 = 22;
        const EPERM: i32 = 1;
        // The mark; the segment size; the error for what is marked and for what is not; how many are tried;
        // whether it is sent, and whether marks are refused from then on.
        type Case = (
            Option<EcnCodepoint>,
            Option<usize>,
            Option<i32>,
            Option<i32>,
            usize,
            bool,
            bool,
        );
        let mark = Some(EcnCodepoint::Ect0);
        let cases: [Case; 6] = [
            (mark, None, None, None, 1, true, false),
            (mark, None, Some(EINVAL), None, 2, true, true),
            (mark, None, Some(EPERM), None, 1, false, false),
            // Something else is wrong with it.
            (mark, None, Some(EINVAL), Some(EINVAL), 2, false, false),
            (mark, Some(1), Some(EINVAL), None, 1, false, false),
            (None, None, None, Some(EINVAL), 1, false, false),
        ];
        for (ecn, segment_size, marked, plain, tries, is_sent, is_refused) in cases {
            let transmit = quinn_udp::Transmit {
                destination: "127.0.0.1:9".parse().unwrap(),
                ecn,
                contents: &[0; 2],
                segment_size,
                src_ip: None,
            };
            let mut count = 0;
            let (outcome, refused) = past_refused_mark(&transmit, |transmit| {
                count += 1;
                let error = if transmit.ecn.is_some() {
                    marked
                } else {
                    plain
                };
                error.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
            });
            let seen = (count, outcome.is_ok(), refused);
            assert_eq!(
                seen,
                (tries, is_sent, is_refused),
                "{ecn:?} {marked:?} {plain:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_run_arrives_with_its_boundaries_mark_and_addresses() {
        let (a, b) = (loopback(), loopback());
        let bytes: Vec<u8> = (0..2_500_u32).map(|i| i.to_le_bytes()[0]).collect();
        let slices = [IoSlice::new(&bytes[..700]), IoSlice::new(&bytes[700..])];
        let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
        transmit.segment_size = (a.max_send_segments() > 1).then_some(1_000);
        transmit.ecn = Some(Ecn::Ect0);
        transmit.local_ip = Some("127.0.0.1".parse().unwrap());
        send(&a, transmit).await;

        let mut datagrams = Vec::new();
        while datagrams.iter().map(Vec::len).sum::<usize>() < bytes.len() {
            for (train, meta) in receive(&b).await {
                assert_eq!(meta.remote, a.local_addr().unwrap());
                assert_eq!(meta.local_ip, Some("127.0.0.1".parse().unwrap()));
                assert_eq!(meta.ecn, Some(Ecn::Ect0));
                datagrams.extend(train.chunks(meta.stride).map(<[u8]>::to_vec));
            }
        }
        let size = transmit.segment_size.unwrap_or(bytes.len());
        assert_eq!(
            datagrams,
            bytes.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>()
        );
    }

    /// The kernel refuses more segments than it supports as drivers refuse what they cannot do.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_refused_run_leaves_as_single_datagrams() {
        let (a, b) = (loopback(), loopback());
        if a.max_send_segments() == 1 {
            return;
        }
        let bytes: Vec<u8> = (0..200_u8).flat_map(|i| [i; 10]).collect();
        let slices = [IoSlice::new(&bytes)];
        let mut transmit = Transmit::new(b.local_addr().unwrap(), &slices);
        transmit.segment_size = Some(10);
        send(&a, transmit).await;
        assert_eq!(a.max_send_segments(), 1, "segmentation stays off");

        let mut received = Vec::new();
        while received.len() < bytes.len() {
            for (datagram, meta) in receive(&b).await {
                assert_eq!(meta.stride, 10);
                received.extend(datagram);
            }
        }
        assert_eq!(received, bytes);
    }

    #[tokio::test]
    async fn a_dual_stack_socket_reaches_ipv4_and_shows_plain_addresses() {
        let Ok(a) = UdpTransport::bind("[::]:0".parse().unwrap()) else {
            return;
        };
        let b = loopback();
        let slices = [IoSlice::new(b"hello")];
        send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
        let received = receive(&b).await;
        let remote = received[0].1.remote;
        assert_eq!(remote.port(), a.local_addr().unwrap().port());

        let mut answer = Transmit::new(remote, &slices);
        answer.local_ip = received[0].1.local_ip;
        send(&b, answer).await;
        let received = receive(&a).await;
        assert_eq!(received[0].1.remote, b.local_addr().unwrap());
        assert_eq!(received[0].1.local_ip, Some("127.0.0.1".parse().unwrap()));

        let mut again = Transmit::new(b.local_addr().unwrap(), &slices);
        again.local_ip = received[0].1.local_ip;
        send(&a, again).await;
        assert_eq!(receive(&b).await.len(), 1);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn an_unused_port_is_reported_with_the_start_of_the_datagram() {
        for (local, nobody) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::]:0", "127.0.0.1:0")] {
            let Ok(transport) = UdpTransport::bind(local.parse().unwrap()) else {
                continue;
            };
            let unused = std::net::UdpSocket::bind(nobody)
                .and_then(|socket| socket.local_addr())
                .unwrap();
            let slices = [IoSlice::new(b"segment")];
            send(&transport, Transmit::new(unused, &slices)).await;
            let mut buffers = [RecvBuffer::new(65_536)];
            let report = poll_fn(|cx| {
                assert!(transport.poll_recv(cx, &mut buffers).is_pending());
                transport
                    .take_unreachable()
                    .map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            assert_eq!(report.remote, unused, "{local}");
            assert_eq!(&report.quoted[..], b"segment", "{local}");
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn an_icmp_error_costs_no_datagram_to_another_peer() {
        let (a, b) = (loopback(), loopback());
        let unused = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let slices = [IoSlice::new(b"segment")];
        send(&a, Transmit::new(unused, &slices)).await;
        send(&a, Transmit::new(b.local_addr().unwrap(), &slices)).await;
        assert_eq!(receive(&b).await[0].0, b"segment");
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_long_error_queue_is_taken_in_turns() {
        const COUNT: usize = 2 * MAX_DRAINED + 10;
        let a = loopback();
        let unused = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        // A send reports and clears what the one before has left, so each is repeated until it leaves.
        let sender = SockRef::from(&*a.socket);
        for _ in 0..COUNT {
            while sender.send_to(b"segment", &unused.into()).is_err() {}
        }
        let mut buffers = [RecvBuffer::new(65_536)];
        let mut turns = 0;
        let mut taken = 0;
        poll_fn(|cx| {
            turns += 1;
            assert!(a.poll_recv(cx, &mut buffers).is_pending());
            let before = taken;
            taken += std::iter::from_fn(|| a.take_unreachable()).count();
            assert!(taken - before <= MAX_DRAINED, "{taken} after {before}");
            if taken < COUNT {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        assert!(turns >= 3);
    }
}
