//! The range of every value, in the words of the error that names it.

use std::time::Duration;

use super::{Config, KIB, MAX_DATAGRAM, MIB};
use crate::error::ConfigError;

/// Bytes of the fixed part of a segment's header (RFC 9293 §3.1).
const HEADER_LEN: usize = 20;

/// Checks every value by itself.
pub(super) fn check(c: &Config) -> Result<(), ConfigError> {
    check_numbers(c)?;
    c.socket_buffers.check()?;
    check_datagram_sizes(c)?;
    check_fractions(c)?;
    check_durations(c)
}

/// Checks every count and size; the unit stands with the range.
fn check_numbers(c: &Config) -> Result<(), ConfigError> {
    let segments = c.initial_window_segments as usize;
    let checks: [(&'static str, usize, usize, usize, &'static str); 14] = [
        ("initial_window", segments, 1, 1_000, "1 to 1000 segments"),
        (
            "send_buffer",
            c.send_buffer,
            4 * KIB,
            1024 * MIB,
            "4 KiB to 1 GiB",
        ),
        (
            "receive_buffer",
            c.receive_buffer,
            4 * KIB,
            1024 * MIB,
            "4 KiB to 1 GiB",
        ),
        (
            "notsent_lowat",
            c.notsent_lowat.unwrap_or(MIB),
            4 * KIB,
            1024 * MIB,
            "4 KiB to 1 GiB",
        ),
        (
            "mss",
            usize::from(c.mss),
            64,
            MAX_DATAGRAM - HEADER_LEN,
            "64 to 65487 bytes",
        ),
        ("syn_retries", c.syn_retries as usize, 0, 255, "0 to 255"),
        ("data_retries", c.data_retries as usize, 0, 255, "0 to 255"),
        (
            "keepalive_probes",
            c.keepalive_probes as usize,
            1,
            255,
            "1 to 255",
        ),
        (
            "time_wait_capacity",
            c.time_wait_capacity,
            0,
            1 << 24,
            "0 to 2^24 records",
        ),
        ("backlog", c.backlog, 1, 1 << 20, "1 to 2^20 connections"),
        (
            "max_connections",
            c.max_connections,
            1,
            1 << 24,
            "1 to 2^24 connections",
        ),
        (
            "max_memory",
            c.max_memory,
            64 * KIB,
            usize::MAX,
            "at least 64 KiB",
        ),
        (
            "reset_rate_limit",
            c.reset_rate_limit as usize,
            0,
            1_000_000,
            "0 to 1000000",
        ),
        (
            "challenge_ack_limit",
            c.challenge_ack_limit as usize,
            0,
            1_000_000,
            "0 to 1000000",
        ),
    ];
    for (field, value, low, high, range) in checks {
        if !(low..=high).contains(&value) {
            return Err(ConfigError::OutOfRange {
                field,
                value: value.to_string(),
                range,
            });
        }
    }
    Ok(())
}

/// Checks every size of a datagram.
fn check_datagram_sizes(c: &Config) -> Result<(), ConfigError> {
    for (field, value) in [
        ("datagram_size", c.datagram_size),
        ("min_datagram_size", c.min_datagram_size),
        ("max_datagram_size", c.max_datagram_size),
    ] {
        if !(512..=MAX_DATAGRAM).contains(&value) {
            return Err(ConfigError::OutOfRange {
                field,
                value: value.to_string(),
                range: "512 to 65507 bytes",
            });
        }
    }
    Ok(())
}

/// Checks every fraction; what is no number is in no range.
fn check_fractions(c: &Config) -> Result<(), ConfigError> {
    if (0.005..=0.5).contains(&c.bbr_loss_threshold) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        field: "bbr_loss_threshold",
        value: c.bbr_loss_threshold.to_string(),
        range: "0.005 to 0.5",
    })
}

/// Checks every duration; `None` is always accepted where it is offered.
fn check_durations(c: &Config) -> Result<(), ConfigError> {
    let tick = Duration::from_millis(1);
    let minute = Duration::from_secs(60);
    let (zero, ever) = (Duration::ZERO, Duration::MAX);
    let half_second = Duration::from_millis(500);
    let checks: [(
        &'static str,
        Option<Duration>,
        Duration,
        Duration,
        &'static str,
    ); 11] = [
        (
            "ack_delay",
            Some(c.ack_delay),
            zero,
            half_second,
            "0 to 500 ms",
        ),
        (
            "initial_rto",
            Some(c.initial_rto),
            tick,
            minute,
            "1 ms to 60 s",
        ),
        ("min_rto", Some(c.min_rto), tick, minute, "1 ms to 60 s"),
        (
            "max_rto",
            Some(c.max_rto),
            Duration::from_secs(1),
            10 * minute,
            "1 s to 10 min",
        ),
        ("linger", Some(c.linger), zero, 60 * minute, "0 to 1 h"),
        (
            "time_wait",
            Some(c.time_wait),
            zero,
            4 * minute,
            "0 to 4 min",
        ),
        (
            "keepalive_interval",
            Some(c.keepalive_interval),
            tick,
            ever,
            "at least 1 ms",
        ),
        (
            "connect_timeout",
            c.connect_timeout,
            tick,
            ever,
            "at least 1 ms",
        ),
        ("user_timeout", c.user_timeout, tick, ever, "at least 1 ms"),
        ("keepalive", c.keepalive, tick, ever, "at least 1 ms"),
        ("idle_timeout", c.idle_timeout, tick, ever, "at least 1 ms"),
    ];
    for (field, value, low, high, range) in checks {
        if let Some(value) = value
            && !(low..=high).contains(&value)
        {
            return Err(ConfigError::OutOfRange {
                field,
                value: format!("{value:?}"),
                range,
            });
        }
    }
    Ok(())
}
