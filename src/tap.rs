//! Taps: observers that see every segment of an endpoint, for captures, logs and counters of one's own.
//!
//! A [`TapFactory`] goes into [`ConfigBuilder::tap`](crate::ConfigBuilder::tap), so that an endpoint is
//! observed from its first SYN on, also the one that
//! [`ReliableUdpSocket::connect_with`](crate::ReliableUdpSocket::connect_with) makes for itself; or into
//! [`Endpoint::set_tap`](crate::Endpoint::set_tap) of one that runs. The feature `capture` has one that
//! writes pcapng files and text.
//!
//! ```
//! use std::net::SocketAddr;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use reliable_udp::tap::{Tap, TapFactory, TappedSegment};
//! use reliable_udp::{Config, Timestamp};
//!
//! #[derive(Debug, Clone, Default)]
//! struct Bytes(Arc<AtomicU64>);
//!
//! impl Tap for Bytes {
//!     fn on_segment(&mut self, _now: Timestamp, tapped: &TappedSegment<'_>) {
//!         self.0.fetch_add(tapped.segment.len() as u64, Ordering::Relaxed);
//!     }
//! }
//!
//! impl TapFactory for Bytes {
//!     fn tap(&self, _now: Timestamp, _local: SocketAddr) -> Box<dyn Tap> {
//!         Box::new(self.clone())
//!     }
//! }
//!
//! # fn main() -> Result<(), reliable_udp::ConfigError> {
//! let bytes = Bytes::default();
//! let config = Config::builder().tap(bytes.clone()).build()?;
//! # let _ = config;
//! # Ok(())
//! # }
//! ```

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

/// A segment on its way into or out of an endpoint.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TappedSegment<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// UDP address of the peer.
    pub remote: SocketAddr,
    /// UDP address of this side. Its IP address is the one that the datagram was sent to or leaves from,
    /// where that is known, else the one that the endpoint is bound to, which may be unspecified.
    pub local: SocketAddr,
    /// The segment: the whole UDP payload.
    pub segment: &'a [u8],
}

/// Sees every segment in and out of one endpoint.
///
/// It runs inside the endpoint's lock, once per segment: it should copy what it needs and return.
pub trait Tap: Debug + Send {
    /// Called once per segment. `now` is nanoseconds since the endpoint began and never goes backwards.
    fn on_segment(&mut self, now: Timestamp, tapped: &TappedSegment<'_>);
}

/// Makes a [`Tap`] for each endpoint that is to be observed.
pub trait TapFactory: Debug + Send + Sync {
    /// Makes the tap of one endpoint, whose clock shows `now` and which is bound to `local`.
    fn tap(&self, now: Timestamp, local: SocketAddr) -> Box<dyn Tap>;
}
