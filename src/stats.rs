//! Plain snapshots of what a connection and an endpoint have counted.

use std::time::Duration;

use crate::connection::State;
use crate::ecn::EcnState;

/// A snapshot of one connection, comparable to Linux's `struct tcp_info`.
///
/// Counters start at 0 when the connection is made and never decrease. Reading one takes the endpoint's lock
/// and copies numbers that are kept anyway. Each field says its unit, and where the number comes from: the
/// RFC that defines it, or what is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// State of RFC 9293 §3.3.2.
    pub state: State,
    /// Smoothed RTT (RFC 6298 §2), `None` before the first sample. Samples come from ACKs of what was sent
    /// once, and from echoed timestamps (RFC 7323 §4).
    pub srtt: Option<Duration>,
    /// RTT variation (RFC 6298 §2), `None` before the first sample.
    pub rttvar: Option<Duration>,
    /// Smallest RTT sample of the last two and a half to five minutes, `None` before the first one.
    pub min_rtt: Option<Duration>,
    /// Newest RTT sample, `None` before the first one.
    pub latest_rtt: Option<Duration>,
    /// Retransmission timeout (RFC 6298 §2), back-off included.
    pub rto: Duration,
    /// What the congestion controller is called; "none" before it is made, at the end of the handshake.
    pub congestion_control: &'static str,
    /// In which of its phases it is, as it says, such as "slow start"; "recovery" while the core reduces the rate in
    /// its place (RFC 9937).
    pub congestion_phase: &'static str,
    /// Congestion window in bytes (RFC 5681 §2), as the controller says.
    pub cwnd: u64,
    /// Slow-start threshold in bytes (RFC 5681 §3.1), as the controller says; `u64::MAX` while none is set.
    pub ssthresh: u64,
    /// Bytes sent and not yet acknowledged cumulatively (RFC 5681 §2).
    pub flight_size: u64,
    /// Bytes estimated in the network (`pipe`, RFC 6675 §2): the flight without what was SACKed or lost.
    pub bytes_in_flight: u64,
    /// Departure rate in bytes per second: the controller's, or what spreads its window over the round trip.
    /// `None` while nothing is paced.
    pub pacing_rate: Option<u64>,
    /// Latest delivery-rate sample in bytes per second (draft-ietf-ccwg-bbr §4.1), 0 before the first.
    pub delivery_rate: u64,
    /// Whether that sample was limited by the application.
    pub is_app_limited: bool,
    /// Effective send MSS in bytes (RFC 9293 §3.7.1), options subtracted.
    pub mss: usize,
    /// Largest UDP payload sent but for probes, in bytes: the path MTU less the headers of IP and UDP, as far as
    /// it is known (`PLPMTU`, RFC 8899 §5.1.2).
    pub datagram_size: usize,
    /// Probes sent to find out whether the path carries larger datagrams (RFC 8899). They carry data of the stream
    /// and are counted as segments too.
    pub path_probes_sent: u64,
    /// Probes of the path that were lost, or refused by the system as larger than the interface. They are not
    /// counted under `segments_lost`.
    pub path_probes_lost: u64,
    /// Times that a datagram size that the path had carried no longer passed (RFC 8899 §4.3).
    pub black_holes: u64,
    /// Peer's window in bytes (SND.WND, RFC 9293 §3.3.1).
    pub snd_wnd: u64,
    /// Window that we advertise, in bytes (RCV.WND, RFC 9293 §3.3.1).
    pub rcv_wnd: u64,
    /// Bytes written by the application and not yet acknowledged.
    pub send_buffer_bytes: usize,
    /// Bytes that may be so at most now; grows with `cwnd`
    /// ([`buffer_tuning`](crate::ConfigBuilder::buffer_tuning)).
    pub send_buffer_size: usize,
    /// Bytes written by the application and never sent.
    pub unsent_bytes: usize,
    /// Bytes received, in order, and not yet read by the application.
    pub receive_buffer_bytes: usize,
    /// Bytes that may wait for the application at most now; grows with what it reads per round trip
    /// ([`buffer_tuning`](crate::ConfigBuilder::buffer_tuning)).
    pub receive_buffer_size: usize,
    /// Bytes received out of order and held.
    pub out_of_order_bytes: usize,
    /// Bytes of memory that the buffers of both directions hold, overhead included.
    pub memory_bytes: usize,
    /// Segments sent, of every kind, retransmissions included.
    pub segments_sent: u64,
    /// Segments received and accepted by the integrity check.
    pub segments_received: u64,
    /// Segments sent with payload, SYN or FIN that had been sent before.
    pub segments_retransmitted: u64,
    /// Segments declared lost (RFC 6675, RFC 8985, or by timeout), whether they proved so or not.
    pub segments_lost: u64,
    /// Segments received whose payload had already arrived.
    pub segments_duplicate: u64,
    /// Segments received ahead of `rcv_nxt`.
    pub segments_out_of_order: u64,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Payload bytes acknowledged by the peer, cumulatively.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Expiries of the retransmission timer (RFC 6298 §5).
    pub rto_count: u64,
    /// Entries into fast recovery (RFC 5681 §3.2, RFC 6675 §5).
    pub fast_recovery_count: u64,
    /// Whether a fast recovery is in progress: everything outstanding when it began is not yet acknowledged.
    pub is_in_recovery: bool,
    /// Tail loss probes sent (RFC 8985 §7).
    pub tlp_count: u64,
    /// Losses that a tail loss probe repaired (RFC 8985 §7.4).
    pub tlp_repair_count: u64,
    /// Retransmitted segments that the peer reported as duplicates (RFC 2883).
    pub segments_spurious: u64,
    /// Reductions of the congestion window that proved spurious and were taken back (RFC 4015).
    pub undo_count: u64,
    /// Timeouts that F-RTO found spurious (RFC 5682); they are counted under `undo_count` too.
    pub frto_count: u64,
    /// ACKs by which segments proved to have been reordered on their way to the peer (RFC 8985 §6.2).
    pub reordering_count: u64,
    /// How late a segment that others have overtaken may be before it counts as lost (RFC 8985 §6.2),
    /// `None` without SACK.
    pub reordering_window: Option<Duration>,
    /// Zero-window probes sent (RFC 9293 §3.8.6.1).
    pub zero_window_probes: u64,
    /// Keepalive probes sent (RFC 9293 §3.8.4), and those by which a client asks whether the handshake's last
    /// ACK has arrived.
    pub keepalive_probes: u64,
    /// Where the connection stands with explicit congestion notification (RFC 3168).
    pub ecn: EcnState,
    /// Segments sent as ECT(0): new data, as long as that is [`EcnState::Capable`].
    pub ecn_segments_marked: u64,
    /// Reductions of the congestion window by an echo of the peer (RFC 3168 §6.1.2); at most one per round trip.
    pub ecn_reductions: u64,
    /// Segments received with the mark "congestion experienced" in their IP header (RFC 3168 §5).
    pub ecn_ce: u64,
    /// Segments received with data and an ECT mark, once ECN was agreed on.
    pub ecn_ect: u64,
    /// Segments received with data and without a mark, once ECN was agreed on. Retransmissions are never marked;
    /// many more mean that the path clears the marks, or that the peer has stopped marking.
    pub ecn_unmarked: u64,
    /// Segments dropped because they failed a check of RFC 9293 §3.10.7 or RFC 5961.
    pub segments_unacceptable: u64,
    /// Of these, those that acknowledged data never sent (RFC 9293 §3.10.7.4, RFC 5961 §5): an optimistic
    /// or a blind peer.
    pub acks_of_unsent_data: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub challenge_acks: u64,
    /// Time during which sending waited for the congestion window. This and the four below are counted from
    /// the end of the handshake to the end of the connection, and add up to that time.
    pub cwnd_limited_time: Duration,
    /// Time during which sending waited for the peer's window.
    pub rwnd_limited_time: Duration,
    /// Time during which everything written was sent and the application waited for room in the send buffer.
    pub send_buffer_limited_time: Duration,
    /// Time during which the application had nothing to send, or so little that Nagle's algorithm held it
    /// back.
    pub app_limited_time: Duration,
    /// Time during which sending waited for the pacer.
    pub pacing_limited_time: Duration,
}

/// A snapshot of one endpoint: what its UDP socket saw and what it dropped, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Connections that exist now, in any state but TIME-WAIT.
    pub connections: usize,
    /// TIME-WAIT records held now.
    pub time_wait: usize,
    /// Connections opened by this side since the beginning.
    pub connections_opened: u64,
    /// Connections accepted from peers since the beginning.
    pub connections_accepted: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Datagrams dropped because they are no segment (too short, bad offset or options).
    pub dropped_malformed: u64,
    /// Datagrams dropped because the checksum or CRC did not match.
    pub dropped_checksum: u64,
    /// Segments for no connection and no listener.
    pub dropped_no_connection: u64,
    /// Segments with the port pair of a live connection from another address.
    pub dropped_foreign_address: u64,
    /// SYNs dropped because the backlog, the connection limit or the memory limit was reached.
    pub dropped_backlog: u64,
    /// Segments with data dropped because the memory limit was reached and their connection already
    /// held more than its share.
    pub dropped_memory: u64,
    /// Segments dropped in TIME-WAIT.
    pub dropped_time_wait: u64,
    /// RSTs sent for segments that belong to nobody.
    pub resets_sent: u64,
    /// RSTs not sent because of the rate limit.
    pub resets_suppressed: u64,
    /// Resets, cookies and ACKs of TIME-WAIT dropped because too many waited for the transport.
    pub answers_dropped: u64,
    /// Datagrams not sent because the peer's address was not proven and 3 bytes had been sent for each
    /// one received.
    pub amplification_suppressed: u64,
    /// SYN-ACKs sent with a cookie instead of state (RFC 4987 §3.6).
    pub syn_cookies_sent: u64,
    /// Connections made from a valid cookie.
    pub syn_cookies_accepted: u64,
    /// Connections made by `connect` that were refused by ICMP or RST.
    pub connections_refused: u64,
    /// ICMP errors received for live connections and only counted (RFC 5927).
    pub icmp_errors: u64,
    /// Times that a datagram size that a path had carried no longer passed, on any connection (RFC 8899 §4.3).
    pub black_holes: u64,
    /// Errors of the datagram transport on sending; the datagram counts as lost.
    pub transport_send_errors: u64,
    /// Errors of the datagram transport on receiving.
    pub transport_receive_errors: u64,
    /// What the datagram transport says of itself.
    pub transport: TransportStats,
}

/// A snapshot of what carries an endpoint's datagrams, as
/// [`DatagramTransport::stats`](crate::DatagramTransport::stats) gives it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Size of the socket's send buffer in bytes, as the system says (`SO_SNDBUF`); `None` if there is none. Linux says
    /// twice what was asked for, and counts the memory of what it holds, which is more than the datagrams' bytes.
    pub send_buffer: Option<usize>,
    /// The same for receiving (`SO_RCVBUF`).
    pub receive_buffer: Option<usize>,
    /// Datagrams that the system dropped because the receive buffer was full (`SO_RXQ_OVFL`), a run that it had
    /// coalesced counted as one. Linux tells with the next datagram that it does not drop; other systems do not tell.
    pub kernel_drops: u64,
    /// Whether the system has refused to cut runs into datagrams, so that each is sent by itself.
    pub refuses_segmentation: bool,
    /// Whether the system has refused congestion marks, so that none are set.
    pub refuses_marks: bool,
    /// Whether the system has refused a source address; datagrams leave from the one that it chooses in its place.
    pub refuses_source: bool,
}
