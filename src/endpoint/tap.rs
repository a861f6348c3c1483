//! The tap: one observer that sees every segment of an endpoint, for capture and logs.

use std::fmt::Debug;
use std::net::SocketAddr;

use crate::timestamp::Timestamp;

/// Which way a segment went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// From the peer, after its integrity check passed.
    Incoming,
    /// To the peer, as handed to the transport.
    Outgoing,
}

/// Sees every segment in and out of one endpoint.
///
/// It runs inside the endpoint's lock: it should copy what it needs and return.
pub trait Tap: Debug + Send {
    /// Called once per segment: `remote` and `local` are UDP addresses (`local` is the one that the
    /// datagram was sent to, where the system tells), `segment` is the whole UDP payload.
    fn on_segment(
        &mut self,
        now: Timestamp,
        direction: Direction,
        remote: SocketAddr,
        local: SocketAddr,
        segment: &[u8],
    );
}
