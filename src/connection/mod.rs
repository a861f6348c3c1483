//! The sans-IO connection.

mod offset;
mod range_set;
mod receiver;
mod state;

pub use self::offset::Offset;
pub use self::state::State;
