//! The measurements, each over any peer.

pub(crate) mod connects;
pub(crate) mod echo;
pub(crate) mod goodput;
pub(crate) mod idle;
pub(crate) mod many;
pub(crate) mod raw;
pub(crate) mod serve;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serve::Counters;
use tokio::runtime::{Builder, Runtime};

use crate::figures::Settings;
use crate::peer::{Peer, Role, Side};

/// One runtime per side, as if each were a process: nothing that goes between the sides stays in a thread, while
/// CPU time and memory of both can be read at once.
pub(crate) struct Sides {
    server: Runtime,
    client: Runtime,
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
}

impl Sides {
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let runtime = || {
            Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
        };
        Ok(Self {
            server: runtime()?,
            client: runtime()?,
            settings,
            counters: Arc::new((0..many::MOST).map(|_| AtomicU64::new(0)).collect()),
        })
    }

    /// Starts a server that serves every connection, and makes the client's endpoint.
    pub(crate) fn start<P: Peer>(&self, peer: &P) -> io::Result<(Arc<P::Side>, SocketAddr)> {
        let server = self.server.block_on(peer.bind(Role::Server))?;
        let to = server.addr()?;
        self.server
            .spawn(serve::serve(server, Arc::clone(&self.counters)));
        let client = self.client.block_on(peer.bind(Role::Client))?;
        Ok((Arc::new(client), to))
    }

    /// Runs the client's part on a worker of its runtime.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        part: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let part = self.client.spawn(part);
        self.client.block_on(part).map_err(io::Error::other)?
    }

    pub(crate) fn block_on_server<T>(&self, part: impl Future<Output = T>) -> T {
        self.server.block_on(part)
    }

    pub(crate) fn spawn_on_server<T: Send + 'static>(
        &self,
        part: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.server.spawn(part)
    }

    /// Ends both at once, whatever still runs on them.
    pub(crate) fn end(self) {
        self.client.shutdown_background();
        self.server.shutdown_background();
    }
}
