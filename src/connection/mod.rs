//! The sans-IO connection.

mod offset;
mod range_set;
mod receiver;
mod recovery;
mod state;

pub use self::offset::Offset;
pub use self::state::State;
