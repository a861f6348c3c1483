//! The tokio driver: moves bytes and wakes tasks, nothing else.
//!
//! ```text
//!   socket, listener, Endpoint          one task per endpoint
//!          │ Handle                            │ Driver
//!          ▼                                   ▼
//!   ┌───────────────────────── Shared ─────────────────────────┐
//!   │  Core (lock)             │  Transmitter (lock)           │
//!   │  sans-IO Endpoint,       │  one datagram or run on its   │
//!   │  wakers, deadlines       │  way out                      │
//!   └──────────────────────────┴───────────────────────────────┘
//!                                              │ DatagramTransport
//!                                              ▼
//!                                UDP socket, or the user's own
//! ```
//!
//! A handle's call locks the core, acts, unlocks, wakes those concerned and sends what came out from
//! its own task. The driver receives, runs the timers, and sends what found the transport full. A
//! [`Handle`] keeps the driver alive; after the last one it goes on until no connection lingers.

mod baton;
mod buffers;
mod clock;
mod core;
mod shared;
mod sync;
mod task;
mod transport;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(crate) use self::clock::Clock;
pub(crate) use self::core::{Core, Direction};
pub(crate) use self::shared::Handle;
pub use self::transport::{DatagramTransport, RecvBuffer, RecvMeta, Transmit, Unreachable};
pub(crate) use self::udp::UdpTransport;

use self::shared::Shared;
use self::task::Driver;
use crate::Config;
use crate::endpoint::{Endpoint, EndpointLocal, Secrets};

/// Starts an endpoint on a transport and spawns its driver.
pub(crate) fn start(transport: Arc<dyn DatagramTransport>, config: &Config) -> io::Result<Handle> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let (handle, driver) = open(transport, config)?;
    runtime.spawn(driver);
    Ok(handle)
}

/// Makes an endpoint on a transport, and the driver that has to run for anything to happen.
pub(crate) fn open(
    transport: Arc<dyn DatagramTransport>,
    config: &Config,
) -> io::Result<(Handle, Driver)> {
    let local = EndpointLocal {
        addr: transport.local_addr()?,
    };
    let clock = Clock::start();
    let config = fit(config.clone(), &*transport);
    let tap = config.tap.clone();
    let mut endpoint = Endpoint::new(clock.now(), config, draw_secrets()?, local);
    if let Some(factory) = tap {
        endpoint.set_tap(Some(factory.tap(clock.now(), local.addr)));
    }
    let shared = Shared::new(endpoint, transport, clock);
    Ok((Handle::new(Arc::clone(&shared)), Driver::new(shared)))
}

/// Clamps a configuration to what the transport can carry.
pub(crate) fn fit(mut config: Config, transport: &dyn DatagramTransport) -> Config {
    let most = transport.max_datagram_size();
    for size in [
        &mut config.datagram_size,
        &mut config.min_datagram_size,
        &mut config.max_datagram_size,
    ] {
        *size = most.min(*size);
    }
    config
}

/// Shows an IPv4 address as one, also where a dual-stack socket sees it as a mapped one.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

fn draw_secrets() -> io::Result<Secrets> {
    fn draw<const N: usize>() -> io::Result<[u8; N]> {
        let mut secret = [0; N];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(secret)
    }
    Ok(Secrets {
        isn: draw()?,
        port: draw()?,
        cookie: draw()?,
        hash_seed: u64::from_ne_bytes(draw()?),
    })
}
