//! `Config` and its builder. Every default stands here with its reason; all validation happens in
//! [`ConfigBuilder::build`], by [`ranges`], so that no code behind it checks again.

mod ranges;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use crate::congestion::{CongestionControl, DEFAULT_LOSS_THRESHOLD};
use crate::error::ConfigError;
use crate::tap::TapFactory;

pub(crate) use self::socket::SocketBuffers;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Where a buffer that grows begins: four times what a peer of Ethernet's segment size has sent after two
/// round trips (RFC 6928), and on a slow path, 1 Mbit/s, two seconds of data.
const INITIAL_BUFFER: usize = 256 * KIB;

/// The IPv6 minimum MTU of 1,280 less 40 bytes of IP and 8 of UDP: fits every path.
const SAFE_DATAGRAM: usize = 1_232;
/// Largest UDP payload over IPv4: 65,535 less 20 bytes of IP and 8 of UDP.
const MAX_DATAGRAM: usize = 65_507;

/// What a socket does with a connection that is dropped without `shutdown`, with everything read.
///
/// Dropping with unread data always sends RST (RFC 9293 §3.10.4, RFC 2525 §2.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DropPolicy {
    /// Sends what is buffered, then FIN, in the background, as the kernel does.
    #[default]
    Finish,
    /// Sends RST, so that the peer can tell a cut from an end.
    Reset,
}

/// Settings of an endpoint and of its connections.
///
/// [`max_connections`](ConfigBuilder::max_connections), [`max_memory`](ConfigBuilder::max_memory),
/// [`reset_rate_limit`](ConfigBuilder::reset_rate_limit),
/// [`time_wait_capacity`](ConfigBuilder::time_wait_capacity) and [`tap`](ConfigBuilder::tap) belong to the endpoint: those that it was
/// bound with hold. [`backlog`](ConfigBuilder::backlog) belongs to a listener. The others belong to each
/// connection, an accepted one gets its listener's.
///
/// ```
/// use std::time::Duration;
/// use reliable_udp::Config;
///
/// # fn main() -> Result<(), reliable_udp::ConfigError> {
/// let config = Config::builder()
///     .nodelay(true)
///     .data_retries(4)
///     .user_timeout(Some(Duration::from_secs(20)))
///     .build()?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Config {
    pub(crate) congestion: CongestionControl,
    pub(crate) initial_window_segments: u32,
    pub(crate) bbr_loss_threshold: f64,
    pub(crate) slow_start_after_idle: bool,
    pub(crate) pacing: bool,
    pub(crate) prr: bool,
    pub(crate) tail_loss_probe: bool,
    pub(crate) frto: bool,
    pub(crate) send_buffer: usize,
    pub(crate) receive_buffer: usize,
    pub(crate) buffer_tuning: bool,
    pub(crate) notsent_lowat: Option<usize>,
    /// What is sent before the path was probed.
    pub(crate) datagram_size: usize,
    pub(crate) min_datagram_size: usize,
    pub(crate) max_datagram_size: usize,
    pub(crate) path_mtu_discovery: bool,
    pub(crate) mss: u16,
    pub(crate) window_scaling: bool,
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) extension: bool,
    pub(crate) ecn: bool,
    pub(crate) nodelay: bool,
    pub(crate) ack_delay: Duration,
    pub(crate) initial_rto: Duration,
    pub(crate) min_rto: Duration,
    pub(crate) max_rto: Duration,
    pub(crate) syn_retries: u32,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) data_retries: u32,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_probes: u32,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) linger: Duration,
    pub(crate) drop_policy: DropPolicy,
    pub(crate) time_wait: Duration,
    pub(crate) time_wait_capacity: usize,
    pub(crate) backlog: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_memory: usize,
    pub(crate) reset_rate_limit: u32,
    pub(crate) challenge_ack_limit: u32,
    pub(crate) socket_buffers: SocketBuffers,
    pub(crate) tap: Option<Arc<dyn TapFactory>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            congestion: CongestionControl::Cubic,
            // RFC 6928 §2
            initial_window_segments: 10,
            bbr_loss_threshold: DEFAULT_LOSS_THRESHOLD,
            slow_start_after_idle: true,
            pacing: true,
            prr: true,
            tail_loss_probe: true,
            frto: true,
            // 100 ms at 1 Gbit/s is 12.5 MB. A loss that is repaired in one more round trip wants twice that on
            // both sides; the next power of two. Memory is used only for what was written or arrived.
            send_buffer: 32 * MIB,
            receive_buffer: 32 * MIB,
            buffer_tuning: true,
            notsent_lowat: None,
            // The IPv6 minimum MTU of 1,280 less 40 bytes of IP and 8 of UDP: fits every path.
            datagram_size: SAFE_DATAGRAM,
            min_datagram_size: SAFE_DATAGRAM,
            max_datagram_size: MAX_DATAGRAM,
            path_mtu_discovery: true,
            mss: 65_487,
            window_scaling: true,
            timestamps: true,
            sack: true,
            extension: true,
            // Where a path does not carry the marks, marking ends by itself.
            ecn: true,
            nodelay: false,
            ack_delay: Duration::from_millis(25),
            // RFC 6298 §2.1
            initial_rto: Duration::from_secs(1),
            // Deviation from RFC 6298 §2.4: 200 ms and not 1 s; the peer's delayed ACK, the reason for the 1 s,
            // is bounded by 25 ms here and announced. Not less, because stalls of a radio link are no losses:
            // by the simulator, spurious timeouts per minute of a bulk transfer over links that stall and
            // lose nothing (1, 10, 20 and 50 ms; stalls of 5-40, 20-80, 50-150 and 50-300 ms), and what a
            // lost tail costs whose probe is lost too (99th percentile, RTT 20 ms):
            //   floor 200 ms:  0.0   0.0   0.1   0.2; 284 ms
            //   floor 100 ms:  0.0   0.7   6.7  13.6; 184 ms
            //   floor  50 ms:  0.6  23.3  53.1  17.5; 129 ms
            // With Linux' rule, a floor of 200 ms for RTTVAR alone, 0.0, 0.0, 0.0 and 0.1, but 307 ms, and
            // 894 instead of 744 ms at an RTT of 180 ms. A single lost tail is the probe's business and knows
            // no floor: `tests/recovery.rs`, where the figures can be had again.
            min_rto: Duration::from_millis(200),
            // RFC 6298 §2.5
            max_rto: Duration::from_secs(60),
            // 1 + 2 + 4 + … + 60 + 60 = 183 s: RFC 9293 §3.8.3 (R2 of a SYN at least 3 minutes).
            syn_retries: 7,
            connect_timeout: None,
            // RFC 9293 §3.8.3 (R2 at least 100 s): with the smallest RTO, 15 retries take 10 minutes.
            data_retries: 15,
            // RFC 9293 §3.9.1.1: "the present global default is five minutes".
            user_timeout: Some(Duration::from_secs(300)),
            // RFC 9293 §3.8.4: keepalive must default to off.
            keepalive: None,
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            idle_timeout: None,
            linger: Duration::from_secs(60),
            drop_policy: DropPolicy::Finish,
            // Deviation from RFC 9293 §3.4.2: 60 s and not 4 minutes, as Linux has it; timestamps (PAWS) and
            // random ports and sequence numbers guard what the longer wait would.
            time_wait: Duration::from_secs(60),
            time_wait_capacity: 65_536,
            backlog: 1_024,
            max_connections: 1 << 20,
            max_memory: 1 << 32,
            reset_rate_limit: 100,
            challenge_ack_limit: 100,
            socket_buffers: SocketBuffers::default(),
            tap: None,
        }
    }
}

impl Config {
    /// Starts from the defaults.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder {
            config: Self::default(),
        }
    }

    /// Starts from this configuration.
    pub fn to_builder(&self) -> ConfigBuilder {
        ConfigBuilder {
            config: self.clone(),
        }
    }

    /// The receive window before anything has arrived, in bytes.
    pub(crate) fn initial_receive_buffer(&self) -> usize {
        self.initial_buffer(self.receive_buffer)
    }

    /// The send buffer before anything was sent, in bytes.
    pub(crate) fn initial_send_buffer(&self) -> usize {
        self.initial_buffer(self.send_buffer)
    }

    fn initial_buffer(&self, largest: usize) -> usize {
        if self.buffer_tuning {
            largest.min(INITIAL_BUFFER)
        } else {
            largest
        }
    }
}

/// Builds a [`Config`]; made by [`Config::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConfigBuilder {
    config: Config,
}

impl ConfigBuilder {
    /// Chooses the congestion controller. Default: [`CongestionControl::Cubic`].
    pub fn congestion(mut self, congestion: CongestionControl) -> Self {
        self.config.congestion = congestion;
        self
    }

    /// Sets the initial window in segments, 1 to 1,000. Default: 10 (RFC 6928 §2).
    pub fn initial_window(mut self, segments: u32) -> Self {
        self.config.initial_window_segments = segments;
        self
    }

    /// Sets the fraction of a round trip's data that may be lost before [`Bbr`](CongestionControl::Bbr) takes it
    /// that it has sent too much, 0.005 to 0.5. Default: 0.02 (draft-ietf-ccwg-bbr-06 §2.8 `BBR.LossThresh`). Other
    /// controllers do not look at it.
    ///
    /// More than the draft's value departs from it: on a path that loses segments whatever is sent, a radio link for
    /// example, it keeps the rate up; where the losses are those of a full queue, it takes bandwidth from
    /// others and keeps the queue full. Set it to twice the loss rate that the path has by itself, or more, and
    /// not for paths that are shared with others who were not asked.
    pub fn bbr_loss_threshold(mut self, fraction: f64) -> Self {
        self.config.bbr_loss_threshold = fraction;
        self
    }

    /// Falls back to slow start after an idle period of one RTO (RFC 5681 §4.1). Default: true.
    pub fn slow_start_after_idle(mut self, enabled: bool) -> Self {
        self.config.slow_start_after_idle = enabled;
        self
    }

    /// Spreads the window of a controller that names no
    /// [rate](crate::congestion::CongestionController::pacing_rate) over the round trip instead of sending it in
    /// bursts: at 2 windows per smoothed RTT in slow start, at 1.2 after it, at most 2 ms or two segments at
    /// once. Default: true. The first window is sent at once, and where the smoothed RTT is below 2.4 ms (4 ms in slow start)
    /// there is nothing to spread. A controller's own rate holds in any case.
    pub fn pacing(mut self, enabled: bool) -> Self {
        self.config.pacing = enabled;
        self
    }

    /// Reduces the window proportionally during recovery (RFC 9937), for controllers that
    /// [leave it to the core](crate::congestion::CongestionController::uses_prr). Default: true. Without it,
    /// sending stops until half a window has drained (RFC 6675).
    pub fn prr(mut self, enabled: bool) -> Self {
        self.config.prr = enabled;
        self
    }

    /// Probes the tail of a flight that stays unacknowledged for about two round trips (RFC 8985 §7), so that
    /// its loss is repaired without waiting for the retransmission timeout. Default: true. Needs
    /// [`sack`](Self::sack).
    pub fn tail_loss_probe(mut self, enabled: bool) -> Self {
        self.config.tail_loss_probe = enabled;
        self
    }

    /// Examines each retransmission timeout by sending new data in place of more retransmissions (F-RTO,
    /// RFC 5682): a timeout that was only a delay is found out and taken back. Default: true, as in Linux. It
    /// matters most where neither [`timestamps`](Self::timestamps) nor [`sack`](Self::sack) are negotiated.
    pub fn frto(mut self, enabled: bool) -> Self {
        self.config.frto = enabled;
        self
    }

    /// Sets the largest number of bytes written and not yet acknowledged, 4 KiB to 1 GiB.
    /// Default: 32 MiB, which is 1 Gbit/s at 100 ms and as much again. A write that finds the buffer full
    /// waits. With [`buffer_tuning`](Self::buffer_tuning) the buffer begins at 256 KiB and grows to this as
    /// the congestion window does, to twice the window.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.config.send_buffer = bytes;
        self
    }

    /// Sets the largest receive window in bytes, 4 KiB to 1 GiB. Default: 32 MiB, which is 1 Gbit/s at
    /// 100 ms and as much again, for what arrives while a loss is repaired. The window scale option follows
    /// from it (RFC 7323 §2.2). Without [`window_scaling`](Self::window_scaling) at most 65,535 bytes are
    /// advertised. With [`buffer_tuning`](Self::buffer_tuning) the window begins at 256 KiB and grows to this; while
    /// round trips take less than 2 ms, to 3 MiB at most.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.config.receive_buffer = bytes;
        self
    }

    /// Lets the receive window grow with what the application reads per round trip, and the send buffer with
    /// the congestion window, from 256 KiB to what [`receive_buffer`](Self::receive_buffer) and
    /// [`send_buffer`](Self::send_buffer) allow; neither shrinks again. Default: true. Without it both have
    /// their full size from the beginning.
    pub fn buffer_tuning(mut self, enabled: bool) -> Self {
        self.config.buffer_tuning = enabled;
        self
    }

    /// Limits the bytes that were written and never sent, 4 KiB to 1 GiB, as `TCP_NOTSENT_LOWAT` does: a
    /// write takes no more than this beyond what the windows let out, and one that waits goes on once half
    /// of it has left. What is sent next can so be decided late, and the buffer holds little more than what
    /// is under way. At least one segment is always taken. Default: `None`, which is 512 KiB, so that what waits
    /// stays in a core's cache; without [`buffer_tuning`](Self::buffer_tuning) the
    /// [`send_buffer`](Self::send_buffer) alone decides.
    pub fn notsent_lowat(mut self, bytes: Option<usize>) -> Self {
        self.config.notsent_lowat = bytes;
        self
    }

    /// Fixes the largest UDP payload that is sent, header and options included, at 512 to 65,507 bytes: nothing
    /// larger is sent and none is searched for. For a path that is known to carry it, or a service that must
    /// send nothing larger. Default: not fixed, see [`path_mtu_discovery`](Self::path_mtu_discovery).
    pub fn datagram_size(mut self, bytes: usize) -> Self {
        self.config.datagram_size = bytes;
        self.config.path_mtu_discovery = false;
        self
    }

    /// Searches for the largest UDP payload that the path carries (RFC 8899): from
    /// [`initial_datagram_size`](Self::initial_datagram_size) up to the smallest of what this side's interface takes, what
    /// the peer takes and [`max_datagram_size`](Self::max_datagram_size). Probes carry data of the stream
    /// (RFC 4821 §10.1), so that there are none where little is sent, and no byte is sent that only fills; one that
    /// is lost is sent again in smaller segments and does not count as congestion. Where the size found no
    /// longer passes, the search begins again from [`min_datagram_size`](Self::min_datagram_size); ten minutes after
    /// it ended it looks for more. Needs [`sack`](Self::sack). Default: true; false after
    /// [`datagram_size`](Self::datagram_size).
    pub fn path_mtu_discovery(mut self, enabled: bool) -> Self {
        self.config.path_mtu_discovery = enabled;
        self
    }

    /// Sets the largest UDP payload that is sent before the path was probed, 512 to 65,507 bytes, between
    /// [`min_datagram_size`](Self::min_datagram_size) and [`max_datagram_size`](Self::max_datagram_size). Default: 1,232,
    /// which fits the IPv6 minimum MTU of 1,280 bytes (RFC 8200 §5).
    pub fn initial_datagram_size(mut self, bytes: usize) -> Self {
        self.config.datagram_size = bytes;
        self
    }

    /// Sets the UDP payload that every path is expected to carry, 512 to 65,507 bytes (`BASE_PLPMTU`, RFC 8899
    /// §5.1.2): what is sent once a larger size has stopped to pass. Default: 1,232, which fits the IPv6 minimum
    /// MTU. Only where not even that passes, 512 bytes are sent.
    pub fn min_datagram_size(mut self, bytes: usize) -> Self {
        self.config.min_datagram_size = bytes;
        self
    }

    /// Sets the largest UDP payload that is searched for, 512 to 65,507 bytes (`MAX_PLPMTU`, RFC 8899 §5.1.2).
    /// Default: 65,507, what IPv4 and UDP can carry.
    pub fn max_datagram_size(mut self, bytes: usize) -> Self {
        self.config.max_datagram_size = bytes;
        self
    }

    /// Sets the largest segment, in bytes after the 20-byte header and options not subtracted, that is
    /// announced to the peer (RFC 6691) and that is sent; 64 to 65,487. Default: 65,487, so that the size of
    /// the datagrams alone decides what is sent.
    pub fn mss(mut self, bytes: u16) -> Self {
        self.config.mss = bytes;
        self
    }

    /// Offers window scaling (RFC 7323 §2). Default: true.
    pub fn window_scaling(mut self, enabled: bool) -> Self {
        self.config.window_scaling = enabled;
        self
    }

    /// Offers timestamps (RFC 7323 §3): an RTT sample from every ACK, PAWS. Default: true.
    pub fn timestamps(mut self, enabled: bool) -> Self {
        self.config.timestamps = enabled;
        self
    }

    /// Offers selective acknowledgments (RFC 2018). Default: true.
    pub fn sack(mut self, enabled: bool) -> Self {
        self.config.sack = enabled;
        self
    }

    /// Offers the extension option: CRC-32C instead of the plain checksum, and the announced ACK delay.
    /// Default: true. A peer that does not know it gets plain TCP.
    pub fn extension(mut self, enabled: bool) -> Self {
        self.config.extension = enabled;
        self
    }

    /// Offers explicit congestion notification (RFC 3168): routers may then mark data in place of dropping it,
    /// and the sender slows down without sending anything again. Default: true. Where the path drops what is
    /// marked, or marks everything, the sender stops marking by itself
    /// ([`EcnState`](crate::EcnState)).
    pub fn ecn(mut self, enabled: bool) -> Self {
        self.config.ecn = enabled;
        self
    }

    /// Turns Nagle's algorithm off for new connections (RFC 9293 §3.7.4). Default: false, as with TCP.
    pub fn nodelay(mut self, enabled: bool) -> Self {
        self.config.nodelay = enabled;
        self
    }

    /// Sets the longest delay of an ACK, 0 to 500 ms (RFC 9293 §3.8.6.3); 0 acknowledges every segment at
    /// once. Default: 25 ms. On a short path an ACK waits no longer than a quarter of the smallest RTT, but
    /// at least 1 ms. It is announced to the peer in whole milliseconds, rounded up.
    pub fn ack_delay(mut self, delay: Duration) -> Self {
        self.config.ack_delay = delay;
        self
    }

    /// Sets the RTO before the first RTT sample, 1 ms to 60 s (RFC 6298 §2.1). Default: 1 s.
    pub fn initial_rto(mut self, rto: Duration) -> Self {
        self.config.initial_rto = rto;
        self
    }

    /// Sets the floor of the RTO, 1 ms to 60 s (RFC 6298 §2.4). Default: 200 ms, with which the stalls of a
    /// radio link hardly ever pass for losses: simulated, one spurious timeout in five minutes at most, where
    /// a floor of 100 ms has up to 14 in one. On a path that does not stall a lower floor is worth its price
    /// where a lost tail must not wait: it counts where the tail loss probe is lost too, or there is no
    /// [`sack`](Self::sack). The floor never lies below the ACK delay that the peer announced.
    pub fn min_rto(mut self, rto: Duration) -> Self {
        self.config.min_rto = rto;
        self
    }

    /// Sets the ceiling of the backed-off RTO, 1 s to 10 minutes (RFC 6298 §2.5). Default: 60 s.
    pub fn max_rto(mut self, rto: Duration) -> Self {
        self.config.max_rto = rto;
        self
    }

    /// Sets how often a SYN or SYN-ACK is sent again before the handshake fails with
    /// [`TimeoutCause::SynRetries`](crate::TimeoutCause::SynRetries), 0 to 255. Default: 7, three minutes.
    pub fn syn_retries(mut self, retries: u32) -> Self {
        self.config.syn_retries = retries;
        self
    }

    /// Bounds the handshake in time, at least 1 ms. Default: `None`, the retries alone decide.
    pub fn connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets how often the same data is sent again on timeout before the connection fails with
    /// [`TimeoutCause::DataRetries`](crate::TimeoutCause::DataRetries), 0 to 255. Default: 15 (RFC 9293
    /// §3.8.3). Probes of a zero window are not counted while the peer answers, nor is a
    /// [tail loss probe](Self::tail_loss_probe), which is sent before the first timeout.
    pub fn data_retries(mut self, retries: u32) -> Self {
        self.config.data_retries = retries;
        self
    }

    /// Sets how long sent data may stay unacknowledged, at least 1 ms, before the connection fails with
    /// [`TimeoutCause::UserTimeout`](crate::TimeoutCause::UserTimeout) (RFC 9293 §3.9.1). `None` leaves it
    /// to the retries. Default: 5 minutes.
    pub fn user_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.user_timeout = timeout;
        self
    }

    /// Probes a connection on which nothing arrived for this long, at least 1 ms (RFC 9293 §3.8.4).
    /// Default: `None`, off.
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.config.keepalive = idle;
        self
    }

    /// Sets the time between unanswered keepalive probes, at least 1 ms. Default: 75 s.
    pub fn keepalive_interval(mut self, interval: Duration) -> Self {
        self.config.keepalive_interval = interval;
        self
    }

    /// Sets how many unanswered keepalive probes end the connection with
    /// [`TimeoutCause::Keepalive`](crate::TimeoutCause::Keepalive), 1 to 255. Default: 9.
    pub fn keepalive_probes(mut self, probes: u32) -> Self {
        self.config.keepalive_probes = probes;
        self
    }

    /// Ends a connection on which nothing at all arrived for this long, at least 1 ms, with
    /// [`TimeoutCause::IdleTimeout`](crate::TimeoutCause::IdleTimeout). Default: `None`, never.
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// Bounds how long a dropped socket's connection goes on in the background, and how long it waits for
    /// the peer's FIN after its own was acknowledged, 0 to 1 hour. Default: 60 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Chooses what dropping a socket without shutdown does. Default: [`DropPolicy::Finish`].
    pub fn drop_policy(mut self, policy: DropPolicy) -> Self {
        self.config.drop_policy = policy;
        self
    }

    /// Sets the length of TIME-WAIT, 0 to 4 minutes (RFC 9293 §3.4.2). Default: 60 s.
    /// It ends early for a newer connection with the same ports, told apart by timestamps (RFC 6191); without them, the
    /// side that connects and closes first has 32,768 ports per peer port for as long as it lasts.
    pub fn time_wait(mut self, length: Duration) -> Self {
        self.config.time_wait = length;
        self
    }

    /// Sets how many TIME-WAIT records the endpoint holds, 0 to 2^24; the oldest makes room. Default: 65,536.
    pub fn time_wait_capacity(mut self, records: usize) -> Self {
        self.config.time_wait_capacity = records;
        self
    }

    /// Sets how many connections a listener holds that were not yet accepted, 1 to 2^20. Default: 1,024.
    /// Beyond it, SYNs are answered with cookies (RFC 4987 §3.6).
    pub fn backlog(mut self, connections: usize) -> Self {
        self.config.backlog = connections;
        self
    }

    /// Sets how many connections the endpoint carries, 1 to 2^24. Default: 2^20.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.max_connections = connections;
        self
    }

    /// Sets how many bytes the endpoint's connections may buffer together, at least 64 KiB. Default: 4 GiB.
    /// Beyond it no connection is made, and one that holds more than its share of it gets no more data until
    /// what it has was read; the peer sends it again.
    pub fn max_memory(mut self, bytes: usize) -> Self {
        self.config.max_memory = bytes;
        self
    }

    /// Sets how many RSTs per second answer segments that belong to nobody, 0 to 1,000,000. Default: 100.
    pub fn reset_rate_limit(mut self, per_second: u32) -> Self {
        self.config.reset_rate_limit = per_second;
        self
    }

    /// Sets how many challenge ACKs per second and connection are sent, 0 to 1,000,000 (RFC 5961 §7).
    /// Default: 100. Answers to unacceptable segments that take no sequence number count too.
    pub fn challenge_ack_limit(mut self, per_second: u32) -> Self {
        self.config.challenge_ack_limit = per_second;
        self
    }

    /// Shows every segment of the endpoint to an observer, such as a capture into a file. The factory is
    /// called once per endpoint that is made with this configuration, before its first segment. Default:
    /// none, which costs one branch per segment.
    pub fn tap(mut self, factory: impl TapFactory + 'static) -> Self {
        self.config.tap = Some(Arc::new(factory));
        self
    }

    /// Checks all values and returns the configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first value that is out of range or contradicts another.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = &self.config;
        ranges::check(c)?;
        if c.min_rto > c.max_rto {
            return Err(ConfigError::Conflict {
                field: "min_rto",
                value: format!("{:?}", c.min_rto),
                conflict: "max_rto is smaller",
            });
        }
        if c.path_mtu_discovery
            && !(c.min_datagram_size..=c.max_datagram_size).contains(&c.datagram_size)
        {
            return Err(ConfigError::Conflict {
                field: "initial_datagram_size",
                value: c.datagram_size.to_string(),
                conflict: "it is not between min_datagram_size and max_datagram_size",
            });
        }
        Ok(self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(Config::builder().build().is_ok());
    }

    #[test]
    fn a_rejected_value_is_named_with_its_range() {
        let threshold = |fraction| Config::builder().bbr_loss_threshold(fraction);
        let cases: [(&str, ConfigBuilder); 9] = [
            ("datagram_size", Config::builder().datagram_size(100)),
            ("mss", Config::builder().mss(63)),
            ("bbr_loss_threshold", threshold(0.6)),
            ("bbr_loss_threshold", threshold(0.0)),
            ("bbr_loss_threshold", threshold(f64::NAN)),
            ("send_buffer", Config::builder().send_buffer(0)),
            (
                "ack_delay",
                Config::builder().ack_delay(Duration::from_secs(1)),
            ),
            (
                "user_timeout",
                Config::builder().user_timeout(Some(Duration::ZERO)),
            ),
            ("keepalive_probes", Config::builder().keepalive_probes(0)),
        ];
        for (name, builder) in cases {
            match builder.build() {
                Err(ConfigError::OutOfRange { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_search_for_a_size_begins_between_its_limits() {
        let sizes = |min, initial, max| {
            Config::builder()
                .min_datagram_size(min)
                .initial_datagram_size(initial)
                .max_datagram_size(max)
        };
        assert!(sizes(1_000, 1_232, 1_500).build().is_ok());
        for (min, initial, max) in [(1_300, 1_232, 1_500), (1_000, 1_232, 1_200)] {
            let built = sizes(min, initial, max).build();
            assert!(matches!(
                built,
                Err(ConfigError::Conflict {
                    field: "initial_datagram_size",
                    ..
                })
            ));
        }
        // A fixed size has no limits but those of UDP.
        assert!(Config::builder().datagram_size(512).build().is_ok());
    }

    #[test]
    fn an_inverted_rto_range_is_a_conflict() {
        let builder = Config::builder()
            .min_rto(Duration::from_secs(5))
            .max_rto(Duration::from_secs(2));
        assert!(matches!(
            builder.build(),
            Err(ConfigError::Conflict {
                field: "min_rto",
                ..
            })
        ));
    }
}
