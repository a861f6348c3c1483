#![doc = include_str!("../README.md")]

mod config;
pub mod congestion;
mod connection;
mod endpoint;
mod error;
mod stats;
mod timestamp;
mod wire;

pub use crate::config::{Config, ConfigBuilder, DropPolicy};
pub use crate::congestion::CongestionControl;
pub use crate::connection::State;
pub use crate::error::{ConfigError, ConnectionError, EndpointError, TimeoutCause};
pub use crate::stats::{ConnectionStats, EndpointStats};
pub use crate::timestamp::Timestamp;
