//! Waiting for a socket: until something has arrived, until there is room, until an error is queued.

#[cfg(any(test, not(unix)))]
mod portable;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(super) use self::portable::{Readiness, Socket};
#[cfg(unix)]
pub(super) use self::unix::{Readiness, Socket};
