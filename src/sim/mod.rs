//! The seeded network simulator (feature `sim`).
//!
//! A [`Link`] decides the fate of each datagram as a pure function of its seed, its [`LinkConfig`]
//! and what is sent over it.

mod link;
mod rng;

pub use self::link::{Deliveries, Delivery, Link, LinkConfig, LinkConfigBuilder, LinkStats};
pub use self::rng::Rng;
