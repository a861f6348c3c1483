//! The sans-IO core, for fuzzing, benchmarks and conformance harnesses; outside semver.
//!
//! Present with the feature `__internals` and under `cfg(fuzzing)`. Nothing here reads a clock, opens
//! a socket or starts a task: a harness passes `now` in, which never goes backwards, and takes out
//! what is to be sent and when to come back. `tests/internals.rs` is a complete example, and
//! `tests/conformance.rs` a harness that runs tables.
//!
//! # One connection
//!
//! [`Connection`] is the state machine of RFC 9293 for one peer.
//!
//! | a harness wants to | call |
//! | --- | --- |
//! | connect | [`Connection::connect`]; the SYN comes out of `poll_transmit` |
//! | listen and accept | hold no connection until a SYN arrives, then [`Connection::accept`] with it |
//! | inject a segment | build it with [`wire::Header::encode`] and [`wire::seal`], then [`wire::Segment::decode`], [`wire::Segment::verify`] (what [`Connection::expected_integrity`] says; `None`: either) and [`Connection::handle_segment`] |
//! | take outbound segments with their times | [`Connection::poll_transmit`] until `None`, after every input; a segment leaves at the `now` that is passed in; `max_segments` 1 gives them one by one |
//! | let a timer fire | [`Connection::poll_timeout`] says when, [`Connection::handle_timeout`] does it |
//! | read, peek, write | [`Connection::read`], [`Connection::peek`], [`Connection::write`]; `Blocked` is not an error but an invitation to wait for an event |
//! | shut down, abort, drop the handle | [`Connection::finish`], [`Connection::abort`], [`Connection::release`] |
//! | see state and counters | [`Connection::state`], [`Connection::error`], [`Connection::stats`] (what Linux's `tcp_info` holds, with units), [`Connection::poll_event`] |
//! | inject an ICMP error | [`Connection::handle_unreachable`] |
//! | check what must always hold | [`Connection::check_invariants`] |
//!
//! # One UDP socket's worth
//!
//! [`Endpoint`] is the same for many connections, with listeners, backlog, SYN cookies, RSTs for
//! strangers and TIME-WAIT. Datagrams go in by [`Endpoint::handle_arrival`] and come out of
//! [`Endpoint::poll_transmit`], both as trains of equal-sized datagrams; a connection's commands are
//! run through [`Endpoint::with_connection`]; [`Endpoint::connections`] shows those too that nobody holds.
//! [`Tap`] sees every segment in and out.
//! [`Secrets`] are arguments, so that a run can be repeated.
//!
//! # Knobs
//!
//! All are methods of [`Config::builder`](crate::Config::builder).
//!
//! | knob | method |
//! | --- | --- |
//! | MSS announced and sent; largest datagram; search for the path's MTU | `mss`; `datagram_size`; `path_mtu_discovery` |
//! | initial receive window of 65,535 bytes | `receive_buffer(65_535)`, with `window_scaling(false)` fixed |
//! | window scaling, timestamps, SACK, extension option | `window_scaling`, `timestamps`, `sack`, `extension` |
//! | send buffer; both buffers at full size from the beginning | `send_buffer`; `buffer_tuning(false)` |
//! | ACK at once | `ack_delay(Duration::ZERO)` |
//! | slow start after idle | `slow_start_after_idle` |
//! | windows sent as they open | `pacing(false)` |
//! | initial window | `initial_window` |
//! | PRR, tail loss probe, F-RTO | `prr`, `tail_loss_probe`, `frto` |
//! | initial, smallest and largest RTO | `initial_rto`, `min_rto`, `max_rto` |
//! | retry limits, user timeout, keepalive, TIME-WAIT | `syn_retries`, `data_retries`, `user_timeout`, `keepalive`, `time_wait` |
//! | challenge ACKs and RSTs per second | `challenge_ack_limit`, `reset_rate_limit` |
//! | Nagle | `nodelay` |
//! | controller | `congestion`; `CongestionControl::custom` takes any, such as one with a fixed window |
//!
//! # Parts
//!
//! [`wire`] is the codec, [`recovery`] loss recovery without a connection around it, and [`sim`] the
//! seeded world that the crate's own seed sweep runs in. [`fuzz`] holds what the fuzz targets call.

pub use crate::connection::{
    Connection, Event, Negotiated, Offset, OpenParams, ReadError, State, TimeWaitRecord, Transmit,
    WriteError,
};
pub use crate::endpoint::{
    Arrival, ConnectionId, Departure, Ecn, Endpoint, EndpointEvent, EndpointLocal, Secrets,
};
pub use crate::tap::{Direction, Tap, TappedSegment};

/// The codec.
pub mod wire {
    pub use crate::wire::{
        DecodeError, Extension, FEATURE_CRC32C, Flags, HEADER_LEN, Header, Integrity,
        MAX_OPTIONS_LEN, MAX_WINDOW_SCALE, Options, SackBlock, SackBlocks, Segment, SeqNumber,
        Timestamps, peek_ports, peek_seq, seal,
    };
}

/// Loss recovery alone, for benchmarks: what a sender tells it and asks it.
pub mod recovery {
    pub use crate::connection::{AckArrival, AckOutcome, Recovery, RecoveryStart};
}

/// The world on a virtual clock.
pub mod sim {
    pub use crate::sim::application::{Application, Ending, Plan};
    pub use crate::sim::network::{Activity, Failure, Network, Node, Outgoing, Trace};
    pub use crate::sim::node::{ConnectionNode, Dialogue, EndpointNode};
    pub use crate::sim::sweep::{Report, describe_seed, run_seed, run_seed_traced};
}

/// What the fuzz targets call; each panics if a property does not hold.
pub mod fuzz {
    /// Decodes arbitrary bytes as a segment.
    pub fn segment(data: &[u8]) {
        crate::wire::fuzz_decode(data);
    }

    /// Reassembles ranges drawn from arbitrary bytes and compares with a naive model.
    pub fn assembler(data: &[u8]) {
        crate::connection::fuzz_assembler(data);
    }

    /// Drives every congestion controller by a stream of events drawn from arbitrary bytes.
    pub fn controllers(data: &[u8]) {
        crate::congestion::fuzz_controllers(data);
    }

    /// Feeds a live endpoint segments, timer events and commands drawn from arbitrary bytes.
    pub fn connection(data: &[u8]) {
        crate::endpoint::fuzz_connection(data);
    }
}
