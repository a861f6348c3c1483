//! The wire format.

mod seq;

pub use self::seq::SeqNumber;
