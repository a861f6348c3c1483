//! ICMP errors in Linux's error queue (ip(7), `IP_RECVERR`).
//!
//! An unconnected UDP socket is told of an unreachable port only through this queue. The entry's address
//! is where our datagram went, its data the start of our datagram's payload.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use crate::driver::transport::Unreachable;

/// As much of our datagram as is asked for: a whole segment header with options.
const QUOTED_LEN: usize = 128;
/// Room for `sock_extended_err` with an address, packet info and a timestamp.
const CONTROL_LEN: usize = 512;

/// Turns the error queue on for both address families, as far as the socket has them.
pub(super) fn tune(socket: &impl AsFd) {
    let results = (
        setsockopt(socket, sockopt::Ipv4RecvErr, &true),
        setsockopt(socket, sockopt::Ipv6RecvErr, &true),
    );
    if let (Err(v4), Err(v6)) = results {
        tracing::debug!(%v4, %v6, "no error queue; connecting to an unused port will time out");
    }
}

/// Takes the oldest entry of the error queue; `Ok(None)` for one that is not about a refused datagram.
///
/// # Errors
///
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if the queue is empty.
pub(in crate::driver::udp) fn next(socket: &impl AsRawFd) -> io::Result<Option<Unreachable>> {
    let mut quoted = [0_u8; QUOTED_LEN];
    let mut control = [0_u8; CONTROL_LEN];
    let mut iov = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags)?;

    let remote = message.address.as_ref().and_then(socket_addr);
    let is_refusal = message.cmsgs()?.any(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            is_port_unreachable(&error)
        }
        _ => false,
    });
    let len = message.bytes.min(QUOTED_LEN);
    Ok(remote
        .filter(|_| is_refusal)
        .map(|remote| Unreachable::new(remote, Bytes::copy_from_slice(&quoted[..len]))))
}

/// RFC 9293 §3.9.2.2: port unreachable is a hard error; net and host unreachable are soft ones, which
/// the retransmissions outlast.
fn is_port_unreachable(error: &libc::sock_extended_err) -> bool {
    matches!(
        error.ee_origin,
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
    ) && Errno::from_raw(error.ee_errno.cast_signed()) == Errno::ECONNREFUSED
}

pub(super) fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    address.family()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    let v6 = SocketAddrV6::from(*address.as_sockaddr_in6()?);
    Some(match v6.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, v6.port())),
        IpAddr::V6(_) => SocketAddr::V6(v6),
    })
}
