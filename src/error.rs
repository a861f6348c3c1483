//! Public error types and how they appear as [`std::io::Error`].
//!
//! The functions that mirror tokio's return `io::Result`; the typed reason is the source of the
//! `io::Error` and can be taken out with [`ConnectionError::from_io`].

use std::io;
use std::time::Duration;

/// Why a connection ended other than by an orderly close. Both halves and all waiters see the same one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Nobody listens there: the peer answered our SYN with RST (RFC 9293 §3.10.7.3), or the
    /// system reported the UDP port unreachable while connecting.
    #[error("connection refused by the peer")]
    Refused,
    /// The peer reset the connection (RFC 9293 §3.5.2).
    #[error("connection reset by the peer")]
    Reset,
    /// This side aborted the connection.
    #[error("connection aborted locally")]
    Aborted,
    /// The peer stayed silent for too long.
    #[error("connection timed out: {0}")]
    TimedOut(TimeoutCause),
    /// The endpoint that carried the connection was closed or its runtime is gone.
    #[error("endpoint closed")]
    EndpointClosed,
}

impl ConnectionError {
    /// Returns the [`io::ErrorKind`] under which this error is reported.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Refused => io::ErrorKind::ConnectionRefused,
            Self::Reset => io::ErrorKind::ConnectionReset,
            Self::Aborted | Self::EndpointClosed => io::ErrorKind::ConnectionAborted,
            Self::TimedOut(_) => io::ErrorKind::TimedOut,
        }
    }

    /// Returns the typed reason inside an [`io::Error`] that this crate made, if it holds one.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Which timer or limit ended a silent connection. Each is a field of [`Config`](crate::Config).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeoutCause {
    /// The SYN or SYN-ACK was sent again as often as `syn_retries` allows.
    #[error("no answer to the handshake after {retries} retransmissions (syn_retries)")]
    SynRetries {
        /// How often it was retransmitted.
        retries: u32,
    },
    /// The handshake did not finish within `connect_timeout`.
    #[error("handshake not finished within {0:?} (connect_timeout)")]
    ConnectTimeout(Duration),
    /// The same data was retransmitted as often as `data_retries` allows.
    #[error("no acknowledgment after {retries} retransmissions (data_retries)")]
    DataRetries {
        /// How often it was retransmitted.
        retries: u32,
    },
    /// Sent data stayed unacknowledged, or the peer's zero window unanswered, for `user_timeout`.
    #[error("no acknowledgment for {0:?} (user_timeout)")]
    UserTimeout(Duration),
    /// The peer did not answer the keepalive probes.
    #[error("no answer to {probes} keepalive probes (keepalive)")]
    Keepalive {
        /// How many were sent.
        probes: u32,
    },
    /// Nothing arrived for `idle_timeout`.
    #[error("nothing received for {0:?} (idle_timeout)")]
    IdleTimeout(Duration),
    /// The connection lingered in the background for `linger` after its socket was dropped.
    #[error("not finished within {0:?} of being dropped (linger)")]
    Linger(Duration),
}

/// Why a [`Config`](crate::Config) was not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value lies outside its range.
    #[error("{field} is {value}, outside {range}")]
    OutOfRange {
        /// The builder method's name.
        field: &'static str,
        /// The rejected value with its unit.
        value: String,
        /// The accepted range with its unit.
        range: &'static str,
    },
    /// Two values contradict each other.
    #[error("{field} is {value}, but {conflict}")]
    Conflict {
        /// The builder method's name.
        field: &'static str,
        /// The rejected value with its unit.
        value: String,
        /// What it contradicts.
        conflict: &'static str,
    },
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Why a connection could not be started or a port not be listened on, before any segment was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The address cannot be reached from this endpoint's socket, for example IPv6 from an IPv4 one, port 0
    /// or an unspecified address.
    #[error("cannot connect to {0}: {1}")]
    InvalidAddress(std::net::SocketAddr, &'static str),
    /// Every virtual port towards this peer is taken.
    #[error("no free virtual port towards {0}")]
    PortsExhausted(std::net::SocketAddr),
    /// The virtual port is none: 0.
    #[error("virtual port {0} cannot be listened on")]
    InvalidPort(u16),
    /// The virtual port is already listened on or used.
    #[error("virtual port {0} is in use")]
    PortInUse(u16),
    /// The endpoint carries as many connections as `max_connections` allows.
    #[error("the endpoint already carries {0} connections (max_connections)")]
    TooManyConnections(usize),
    /// The endpoint's connections take as much memory as `max_memory` allows.
    #[error("the endpoint's connections already take {0} bytes (max_memory)")]
    MemoryExhausted(usize),
    /// The endpoint was closed.
    #[error("endpoint closed")]
    Closed,
}

impl EndpointError {
    /// Returns the [`io::ErrorKind`] under which this error is reported.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::InvalidAddress(..) | Self::InvalidPort(_) => io::ErrorKind::InvalidInput,
            Self::PortsExhausted(_) | Self::PortInUse(_) => io::ErrorKind::AddrInUse,
            Self::TooManyConnections(_) | Self::MemoryExhausted(_) => io::ErrorKind::QuotaExceeded,
            Self::Closed => io::ErrorKind::ConnectionAborted,
        }
    }
}

impl EndpointError {
    /// Returns the typed reason inside an [`io::Error`] that this crate made, if it holds one.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<EndpointError> for io::Error {
    fn from(error: EndpointError) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_typed_reason_survives_the_trip_through_io_error() {
        let cause = ConnectionError::TimedOut(TimeoutCause::Keepalive { probes: 9 });
        let error = io::Error::from(cause.clone());
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(ConnectionError::from_io(&error), Some(&cause));
        assert_eq!(
            error.to_string(),
            "connection timed out: no answer to 9 keepalive probes (keepalive)"
        );
    }
}
