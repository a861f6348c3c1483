//! What is asked of the UDP socket below an endpoint.

use super::{ConfigBuilder, KIB, MIB};
use crate::error::ConfigError;

/// The socket's own buffers, in bytes; `None` leaves one to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketBuffers {
    pub(crate) send: Option<usize>,
    pub(crate) receive: Option<usize>,
}

impl Default for SocketBuffers {
    fn default() -> Self {
        // The usual 208 KiB overflow between two turns of the driver at a few Gbit/s.
        Self {
            send: Some(4 * MIB),
            receive: Some(4 * MIB),
        }
    }
}

impl SocketBuffers {
    pub(super) fn check(self) -> Result<(), ConfigError> {
        let checks = [
            ("send_socket_buffer", self.send),
            ("receive_socket_buffer", self.receive),
        ];
        for (field, value) in checks {
            if let Some(value) = value
                && !(4 * KIB..=1024 * MIB).contains(&value)
            {
                return Err(ConfigError::OutOfRange {
                    field,
                    value: value.to_string(),
                    range: "4 KiB to 1 GiB",
                });
            }
        }
        Ok(())
    }
}

impl ConfigBuilder {
    /// Sets what is asked of the system for the UDP socket's send buffer (`SO_SNDBUF`), 4 KiB to 1 GiB, when an
    /// endpoint is made; `None` leaves it as it is. Default: 4 MiB. The system may grant less: Linux no more than
    /// `net.core.wmem_max`, unless the process has `CAP_NET_ADMIN`, which is made use of. A socket that is taken over
    /// is only enlarged. [`EndpointStats::transport`](crate::EndpointStats::transport) says what was granted.
    pub fn send_socket_buffer(mut self, bytes: Option<usize>) -> Self {
        self.config.socket_buffers.send = bytes;
        self
    }

    /// Sets what is asked of the system for the UDP socket's receive buffer (`SO_RCVBUF`), as
    /// [`send_socket_buffer`](Self::send_socket_buffer) does for sending; on Linux the limit is `net.core.rmem_max`.
    /// It holds what arrives between two turns of the endpoint's task; what does not fit is dropped by the system.
    pub fn receive_socket_buffer(mut self, bytes: Option<usize>) -> Self {
        self.config.socket_buffers.receive = bytes;
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, ConfigError};

    #[test]
    fn a_rejected_size_is_named() {
        let build = || Config::builder();
        let cases = [
            (
                "send_socket_buffer",
                build().send_socket_buffer(Some(1_000)),
            ),
            (
                "receive_socket_buffer",
                build().receive_socket_buffer(Some(2 << 30)),
            ),
        ];
        for (name, builder) in cases {
            match builder.build() {
                Err(ConfigError::OutOfRange { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let system = build().send_socket_buffer(None).receive_socket_buffer(None);
        assert!(system.build().is_ok());
    }
}
