//! What every peer can do: an endpoint for one side, from which connections are made and taken.

pub(crate) mod kcp;
pub(crate) mod kernel;
pub(crate) mod ours;
pub(crate) mod quinn;
pub(crate) mod s2n;
pub(crate) mod utp;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// Which side of the connections an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// A connection that was taken and may still have to be brought up.
pub(crate) type Incoming<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// A transport with its settings.
pub(crate) trait Peer: Send + Sync + 'static {
    type Side: Side;

    /// Makes the one endpoint of a side, on loopback.
    fn bind(&self, role: Role) -> impl Future<Output = io::Result<Self::Side>> + Send;
}

/// The one endpoint of a side.
pub(crate) trait Side: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Where to connect to.
    fn addr(&self) -> io::Result<SocketAddr>;

    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn accept(&self) -> impl Future<Output = io::Result<Incoming<Self::Stream>>> + Send;
}
