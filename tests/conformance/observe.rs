//! What `expect` can ask about.

use std::time::Duration;

use reliable_udp::internals::{Connection, Endpoint, State};
use reliable_udp::{ConnectionError, TimeoutCause, Timestamp};

/// Returns the value of `key` as a table writes it.
pub(crate) fn observe(
    key: &str,
    endpoint: &Endpoint,
    connection: Option<&Connection>,
    origin: Timestamp,
) -> Result<String, String> {
    let whole = endpoint.stats();
    let number = match key {
        "time_wait" => Some(whole.time_wait as u64),
        "connections" => Some(whole.connections as u64),
        "resets_sent" => Some(whole.resets_sent),
        "resets_suppressed" => Some(whole.resets_suppressed),
        "cookies_sent" => Some(whole.syn_cookies_sent),
        "cookies_accepted" => Some(whole.syn_cookies_accepted),
        "dropped_time_wait" => Some(whole.dropped_time_wait),
        _ => None,
    };
    if let Some(number) = number {
        return Ok(number.to_string());
    }
    match (key, connection) {
        ("timer", _) => {
            let at = endpoint
                .poll_timeout()
                .map(|at| at.saturating_since(origin));
            Ok(at.map_or("none".into(), time))
        }
        ("state", None) => Ok("none".into()),
        (_, None) => Err(format!("there is no connection to ask for `{key}`")),
        (_, Some(connection)) => observe_connection(key, connection),
    }
}

fn observe_connection(key: &str, connection: &Connection) -> Result<String, String> {
    let stats = connection.stats();
    let number = match key {
        "cwnd" => stats.cwnd,
        "ssthresh" if stats.ssthresh == u64::MAX => return Ok("none".into()),
        "ssthresh" => stats.ssthresh,
        "flight" => stats.flight_size,
        "pipe" => stats.bytes_in_flight,
        "mss" => stats.mss as u64,
        "snd_wnd" => stats.snd_wnd,
        "rcv_wnd" => stats.rcv_wnd,
        "unacked" => stats.send_buffer_bytes as u64,
        "readable" => stats.receive_buffer_bytes as u64,
        "held" => stats.out_of_order_bytes as u64,
        "received" => stats.bytes_received,
        "duplicates" => stats.segments_duplicate,
        "reordered" => stats.segments_out_of_order,
        "retransmitted" => stats.segments_retransmitted,
        "lost" => stats.segments_lost,
        "timeouts" => stats.rto_count,
        "recoveries" => stats.fast_recovery_count,
        "probes" => stats.tlp_count,
        "repairs" => stats.tlp_repair_count,
        "spurious" => stats.segments_spurious,
        "undone" => stats.undo_count,
        "reordering" => stats.reordering_count,
        "window_probes" => stats.zero_window_probes,
        "keepalives" => stats.keepalive_probes,
        "unacceptable" => stats.segments_unacceptable,
        "unsent_acks" => stats.acks_of_unsent_data,
        "challenges" => stats.challenge_acks,
        "echoes" => stats.ecn_reductions,
        "marked" => stats.ecn_segments_marked,
        "ce" => stats.ecn_ce,
        "ect" => stats.ecn_ect,
        "unmarked" => stats.ecn_unmarked,
        _ => return observe_other(key, connection),
    };
    Ok(number.to_string())
}

fn observe_other(key: &str, connection: &Connection) -> Result<String, String> {
    let stats = connection.stats();
    let duration = |value: Option<Duration>| Ok(value.map_or("none".into(), time));
    match key {
        "state" => Ok(state(connection.state()).into()),
        "ecn" => Ok(format!("{:?}", stats.ecn)),
        "error" => Ok(connection.error().map_or("none", error).into()),
        "finished" => Ok(match connection.finish_status() {
            Ok(true) => "yes".into(),
            Ok(false) => "no".into(),
            Err(why) => error(&why).into(),
        }),
        "srtt" => duration(stats.srtt),
        "rttvar" => duration(stats.rttvar),
        "min_rtt" => duration(stats.min_rtt),
        "latest_rtt" => duration(stats.latest_rtt),
        "rto" => duration(Some(stats.rto)),
        "reo_wnd" => duration(stats.reordering_window),
        _ => Err(format!("unknown key `{key}`")),
    }
}

/// A state by its name in RFC 9293 §3.3.2.
fn state(state: State) -> &'static str {
    match state {
        State::SynSent => "SYN-SENT",
        State::SynReceived => "SYN-RECEIVED",
        State::Established => "ESTABLISHED",
        State::FinWait1 => "FIN-WAIT-1",
        State::FinWait2 => "FIN-WAIT-2",
        State::CloseWait => "CLOSE-WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST-ACK",
        State::TimeWait => "TIME-WAIT",
        State::Closed => "CLOSED",
        _ => "unknown",
    }
}

fn error(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::Refused => "refused",
        ConnectionError::Reset => "reset",
        ConnectionError::Aborted => "aborted",
        ConnectionError::TimedOut(cause) => match cause {
            TimeoutCause::SynRetries { .. } => "syn_retries",
            TimeoutCause::ConnectTimeout(_) => "connect_timeout",
            TimeoutCause::DataRetries { .. } => "data_retries",
            TimeoutCause::UserTimeout(_) => "user_timeout",
            TimeoutCause::Keepalive { .. } => "keepalive",
            TimeoutCause::IdleTimeout(_) => "idle_timeout",
            TimeoutCause::Linger(_) => "linger",
            _ => "timeout",
        },
        _ => "other",
    }
}

/// Milliseconds with as many places as it takes.
pub(crate) fn time(time: Duration) -> String {
    let (millis, nanos) = (time.as_millis(), time.subsec_nanos() % 1_000_000);
    if nanos == 0 {
        return millis.to_string();
    }
    format!("{millis}.{nanos:06}").trim_end_matches('0').into()
}
