//! Sends and receives by Linux's own calls: a send takes the slices as they are, with one `sendmsg(2)` for a run
//! of datagrams (`UDP_SEGMENT`, udp(7)). `quinn-udp` only prepares the socket.

mod control;
mod errors;
mod receive;

use std::io::{self, IoSlice};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{MsgHdr, SockAddr, SockRef};

use self::control::Control;
use self::receive::Receiver;
use super::Received;
use super::ready::Socket;
use crate::driver::transport::{RecvBuffer, Transmit};

pub(super) use self::errors::next;

/// `UIO_MAXIOV`: more slices are refused as a message that is too long.
const MAX_SLICES: usize = 1_024;

/// The system's calls on one socket.
pub(super) struct Io {
    socket: Socket,
    max_segments: usize,
    receiver: Receiver,
}

impl Io {
    /// Prepares a bound socket.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&*socket))?;
        // quinn-udp 0.6.3 turns timestamps on, which nobody here reads.
        if let Err(error) = setsockopt(&*socket, sockopt::ReceiveTimestampns, &false) {
            tracing::debug!(%error, "receive timestamps stay on");
        }
        if let Err(error) = setsockopt(&*socket, sockopt::RxqOvfl, &1) {
            tracing::debug!(%error, "the kernel does not tell what it drops");
        }
        errors::tune(&*socket);
        Ok(Self {
            max_segments: state.max_gso_segments(),
            socket,
            receiver: Receiver::default(),
        })
    }

    /// Returns how many datagrams one send may carry as far as the system says beforehand.
    pub(super) fn max_segments(&self) -> usize {
        self.max_segments
    }

    /// Sends once, as it stands.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let gathered;
        let one;
        let contents = if transmit.contents.len() > MAX_SLICES {
            gathered = transmit.gather();
            one = [IoSlice::new(&gathered)];
            &one
        } else {
            transmit.contents
        };
        let remote = SockAddr::from(transmit.remote);
        let control = Control::new(transmit);
        let message = MsgHdr::new()
            .with_addr(&remote)
            .with_buffers(contents)
            .with_control(control.as_slice());
        loop {
            match SockRef::from(&*self.socket).sendmsg(&message, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills `buffers` from the first one on.
    pub(super) fn receive(&self, buffers: &mut [RecvBuffer]) -> io::Result<Received> {
        self.receiver.receive(&*self.socket, buffers)
    }

    /// Returns how many datagrams the kernel has dropped because the socket was full, as it has told so far.
    pub(super) fn drops(&self) -> u64 {
        self.receiver.drops()
    }
}
