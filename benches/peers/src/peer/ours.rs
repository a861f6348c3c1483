//! reliable-udp: its defaults, and Nagle's algorithm off as with the kernel's TCP here.

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use reliable_udp::{Config, Endpoint, ReliableUdpListener, ReliableUdpSocket};

use super::{Incoming, Peer, Role, Side};

/// The service port of an endpoint.
const PORT: u16 = 1;

pub(crate) struct Ours {
    /// The size of every datagram; without one, the defaults.
    pub(crate) datagram: Option<usize>,
}

pub(crate) struct Served {
    endpoint: Endpoint,
    listener: Option<ReliableUdpListener>,
}

impl Peer for Ours {
    type Side = Served;

    async fn bind(&self, role: Role) -> io::Result<Served> {
        let mut config = Config::builder().nodelay(true);
        if let Some(bytes) = self.datagram {
            config = config.datagram_size(bytes);
        }
        let config = config.build().map_err(io::Error::other)?;
        let endpoint = Endpoint::bind((Ipv4Addr::LOCALHOST, 0), config).await?;
        let listener = match role {
            Role::Server => Some(endpoint.listen(PORT)?),
            Role::Client => None,
        };
        Ok(Served { endpoint, listener })
    }
}

impl Side for Served {
    type Stream = ReliableUdpSocket;

    fn addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<ReliableUdpSocket> {
        self.endpoint.connect(to).await
    }

    async fn accept(&self) -> io::Result<Incoming<ReliableUdpSocket>> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let (stream, _) = listener.accept().await?;
        Ok(Box::pin(ready(Ok(stream))))
    }
}
