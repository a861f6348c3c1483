//! Sends and receives through `quinn-udp`, which knows every platform.

use std::io::{self, IoSliceMut};
use std::sync::{Mutex, PoisonError};

use quinn_udp::{BATCH_SIZE, EcnCodepoint, UdpSockRef, UdpSocketState};

use super::Received;
use super::ready::Socket;
use crate::driver::canonical;
use crate::driver::transport::{RecvBuffer, RecvMeta, Transmit};
use crate::endpoint::Ecn;

/// The system's calls on one socket.
pub(super) struct Io {
    socket: Socket,
    state: UdpSocketState,
    /// Where the slices of one send become one, which is what `quinn-udp` takes.
    gathered: Mutex<Vec<u8>>,
}

impl Io {
    /// Prepares a bound socket.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new(UdpSockRef::from(&*socket))?,
            socket,
            gathered: Mutex::default(),
        })
    }

    /// Returns how many datagrams one send may carry as far as the system says beforehand.
    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends once, as it stands.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if let [one] = transmit.contents {
            return self.send_contiguous(transmit, one);
        }
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.clear();
        for slice in transmit.contents {
            gathered.extend_from_slice(slice);
        }
        self.send_contiguous(transmit, &gathered)
    }

    /// Returns how many datagrams the system has dropped because the socket was full: it does not tell.
    #[expect(clippy::unused_self, reason = "Linux's does tell")]
    pub(super) fn drops(&self) -> u64 {
        0
    }

    fn send_contiguous(&self, transmit: &Transmit<'_>, contents: &[u8]) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.remote,
            ecn: transmit.ecn.map(ecn_outward),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.local_ip,
        };
        self.state
            .try_send(UdpSockRef::from(&*self.socket), &transmit)
    }

    /// Fills `buffers` from the first one on.
    pub(super) fn receive(&self, buffers: &mut [RecvBuffer]) -> io::Result<Received> {
        let count = buffers.len().min(BATCH_SIZE);
        let mut metas = [quinn_udp::RecvMeta::default(); BATCH_SIZE];
        let filled = {
            let mut rest = buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
                IoSliceMut::new(rest.next().map_or(&mut [], |buffer| buffer.storage_mut()))
            });
            let socket = UdpSockRef::from(&*self.socket);
            self.state
                .recv(socket, &mut slices[..count], &mut metas[..count])?
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
        // Some systems fill one buffer at a time.
        let is_drained = false;
        Ok(Received { filled, is_drained })
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
