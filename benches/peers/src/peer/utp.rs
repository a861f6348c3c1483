//! librqbit-utp: its defaults, and Nagle's algorithm off as with the kernel's TCP here, and more connections at once.

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use librqbit_utp::{SocketOpts, UtpSocketUdp, UtpSocketUdpOpts, UtpStream};

use super::{Incoming, Peer, Role, Side};

/// How many a socket may hold: by default 128.
const CONNECTIONS: usize = 16_384;

pub(crate) struct Utp;

pub(crate) struct Served(Arc<UtpSocketUdp>);

impl Peer for Utp {
    type Side = Served;

    async fn bind(&self, _: Role) -> io::Result<Served> {
        let socket = UtpSocketUdp::new_udp_with_opts(
            (Ipv4Addr::LOCALHOST, 0).into(),
            SocketOpts {
                disable_nagle: true,
                max_live_vsocks: NonZeroUsize::new(CONNECTIONS),
                ..SocketOpts::default()
            },
            UtpSocketUdpOpts::default(),
        );
        Ok(Served(socket.await.map_err(io::Error::other)?))
    }
}

impl Side for Served {
    type Stream = UtpStream;

    fn addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.bind_addr())
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<UtpStream> {
        self.0.connect(to).await.map_err(io::Error::other)
    }

    async fn accept(&self) -> io::Result<Incoming<UtpStream>> {
        let stream = self.0.accept().await.map_err(io::Error::other)?;
        Ok(Box::pin(ready(Ok(stream))))
    }
}
