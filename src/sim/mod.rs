//! The seeded network simulator (feature `sim`).
//!
//! A [`Link`] decides the fate of each datagram as a pure function of its seed, its [`LinkConfig`]
//! and what is sent over it. Three things are built on it:
//!
//! - [`pair`] and [`SimNetwork`]: in-memory datagram transports on tokio's clock, so that whole
//!   endpoints run over a simulated network, at full speed or in paused time;
//! - [`Impaired`]: a real transport with a link model before and behind it;
//! - inside the crate, a world on a virtual clock in which bare connections and sans-IO endpoints
//!   talk to each other without a runtime; thousands of seeds of it run with the unit tests.

#[cfg(any(test, fuzzing, feature = "__internals"))]
pub(crate) mod application;
mod clock;
#[cfg(any(test, fuzzing, feature = "__internals"))]
mod edges;
mod impaired;
mod link;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub(crate) mod network;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub(crate) mod node;
#[cfg(test)]
mod path_mtu;
mod rng;
#[cfg(test)]
mod scenarios;
mod schedule;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub(crate) mod sweep;
mod transport;

pub use self::impaired::Impaired;
pub use self::link::{
    Deliveries, Delivery, Link, LinkConfig, LinkConfigBuilder, LinkQueue, LinkStats, MarkTreatment,
    RateTrace, RateTraceError,
};
pub use self::rng::Rng;
pub use self::transport::{SimNetwork, SimTransport, pair};
