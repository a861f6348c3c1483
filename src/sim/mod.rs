//! The seeded network simulator (feature `sim`).
//!
//! A [`Link`] decides the fate of each datagram as a pure function of its seed, its [`LinkConfig`]
//! and what is sent over it. On it is built a world on a virtual clock in which bare connections and
//! sans-IO endpoints talk to each other without a runtime.

mod link;
#[cfg(any(test, feature = "__internals"))]
pub mod network;
mod rng;
#[cfg(any(test, feature = "__internals"))]
mod schedule;

pub use self::link::{Deliveries, Delivery, Link, LinkConfig, LinkConfigBuilder, LinkStats};
pub use self::rng::Rng;
