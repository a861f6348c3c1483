#![doc = include_str!("../README.md")]

#[cfg(feature = "capture")]
pub mod capture;
mod config;
pub mod congestion;
mod connection;
#[cfg(feature = "copy")]
pub mod copy;
mod driver;
mod ecn;
mod endpoint;
mod error;
#[cfg(any(fuzzing, feature = "__internals"))]
#[doc(hidden)]
pub mod internals;
mod listener;
#[cfg(any(test, fuzzing, feature = "sim"))]
pub mod sim;
mod socket;
mod stats;
pub mod tap;
mod timestamp;
#[cfg(feature = "tls")]
pub mod tls;
mod wire;

pub use crate::config::{Config, ConfigBuilder, DropPolicy};
pub use crate::congestion::CongestionControl;
pub use crate::connection::State;
pub use crate::driver::{DatagramTransport, RecvBuffer, RecvMeta, Transmit, Unreachable};
pub use crate::ecn::{Ecn, EcnState};
pub use crate::error::{ConfigError, ConnectionError, EndpointError, TimeoutCause};
pub use crate::listener::ReliableUdpListener;
pub use crate::socket::{
    Endpoint, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReliableUdpSocket, ReuniteError, WriteHalf,
};
pub use crate::stats::{ConnectionStats, EndpointStats, TransportStats};
pub use crate::timestamp::Timestamp;
