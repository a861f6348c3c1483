//! The public datagram transport trait: what an endpoint needs from whatever carries its datagrams.
//!
//! The shape is that of segmentation offload: one send hands over a run of equal-sized datagrams, one
//! receive fills a batch of buffers of which each may hold such a run. A transport that can do neither
//! says `1` in [`max_send_segments`](DatagramTransport::max_send_segments) and fills one datagram per
//! buffer. Datagrams may be lost, reordered, duplicated and damaged; that is what the crate is for.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::TransportStats;
use crate::endpoint::Ecn;

/// Carries datagrams for an [`Endpoint`](crate::Endpoint).
///
/// The crate's own implementation is a UDP socket; a service can bring its own, such as an in-memory
/// pair, a proxy or a simulator. All methods are called without any of the endpoint's locks held but the
/// sender's, and never wait. Errors never end an endpoint: a failed send counts as a lost datagram, a
/// failed receive is counted and tried again, soon at first and then less and less often.
pub trait DatagramTransport: fmt::Debug + Send + Sync + 'static {
    /// Sends one datagram, or a run of datagrams of `segment_size` bytes of which the last may be
    /// shorter.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing can be taken now: the same transmit is handed
    /// to [`poll_send`](Self::poll_send) later. Any other error drops it, all datagrams of the run: as
    /// [`Transmit::is_too_large`] recognizes it if they are larger than the path or its first interface takes, which
    /// says nothing about smaller ones: the connection is told, and what they carried is sent again at once. A transport that has learned that it can send no runs says so in
    /// [`max_send_segments`](Self::max_send_segments), and sends what it was given one by one.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()>;

    /// Does what [`try_send`](Self::try_send) does, or registers the task of `cx` to be woken when it is
    /// worth trying again. Called by one task only.
    ///
    /// # Errors
    ///
    /// As for [`try_send`](Self::try_send), without `WouldBlock`.
    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>>;

    /// Receives into `buffers` from the first one on and returns how many were filled, at least 1; or
    /// registers the task of `cx` to be woken when something arrives or an ICMP error is to be taken.
    /// Called by one task only.
    ///
    /// # Errors
    ///
    /// Whatever the system says. It is counted and the endpoint goes on.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>>;

    /// Returns the address that datagrams are sent from.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Returns how many datagrams one send may carry, at least 1. May fall while in use.
    fn max_send_segments(&self) -> usize {
        1
    }

    /// Returns the largest datagram that can be sent, in bytes. Configurations are clamped to it.
    fn max_datagram_size(&self) -> usize {
        65_507
    }

    /// Returns what is known of the way below, for [`EndpointStats::transport`](crate::EndpointStats::transport).
    fn stats(&self) -> TransportStats {
        TransportStats::default()
    }

    /// Takes the oldest ICMP error that says that nobody listens on a UDP port, if the system reports
    /// such.
    fn take_unreachable(&self) -> Option<Unreachable> {
        None
    }
}

/// One datagram to send, or a run of datagrams of the same size.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Transmit<'a> {
    /// Where it goes.
    pub remote: SocketAddr,
    /// The source address to use; `None` leaves it to the system.
    pub local_ip: Option<IpAddr>,
    /// The mark for the IP header; `None` is Not-ECT.
    pub ecn: Option<Ecn>,
    /// The bytes, gathered in order, at most 65,507 together: a run may begin a slice within a datagram and end it
    /// in the next. Up to 1,024 slices are sent as they are; more may be copied.
    pub contents: &'a [IoSlice<'a>],
    /// Bytes per datagram, the last one may be shorter; `None` sends everything as one datagram.
    pub segment_size: Option<usize>,
}

impl<'a> Transmit<'a> {
    /// Makes a transmit of one datagram without mark or source address.
    pub fn new(remote: SocketAddr, contents: &'a [IoSlice<'a>]) -> Self {
        Self {
            remote,
            local_ip: None,
            ecn: None,
            contents,
            segment_size: None,
        }
    }

    /// Makes the error by which a transport says that a datagram is larger than the path takes.
    pub fn too_large() -> io::Error {
        match EMSGSIZE {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(io::ErrorKind::InvalidInput, TooLarge),
        }
    }

    /// Returns whether an error says that a datagram is larger than the path takes, as
    /// [`too_large`](Self::too_large) does and the system's `EMSGSIZE`.
    pub fn is_too_large(error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(code) => Some(code) == EMSGSIZE,
            None => error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooLarge>),
        }
    }

    /// Copies the contents into one.
    pub(super) fn gather(&self) -> Vec<u8> {
        let len = self.contents.iter().map(|slice| slice.len()).sum();
        let mut gathered = Vec::with_capacity(len);
        for slice in self.contents {
            gathered.extend_from_slice(slice);
        }
        gathered
    }
}

/// What the system answers to a datagram that is too large, where that is known.
const EMSGSIZE: Option<i32> = if cfg!(any(target_os = "linux", target_os = "android")) {
    Some(90)
} else if cfg!(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly",
    target_os = "netbsd",
    target_os = "openbsd"
)) {
    Some(40)
} else if cfg!(windows) {
    Some(10_040)
} else {
    None
};

/// Stands for `EMSGSIZE` where its number is not known.
#[derive(Debug, thiserror::Error)]
#[error("datagram too large for the path")]
struct TooLarge;

/// A buffer that a transport receives into, and what it says of the content.
pub struct RecvBuffer {
    /// Always as long as the buffer was made.
    storage: Vec<u8>,
    meta: Option<RecvMeta>,
}

impl RecvBuffer {
    /// Makes a buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        Self {
            storage: vec![0; capacity],
            meta: None,
        }
    }

    pub(super) fn from_storage(storage: Vec<u8>) -> Self {
        Self {
            storage,
            meta: None,
        }
    }

    pub(super) fn into_storage(self) -> Vec<u8> {
        self.storage
    }

    /// Returns the room to receive into.
    pub fn storage_mut(&mut self) -> &mut [u8] {
        &mut self.storage
    }

    /// Says what was received. A `len` beyond the buffer is cut.
    pub fn fill(&mut self, mut meta: RecvMeta) {
        meta.len = meta.len.min(self.storage.len());
        self.meta = Some(meta);
    }

    /// Forgets what was received.
    pub(super) fn clear(&mut self) {
        self.meta = None;
    }

    /// Returns what was received: the bytes and where they came from; `None` before a
    /// [`fill`](Self::fill).
    pub fn received(&self) -> Option<(&[u8], RecvMeta)> {
        let meta = self.meta?;
        Some((self.storage.get(..meta.len)?, meta))
    }
}

impl fmt::Debug for RecvBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBuffer")
            .field("capacity", &self.storage.len())
            .field("meta", &self.meta)
            .finish()
    }
}

/// Where the content of a [`RecvBuffer`] came from and how it is cut into datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecvMeta {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address that it was sent to, where the system says so; replies leave from it.
    pub local_ip: Option<IpAddr>,
    /// The mark in the IP header; `None` is Not-ECT or unknown.
    pub ecn: Option<Ecn>,
    /// Bytes received, all datagrams together.
    pub len: usize,
    /// Bytes per datagram; the last one may be shorter. 0 if there is only one.
    pub stride: usize,
}

impl RecvMeta {
    /// Describes one datagram of `len` bytes from `remote`.
    pub fn new(remote: SocketAddr, len: usize) -> Self {
        Self {
            remote,
            local_ip: None,
            ecn: None,
            len,
            stride: len,
        }
    }
}

/// An ICMP error: nobody listens on the UDP port that a datagram of ours was sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreachable {
    /// Where the datagram was sent.
    pub remote: SocketAddr,
    /// The start of its payload, as much as the error quoted.
    pub quoted: Bytes,
}

impl Unreachable {
    /// Makes a report that the datagram to `remote` whose payload began with `quoted` found nobody.
    pub fn new(remote: SocketAddr, quoted: Bytes) -> Self {
        Self { remote, quoted }
    }
}
