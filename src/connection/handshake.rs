//! The handshake: which options are offered, what both sides agreed on, when a SYN is sent again.
//!
//! RFC 9293 §3.5 (three-way handshake, simultaneous open), RFC 7323 §2.2 and §3.2 (window scale,
//! timestamps), RFC 2018 §2 (SACK-permitted), RFC 6691 (MSS), RFC 6298 §5.7 (timeout of a SYN), and the
//! extension option of `docs/PROTOCOL.md`.

use std::time::Duration;

use crate::connection::ecn::EcnOffers;
use crate::connection::recovery::RecoveryStart;
use crate::wire::{
    Extension, FEATURE_CRC32C, HEADER_LEN, Integrity, MAX_WINDOW_SCALE, Options, Timestamps,
};
use crate::{Config, Timestamp};

/// MSS assumed of a peer that announces none (RFC 9293 §3.7.1, the smaller of its two defaults).
const DEFAULT_PEER_MSS: u16 = 536;
/// Smallest MSS that is believed, so that a hostile announcement cannot make us send single bytes.
const MIN_PEER_MSS: u16 = 64;
/// Bytes that the timestamps option takes in every segment, padding included.
const TIMESTAMPS_LEN: usize = 12;

/// How often the side that connected asks whether its ACK of the SYN-ACK has arrived.
const CONFIRMATION_PROBES: u32 = 6;
/// The first interval, that of a SYN-ACK before any RTT is known (RFC 6298 §2.1); the next ones double.
const CONFIRMATION_INTERVAL: Duration = Duration::from_secs(1);

/// The wait of the side that connected for any sign that the handshake's last ACK has arrived.
///
/// RFC 9293 leaves it to the other side to send its SYN-ACK again and again. Here that side may send only
/// three times the bytes that came in from an address that is not proven; then it falls silent. A client that
/// waits for the server to speak first would wait for ever, so it asks, with a segment that both a
/// connection and a half-open one answer: RFC 9002 §6.2.2.1 is the same cure for the same deadlock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmation {
    pub(super) deadline: Timestamp,
    probes: u32,
}

impl Confirmation {
    fn new(now: Timestamp) -> Self {
        Self {
            deadline: now + CONFIRMATION_INTERVAL,
            probes: 0,
        }
    }

    /// Another probe went out; `None` if it was the last.
    pub(super) fn after_probe(self, now: Timestamp) -> Option<Self> {
        let probes = self.probes + 1;
        let interval = CONFIRMATION_INTERVAL.saturating_mul(1 << probes.min(CONFIRMATION_PROBES));
        (probes < CONFIRMATION_PROBES).then_some(Self {
            deadline: now + interval,
            probes,
        })
    }

    /// Returns the wait of a connection just established; only a peer that knows our extension limits what it
    /// sends to an unproven address.
    pub(super) fn begin(now: Timestamp, is_passive: bool, negotiated: &Negotiated) -> Option<Self> {
        (!is_passive && negotiated.extension.is_some()).then(|| Self::new(now))
    }
}

/// What the two SYNs agreed on.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with a name at its use"
)]
pub struct Negotiated {
    /// The MSS option's value, or the default: bytes after the fixed header, options not subtracted.
    pub peer_mss: u16,
    /// Shift of the windows that we receive.
    pub snd_window_shift: u8,
    /// Shift of the windows that we send.
    pub rcv_window_shift: u8,
    /// Whether both sides offered window scaling.
    pub window_scaling: bool,
    /// Whether both sides offered timestamps.
    pub timestamps: bool,
    /// Whether both sides offered SACK.
    pub sack: bool,
    /// The peer's extension option, if both sides offered one.
    pub extension: Option<Extension>,
    /// Whether a SYN cookie remembers that both sides offered ECN; a handshake keeps that itself.
    pub ecn: bool,
}

impl Negotiated {
    /// Derives the agreement from the peer's SYN or SYN-ACK and what this side offers.
    pub fn from_peer(config: &Config, peer: &Options) -> Self {
        let window_scaling = config.window_scaling && peer.window_scale.is_some();
        let (snd_window_shift, rcv_window_shift) = match peer.window_scale {
            Some(shift) if window_scaling => (shift.min(MAX_WINDOW_SCALE), window_shift(config)),
            _ => (0, 0),
        };
        Self {
            peer_mss: peer.mss.unwrap_or(DEFAULT_PEER_MSS).max(MIN_PEER_MSS),
            snd_window_shift,
            rcv_window_shift,
            window_scaling,
            timestamps: config.timestamps && peer.timestamps.is_some(),
            sack: config.sack && peer.sack_permitted,
            extension: peer.extension.filter(|_| config.extension),
            ecn: false,
        }
    }

    /// Returns the integrity check of all segments without SYN.
    pub fn integrity(&self) -> Integrity {
        match self.extension {
            Some(extension) if extension.offers(FEATURE_CRC32C) => Integrity::Crc32c,
            _ => Integrity::Sum,
        }
    }

    /// Returns the largest datagram, whatever the path carries: what holds the smaller of the segments that
    /// the peer takes and that the user allows (RFC 6691 §3).
    pub fn datagram_limit(&self, config: &Config) -> usize {
        HEADER_LEN + usize::from(self.peer_mss.min(config.mss))
    }

    /// Returns the effective send MSS with datagrams of at most `datagram` bytes: payload bytes of a full segment
    /// without SACK blocks.
    pub fn mss(&self, config: &Config, datagram: usize) -> usize {
        let options = if self.timestamps { TIMESTAMPS_LEN } else { 0 };
        let datagram = datagram.min(self.datagram_limit(config));
        datagram.saturating_sub(HEADER_LEN + options).max(1)
    }
}

/// The shift that lets the largest configured receive window be announced (RFC 7323 §2.2).
pub fn window_shift(config: &Config) -> u8 {
    let mut shift = 0;
    while shift < MAX_WINDOW_SCALE && (usize::from(u16::MAX) << shift) < config.receive_buffer {
        shift += 1;
    }
    shift
}

/// A handshake in progress.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Whether this side only answers: a listener's connection.
    pub is_passive: bool,
    /// The peer's agreement, once its SYN arrived.
    pub negotiated: Option<Negotiated>,
    /// The options of every transmission of this side's SYN or SYN-ACK; set at the first one, so that
    /// all are identical.
    pub options: Option<Options>,
    /// When it began.
    pub started: Timestamp,
    /// When the SYN or SYN-ACK was last sent for the first time; for the RTT sample.
    pub sent_at: Option<Timestamp>,
    /// Whether it is to be sent now.
    pub is_due: bool,
    /// Retransmissions by timeout so far.
    pub retries: u32,
    /// When it is sent again; `None` before the first transmission.
    pub deadline: Option<Timestamp>,
    /// Whether anything was sent again, for whatever reason: then there is no RTT sample (Karn).
    pub was_retransmitted: bool,
    /// What both sides have said of ECN.
    pub offers: EcnOffers,
}

impl Handshake {
    /// Begins a handshake whose SYN or SYN-ACK is to be sent now.
    pub fn new(now: Timestamp, is_passive: bool) -> Self {
        Self {
            is_passive,
            negotiated: None,
            options: None,
            started: now,
            sent_at: None,
            is_due: true,
            retries: 0,
            deadline: None,
            was_retransmitted: false,
            offers: EcnOffers::default(),
        }
    }

    /// The SYN or SYN-ACK left: unless the timer runs, it runs anew, doubled per retry (RFC 6298 §5.5, §5.7).
    pub fn on_sent(&mut self, now: Timestamp, config: &Config) {
        self.is_due = false;
        if self.sent_at.is_some() {
            self.was_retransmitted = true;
        } else {
            self.sent_at = Some(now);
        }
        if self.deadline.is_some_and(|deadline| deadline > now) {
            // An answer out of turn. It must not put the timer off, or a peer that keeps asking for it would
            // keep the handshake alive for ever.
            return;
        }
        let factor = 1_u32 << self.retries.min(16);
        let rto = config
            .initial_rto
            .saturating_mul(factor)
            .min(config.max_rto);
        self.deadline = Some(now + rto);
    }

    /// Simultaneous open: the SYN-ACK replaces our SYN, with options of its own.
    pub fn on_simultaneous_open(&mut self, negotiated: Negotiated) {
        self.negotiated = Some(negotiated);
        self.options = None;
        self.is_due = true;
        self.deadline = None;
        // What the ACK will answer is no longer known.
        self.was_retransmitted = true;
    }

    /// Makes the options of a SYN (`peer` is `None`) or SYN-ACK, once.
    pub fn options(&mut self, config: &Config, tsval: u32, tsecr: u32) -> Options {
        let negotiated = self.negotiated;
        *self.options.get_or_insert_with(|| {
            let offer = |own: bool, agreed: fn(&Negotiated) -> bool| match &negotiated {
                None => own,
                Some(negotiated) => agreed(negotiated),
            };
            Options {
                mss: Some(config.mss),
                window_scale: offer(config.window_scaling, |n| n.window_scaling)
                    .then(|| window_shift(config)),
                sack_permitted: offer(config.sack, |n| n.sack),
                timestamps: offer(config.timestamps, |n| n.timestamps)
                    .then_some(Timestamps { tsval, tsecr }),
                extension: offer(config.extension, |n| n.extension.is_some())
                    .then(|| own_extension(config)),
                ..Options::default()
            }
        })
    }

    /// Returns the handshake's RTT sample, if it is unambiguous (Karn, RFC 6298 §3).
    pub fn rtt(&self, now: Timestamp) -> Option<Duration> {
        let sent_at = self.sent_at?;
        (!self.was_retransmitted).then(|| now.saturating_since(sent_at))
    }

    /// Returns what loss recovery has to know when the handshake ends.
    pub fn recovery_start(
        &self,
        now: Timestamp,
        config: &Config,
        negotiated: &Negotiated,
        seed: u64,
    ) -> RecoveryStart {
        RecoveryStart {
            mss: negotiated.mss(config, config.datagram_size) as u64,
            sack: negotiated.sack,
            rack: negotiated.sack,
            tail_loss_probe: config.tail_loss_probe,
            timestamps: negotiated.timestamps,
            prr: config.prr,
            handshake_rtt: self.rtt(now),
            syn_retransmitted: self.retries > 0,
            peer_ack_delay: negotiated
                .extension
                .map(|extension| announced_ack_delay(extension.ack_delay_ms)),
            seed,
        }
    }
}

/// The longest ACK delay that the extension option's byte stands for; 255 is "or more", and then it is
/// RFC 9293 §3.8.6.3 that bounds it.
fn announced_ack_delay(millis: u8) -> Duration {
    match millis {
        u8::MAX => Duration::from_millis(500),
        millis => Duration::from_millis(u64::from(millis)),
    }
}

/// The extension option that this side offers.
pub fn own_extension(config: &Config) -> Extension {
    let millis = config.ack_delay.as_micros().div_ceil(1_000);
    Extension {
        version: Extension::VERSION,
        features: FEATURE_CRC32C,
        ack_delay_ms: u8::try_from(millis).unwrap_or(u8::MAX),
        token: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::default()
    }

    #[test]
    fn the_shift_fits_the_largest_window() {
        for (buffer, shift) in [
            (4 * 1024, 0),
            (65_535, 0),
            (65_536, 1),
            (131_070, 1),
            (131_071, 2),
            (16 << 20, 9),
            (1 << 30, 14),
        ] {
            let config = Config::builder().receive_buffer(buffer).build().unwrap();
            assert_eq!(window_shift(&config), shift, "{buffer}");
        }
    }

    #[test]
    fn an_option_is_agreed_only_if_both_offer_it() {
        let full = Options {
            mss: Some(1_460),
            window_scale: Some(20),
            sack_permitted: true,
            timestamps: Some(Timestamps { tsval: 1, tsecr: 0 }),
            extension: Some(own_extension(&config())),
            ..Options::default()
        };
        let both = Negotiated::from_peer(&config(), &full);
        assert!(both.window_scaling && both.timestamps && both.sack);
        assert_eq!(
            both.snd_window_shift, 14,
            "RFC 7323 §2.3: above 14 counts as 14"
        );
        assert_eq!(both.integrity(), Integrity::Crc32c);

        let plain = Negotiated::from_peer(&config(), &Options::default());
        assert!(!plain.window_scaling && !plain.timestamps && !plain.sack);
        assert_eq!((plain.snd_window_shift, plain.rcv_window_shift), (0, 0));
        assert_eq!(plain.integrity(), Integrity::Sum);
        assert_eq!(plain.peer_mss, 536);

        let own_off = Config::builder()
            .window_scaling(false)
            .timestamps(false)
            .sack(false)
            .extension(false)
            .build()
            .unwrap();
        let none = Negotiated::from_peer(&own_off, &full);
        assert!(!none.window_scaling && !none.timestamps && !none.sack);
        assert_eq!(none.integrity(), Integrity::Sum);
    }

    #[test]
    fn the_mss_is_the_smallest_limit_less_the_options() {
        let peer = |mss| Options {
            mss: Some(mss),
            timestamps: Some(Timestamps { tsval: 1, tsecr: 0 }),
            ..Options::default()
        };
        // 1,232 bytes of datagram less 20 of header less 12 of timestamps.
        let config = config();
        assert_eq!(
            Negotiated::from_peer(&config, &peer(65_487)).mss(&config, config.datagram_size),
            1_200
        );
        assert_eq!(
            Negotiated::from_peer(&config, &peer(576)).mss(&config, config.datagram_size),
            564
        );
        let small = Config::builder()
            .mss(576)
            .timestamps(false)
            .build()
            .unwrap();
        assert_eq!(
            Negotiated::from_peer(&small, &peer(1_460)).mss(&small, small.datagram_size),
            576
        );
        assert_eq!(
            Negotiated::from_peer(&config, &peer(1)).mss(&config, config.datagram_size),
            52,
            "hostile MSS"
        );
    }

    #[test]
    fn retransmissions_double_and_carry_identical_options() {
        let config = config();
        let mut handshake = Handshake::new(Timestamp::ZERO, false);
        let first = handshake.options(&config, 7, 0);
        let mut now = Timestamp::ZERO;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            handshake.on_sent(now, &config);
            let deadline = now + Duration::from_secs(seconds);
            assert_eq!(handshake.deadline, Some(deadline));
            now = deadline;
            handshake.retries += 1;
            assert_eq!(handshake.options(&config, 999, 5), first);
        }
        assert_eq!(handshake.rtt(now), None, "Karn");
    }

    #[test]
    fn an_ack_delay_beyond_the_byte_is_taken_for_the_longest() {
        for (millis, delay) in [(0, 0), (25, 25), (254, 254), (255, 500)] {
            assert_eq!(announced_ack_delay(millis), Duration::from_millis(delay));
        }
    }

    #[test]
    fn the_ack_delay_is_announced_rounded_up() {
        for (micros, millis) in [(0, 0), (1, 1), (25_000, 25), (25_001, 26), (500_000, 255)] {
            let config = Config::builder()
                .ack_delay(Duration::from_micros(micros))
                .build()
                .unwrap();
            assert_eq!(own_extension(&config).ack_delay_ms, millis, "{micros}");
        }
    }
}
