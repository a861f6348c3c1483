//! `Endpoint`: one UDP socket, or another datagram transport, and all connections over it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::ToSocketAddrs;

use super::{ReliableUdpSocket, SERVICE_PORT, Stream, none_worked};
use crate::driver::{self, Core, DatagramTransport, Handle, UdpTransport};
use crate::listener::ReliableUdpListener;
use crate::tap::TapFactory;
use crate::{Config, ConnectionError, EndpointStats};

/// One UDP socket and all connections over it, in both directions.
///
/// An endpoint listens on virtual ports and connects from virtual ports; the UDP socket has one port of
/// its own. Clones are handles to the same endpoint. After the last handle, socket and listener is
/// dropped the UDP port is free again, as soon as no connection lingers in the background.
///
/// An endpoint, and every socket and listener that brings one of its own, is driven by a task on the
/// tokio runtime in which it was made. That runtime must have I/O and time enabled, as
/// [`tokio::net`] and [`tokio::time`] demand; without them tokio panics.
///
/// ```no_run
/// use std::time::Duration;
/// use reliable_udp::{Config, Endpoint};
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let endpoint = Endpoint::bind("[::]:4433", Config::default()).await?;
/// let listener = endpoint.listen(7)?;
/// let peer = endpoint.connect("192.0.2.1:4433").await?;
/// # drop((listener, peer));
/// endpoint.close(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Endpoint {
    handle: Handle,
    /// As given, less what the transport cannot carry; all connections without one of their own share it.
    config: Arc<Config>,
}

impl Endpoint {
    /// Binds a UDP socket. The configuration is that of the endpoint and, unless another is given, of its
    /// connections.
    ///
    /// An unspecified IPv6 address takes IPv4 too, where the system can. Port 0 draws a free port.
    ///
    /// # Errors
    ///
    /// Whatever the system says of the last address that `addr` resolves to.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind<A: ToSocketAddrs>(addr: A, config: Config) -> io::Result<Self> {
        let mut last = None;
        for local in tokio::net::lookup_host(addr).await? {
            match UdpTransport::bind(local, config.socket_buffers) {
                Ok(transport) => return Self::with_transport(Arc::new(transport), config),
                Err(error) => last = Some(error),
            }
        }
        Err(none_worked(last))
    }

    /// Takes over a bound UDP socket, for example one that has been used for hole punching. It must not
    /// be read from elsewhere any more.
    ///
    /// One endpoint uses one core at a time. Several on one port, on sockets with `SO_REUSEPORT`, use several:
    /// the example `reuseport` shows how, and says what has to hold.
    ///
    /// # Errors
    ///
    /// Whatever the system says, or that there is no tokio runtime.
    pub fn from_socket(socket: std::net::UdpSocket, config: Config) -> io::Result<Self> {
        let transport = UdpTransport::from_std(socket, config.socket_buffers)?;
        Self::with_transport(Arc::new(transport), config)
    }

    /// Uses another datagram transport.
    ///
    /// # Errors
    ///
    /// Whatever the transport says, or that there is no tokio runtime.
    pub fn with_transport(
        transport: Arc<dyn DatagramTransport>,
        config: Config,
    ) -> io::Result<Self> {
        let config = driver::fit(config, &*transport);
        let handle = driver::start(transport, &config)?;
        Ok(Self {
            handle,
            config: Arc::new(config),
        })
    }

    /// The same without a runtime: the caller runs the driver. For `tests/races` only.
    ///
    /// # Errors
    ///
    /// Whatever the transport says.
    #[cfg(loom)]
    #[doc(hidden)]
    pub fn with_driver(
        transport: Arc<dyn DatagramTransport>,
        config: Config,
    ) -> io::Result<(Self, impl Future<Output = ()> + Send + Unpin + use<>)> {
        let config = Arc::new(driver::fit(config, &*transport));
        let (handle, driver) = driver::open(transport, &config)?;
        Ok((Self { handle, config }, driver))
    }

    /// Connects to a peer's service port (virtual port 1).
    ///
    /// # Errors
    ///
    /// As for [`ReliableUdpSocket::connect`]; [`InvalidInput`](io::ErrorKind::InvalidInput) for an address
    /// that this endpoint's socket cannot reach.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up; nothing else is lost.
    pub async fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<ReliableUdpSocket> {
        self.open_any(addr, SERVICE_PORT, &self.config, false).await
    }

    /// Connects to a virtual port with a configuration.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As for [`connect`](Self::connect).
    pub async fn connect_with<A: ToSocketAddrs>(
        &self,
        addr: A,
        port: u16,
        config: Config,
    ) -> io::Result<ReliableUdpSocket> {
        let config = Arc::new(driver::fit(config, self.handle.transport()));
        self.open_any(addr, port, &config, false).await
    }

    /// Connects to a peer that does the same towards this endpoint, to get through the NATs between
    /// them: exactly one connection results. Both name the same virtual port, which is local and remote
    /// port of the connection.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As for [`connect`](Self::connect).
    pub async fn rendezvous<A: ToSocketAddrs>(
        &self,
        addr: A,
        port: u16,
    ) -> io::Result<ReliableUdpSocket> {
        self.open_any(addr, port, &self.config, true).await
    }

    /// As [`rendezvous`](Self::rendezvous), with a configuration of its own.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As for [`connect`](Self::connect).
    pub async fn rendezvous_with<A: ToSocketAddrs>(
        &self,
        addr: A,
        port: u16,
        config: Config,
    ) -> io::Result<ReliableUdpSocket> {
        let config = Arc::new(driver::fit(config, self.handle.transport()));
        self.open_any(addr, port, &config, true).await
    }

    async fn open_any<A: ToSocketAddrs>(
        &self,
        addr: A,
        port: u16,
        config: &Arc<Config>,
        is_rendezvous: bool,
    ) -> io::Result<ReliableUdpSocket> {
        let mut last = None;
        for remote in tokio::net::lookup_host(addr).await? {
            match self.open(remote, port, config, is_rendezvous).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(none_worked(last))
    }

    async fn open(
        &self,
        remote: SocketAddr,
        port: u16,
        config: &Arc<Config>,
        is_rendezvous: bool,
    ) -> io::Result<ReliableUdpSocket> {
        let drop_policy = config.drop_policy;
        let config = Arc::clone(config);
        let id = self.handle.enter(|core, now, _| {
            core.check_open()?;
            let id = if is_rendezvous {
                (core.endpoint).rendezvous_shared(now, remote, port, config)?
            } else {
                core.endpoint.connect_shared(now, remote, port, config)?
            };
            core.adopt(id);
            Ok::<_, crate::EndpointError>(id)
        })?;
        // From here on, dropping the future releases the connection.
        let stream = Stream::new(self.handle.clone(), id, drop_policy);
        stream.connected().await?;
        Ok(ReliableUdpSocket::new(stream))
    }

    /// Listens on a virtual port with the endpoint's configuration.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if the port is listened on already,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for port 0.
    pub fn listen(&self, port: u16) -> io::Result<ReliableUdpListener> {
        self.listen_with(port, &self.config)
    }

    /// Listens on a virtual port with a configuration.
    ///
    /// # Errors
    ///
    /// As for [`listen`](Self::listen).
    pub fn listen_with(&self, port: u16, config: &Config) -> io::Result<ReliableUdpListener> {
        let drop_policy = config.drop_policy;
        let config = driver::fit(config.clone(), self.handle.transport());
        let accept = self.handle.update(|core, _, _| core.listen(port, config))?;
        Ok(ReliableUdpListener::new(
            self.handle.clone(),
            port,
            drop_policy,
            accept,
        ))
    }

    /// Returns the UDP address of the endpoint.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.transport().local_addr()
    }

    /// Shows every segment from now on to an observer, in place of the one before, or to none. To see the
    /// first ones too, use [`ConfigBuilder::tap`](crate::ConfigBuilder::tap).
    ///
    /// # Errors
    ///
    /// Whatever the system says of the local address.
    pub fn set_tap(&self, factory: Option<&dyn TapFactory>) -> io::Result<()> {
        let local = self.local_addr()?;
        let tap = factory.map(|factory| factory.tap(self.handle.clock().now(), local));
        // Foreign code makes and drops taps: without the lock.
        let before = self.handle.update(|core, _, _| core.endpoint.set_tap(tap));
        drop(before);
        Ok(())
    }

    /// Returns a snapshot of what the endpoint has counted.
    pub fn stats(&self) -> EndpointStats {
        self.handle.stats()
    }

    /// Waits until no connection is left, those included that go on in the background after their
    /// sockets were dropped; TIME-WAIT does not count.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only looks.
    pub async fn wait_idle(&self) {
        self.handle.wait_idle().await;
    }

    /// Stops listening and connecting, gives the existing connections until `deadline` from now to come
    /// to their end, and aborts the rest.
    ///
    /// Sockets in use can be read and written until then. Afterwards reads and writes on them fail, and
    /// what still arrives is answered by a reset. The UDP port is free when the last handle, socket and listener
    /// is dropped.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) if a connection had to be aborted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the endpoint without listeners and its connections alive; call it
    /// again.
    pub async fn close(&self, deadline: Duration) -> io::Result<()> {
        self.handle.enter(Core::start_closing);
        let outcome = tokio::time::timeout(deadline, self.handle.wait_idle()).await;
        self.handle.enter(|core, now, _| core.endpoint.close(now));
        outcome
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, ConnectionError::EndpointClosed))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local_addr", &self.local_addr().ok())
            .finish()
    }
}
