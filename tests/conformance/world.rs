//! The endpoint under test, the peer's address, and the bytes that both write.

use std::net::SocketAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use reliable_udp::internals::wire::{Flags, Header, Integrity, seal};
use reliable_udp::internals::{Arrival, Endpoint, EndpointLocal, Secrets};
use reliable_udp::{Config, Timestamp};

/// The port that the listener listens on, or that the peer does.
pub(crate) const SERVICE: u16 = 7;
/// The port of a peer that connects.
pub(crate) const CLIENT: u16 = 40_000;
/// The byte at a position of either stream.
pub(crate) fn pattern(at: u32) -> u8 {
    u8::try_from(at % 251).unwrap_or_default()
}

/// The peer's UDP address.
pub(crate) fn peer() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4_000))
}

/// Makes the endpoint under test.
pub(crate) fn endpoint(now: Timestamp, config: &Config) -> Endpoint {
    let secrets = Secrets {
        isn: [1; 16],
        port: [2; 16],
        cookie: [3; 16],
        hash_seed: 1,
    };
    let addr = SocketAddr::from(([10, 0, 0, 1], 4_000));
    Endpoint::new(now, config.clone(), secrets, EndpointLocal { addr })
}

/// Chooses when the case begins so that a connection opened then has the initial sequence number `iss`:
/// RFC 6528 §3 adds a clock of 4 µs to a hash that does not change.
pub(crate) fn origin(iss: u32, is_passive: bool) -> Timestamp {
    static HASHES: OnceLock<[u32; 2]> = OnceLock::new();
    let hashes = HASHES.get_or_init(|| [first_iss(false), first_iss(true)]);
    let ticks = iss.wrapping_sub(hashes[usize::from(is_passive)]);
    Timestamp::from_nanos(u64::from(ticks) * 4_000)
}

/// The initial sequence number of a connection that is opened at time 0.
fn first_iss(is_passive: bool) -> u32 {
    let mut endpoint = endpoint(Timestamp::ZERO, &Config::default());
    if is_passive {
        endpoint.listen(SERVICE, None).unwrap();
        let header = Header {
            src_port: CLIENT,
            dst_port: SERVICE,
            flags: Flags::SYN,
            ..Header::default()
        };
        let mut bytes = vec![0; header.encoded_len()];
        header.encode(&mut bytes).unwrap();
        seal(&mut bytes, Integrity::Sum);
        let arrival = Arrival {
            remote: peer(),
            local_ip: None,
            ecn: None,
            stride: bytes.len(),
            bytes: &Bytes::from(bytes),
        };
        endpoint.handle_arrival(Timestamp::ZERO, &arrival);
    } else {
        endpoint
            .connect(Timestamp::ZERO, peer(), SERVICE, None)
            .unwrap();
    }
    endpoint.connections().next().unwrap().iss().get()
}
