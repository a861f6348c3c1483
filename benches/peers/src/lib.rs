//! reliable-udp beside its peers: see README.md.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod cli;
mod figures;
mod peer;
mod table;
mod work;

pub use cli::main;
