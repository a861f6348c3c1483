//! Receiving, with what Linux tells about a datagram: the boundaries of a run that the kernel has coalesced
//! (`UDP_GRO`), congestion mark, local address, and how many datagrams the full socket has dropped
//! (`SO_RXQ_OVFL`).
//!
//! Long runs, as of a bulk transfer, are taken by one `recvmsg(2)` each, without an allocation. Where datagrams come
//! alone or in numbers, `recvmmsg(2)` takes them with a third less time each, and sees by itself that nothing more
//! waits; its headers are made anew for each call, because those of `nix` forget between calls how much room the
//! control messages have.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, recvmsg,
};

use super::errors::socket_addr;
use crate::driver::transport::{RecvBuffer, RecvMeta};
use crate::driver::udp::Received;
use crate::endpoint::Ecn;

/// Room for the control messages of one datagram: drops, segment size, packet info and mark take 112 bytes at
/// most; with less the last ones would be cut off.
const CONTROL_LEN: usize = 256;
/// So many runs in one turn make the next turn ask for several per call in any case.
const MANY: usize = 6;
/// Bytes of a run beside whose copying a system call costs little.
const LONG_RUN: usize = 16 * 1024;
/// Datagrams or runs per `recvmmsg`.
const MAX_BATCH: usize = 32;

/// What is remembered from one receive to the next.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Whether the latest turn found nothing but a few long runs.
    is_bulk: AtomicBool,
    /// Datagrams that the kernel has dropped because the socket was full.
    drops: AtomicU64,
}

/// What one message's control messages say.
struct Described {
    meta: RecvMeta,
    /// The kernel's counter, which wraps; `None` before the first drop.
    drops: Option<u32>,
}

impl Receiver {
    pub(super) fn drops(&self) -> u64 {
        self.drops.load(Ordering::Relaxed)
    }

    /// Fills `buffers` from the first one on.
    pub(super) fn receive(
        &self,
        socket: &impl AsRawFd,
        buffers: &mut [RecvBuffer],
    ) -> io::Result<Received> {
        let fd = socket.as_raw_fd();
        let received = if self.is_bulk.load(Ordering::Relaxed) {
            self.receive_singly(fd, buffers)
        } else {
            self.receive_batch(fd, buffers)
        };
        if let Ok(Received { filled, .. }) = received {
            let mut runs = buffers.iter().take(filled).filter_map(RecvBuffer::received);
            let is_bulk = filled < MANY && runs.all(|(run, _)| run.len() >= LONG_RUN);
            self.is_bulk.store(is_bulk, Ordering::Relaxed);
        }
        received
    }

    fn receive_singly(&self, fd: RawFd, buffers: &mut [RecvBuffer]) -> io::Result<Received> {
        let mut filled = 0;
        while let Some(buffer) = buffers.get_mut(filled) {
            let mut control = [0_u8; CONTROL_LEN];
            let mut slices = [IoSliceMut::new(buffer.storage_mut())];
            let outcome = recvmsg::<SockaddrStorage>(
                fd,
                &mut slices,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            );
            let described = match outcome.map_err(io::Error::from) {
                Ok(message) => describe(&message),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    let is_drained = error.kind() == io::ErrorKind::WouldBlock;
                    return Ok(Received { filled, is_drained });
                }
            };
            if let Some(described) = described {
                self.on_drops(described.drops);
                buffer.fill(described.meta);
                filled += 1;
            }
        }
        let is_drained = false;
        Ok(Received { filled, is_drained })
    }

    fn receive_batch(&self, fd: RawFd, buffers: &mut [RecvBuffer]) -> io::Result<Received> {
        let count = buffers.len().min(MAX_BATCH);
        let mut metas = [const { None }; MAX_BATCH];
        let filled = {
            let mut headers =
                MultiHeaders::<SockaddrStorage>::preallocate(count, Some(vec![0; CONTROL_LEN]));
            let mut rest = buffers.iter_mut();
            let mut slices: [[IoSliceMut<'_>; 1]; MAX_BATCH] = std::array::from_fn(|_| {
                let room = rest
                    .next()
                    .map_or(&mut [][..], |buffer| buffer.storage_mut());
                [IoSliceMut::new(room)]
            });
            let messages = recvmmsg(
                fd,
                &mut headers,
                slices.iter_mut().take(count),
                MsgFlags::MSG_DONTWAIT,
                None,
            )?;
            let mut filled = 0;
            for (message, meta) in messages.zip(&mut metas) {
                *meta = describe(&message);
                filled += 1;
            }
            filled
        };
        for (buffer, described) in buffers.iter_mut().zip(metas).take(filled) {
            match described {
                Some(described) => {
                    self.on_drops(described.drops);
                    buffer.fill(described.meta);
                }
                None => buffer.clear(),
            }
        }
        // The kernel ends a batch early where nothing more waits, or where an ICMP error does; that one has
        // signalled itself since.
        let is_drained = filled < count;
        Ok(Received { filled, is_drained })
    }

    fn on_drops(&self, counter: Option<u32>) {
        let Some(counter) = counter else {
            return;
        };
        let known = self.drops.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the kernel's counter has as many bits"
        )]
        let more = counter.wrapping_sub(known as u32);
        self.drops.store(known + u64::from(more), Ordering::Relaxed);
    }
}

/// Reads what came with a message; `None` for one that cannot be used, because it was cut or comes from nowhere.
fn describe(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Described> {
    let remote = message.address.as_ref().and_then(socket_addr)?;
    let mut meta = RecvMeta::new(remote, message.bytes);
    let mut drops = None;
    // An error says that control messages were cut off: a run without its boundaries is none.
    for control in message.cmsgs().ok()? {
        match control {
            ControlMessageOwned::UdpGroSegments(size) => {
                meta.stride = usize::try_from(size).unwrap_or(0);
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                // Not the header's address, which may be a broadcast: the one to answer from.
                let ip = IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                meta.local_ip = Some(ip).filter(|ip| !ip.is_unspecified());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = IpAddr::from(info.ipi6_addr.s6_addr).to_canonical();
                meta.local_ip = Some(ip).filter(|ip| !ip.is_multicast());
            }
            ControlMessageOwned::Ipv4Tos(tos) => meta.ecn = codepoint(tos),
            ControlMessageOwned::Ipv6TClass(class) => {
                meta.ecn = class
                    .to_le_bytes()
                    .first()
                    .and_then(|&class| codepoint(class));
            }
            ControlMessageOwned::RxqOvfl(counter) => drops = Some(counter),
            _ => {}
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        // Whole datagrams of a run are as good as ever.
        meta.len = meta.len.checked_div(meta.stride)? * meta.stride;
        if meta.stride >= message.bytes {
            return None;
        }
    }
    Some(Described { meta, drops })
}

/// RFC 3168 §5.
fn codepoint(traffic_class: u8) -> Option<Ecn> {
    match traffic_class & 0b11 {
        0b01 => Some(Ecn::Ect1),
        0b10 => Some(Ecn::Ect0),
        0b11 => Some(Ecn::Ce),
        _ => None,
    }
}
