//! SYN cookies (RFC 4987 §3.6): a listener whose backlog is full keeps its state in the SYN-ACK.
//!
//! The initial sequence number is 29 bits of a keyed hash over the connection's identity, the peer's
//! initial sequence number and a counter of 64 s, followed by 3 bits that name one of eight MSS values. It
//! can be redeemed in the period in which it was issued and the next one. Window scale, SACK, our
//! extension and ECN find room only in the timestamp that the peer echoes, in the low 7 bits of the
//! millisecond clock; without timestamps they are not offered. A peer can lie about these bits, and
//! harms nobody but itself.

use std::hash::Hasher;
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::demux::Key;
use super::secrets::{Secrets, low_half, write_key};
use super::time_wait::timestamp_clock;
use crate::config::Config;
use crate::connection::{Negotiated, is_ecn_setup, own_extension, window_shift};
use crate::timestamp::Timestamp;
use crate::wire::{
    Extension, FEATURE_CRC32C, Flags, Header, MAX_WINDOW_SCALE, Options, Segment, SeqNumber,
    Timestamps,
};

/// Length of one counter period.
const PERIOD: Duration = Duration::from_secs(64);
/// How long after it was issued a cookie may still be valid.
pub(super) const LIFETIME: Duration = Duration::from_secs(128);
/// What three bits can say about the peer's MSS; the largest not above it is taken. 536 is the default of
/// RFC 9293 §3.7.1, 1220 and 1440 belong to IPv6, 1460 to Ethernet, 8960 to jumbo frames.
const MSS_VALUES: [u16; 8] = [64, 216, 536, 1_220, 1_440, 1_460, 8_960, 65_487];
// RFC 9293 §3.7.1
const DEFAULT_MSS: u16 = 536;
/// RFC 8985 §7.2's bound for a peer whose ACK delay is not known; the cookie has no room for it.
const UNKNOWN_ACK_DELAY_MS: u8 = 200;

/// Layout of the low bits of the timestamp.
mod bits {
    /// The peer's window scale shift, or all ones for none.
    pub(super) const SHIFT: u32 = 0b1111;
    pub(super) const SACK: u32 = 1 << 4;
    pub(super) const EXTENSION: u32 = 1 << 5;
    pub(super) const ECN: u32 = 1 << 6;
    pub(super) const ALL: u32 = 0b111_1111;
}

/// Where and when a cookie is baked or tasted.
#[derive(Clone, Copy)]
pub(super) struct Oven<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) config: &'a Config,
    pub(super) key: &'a Key,
}

impl Oven<'_> {
    /// Builds the SYN-ACK that answers `syn` and holds its state.
    pub(super) fn issue(&self, now: Timestamp, syn: &Segment<'_>) -> Header {
        let offered = &syn.header.options;
        let peer_mss = offered.mss.unwrap_or(DEFAULT_MSS);
        let mss_index = MSS_VALUES
            .iter()
            .rposition(|&mss| mss <= peer_mss)
            .unwrap_or(0);
        let cookie = self.cookie(now, 0, syn.header.seq, mss_index);

        let mut flags = Flags::SYN | Flags::ACK;
        let mut options = Options {
            mss: Some(self.config.mss),
            ..Options::default()
        };
        if let (true, Some(theirs)) = (self.config.timestamps, offered.timestamps) {
            let state = self.remember(&syn.header);
            let clock = timestamp_clock(now, self.timestamp_offset());
            // Never ahead of the clock, or PAWS would reject what follows (RFC 7323 §5.3).
            let tsval = clock.wrapping_sub(clock.wrapping_sub(state) & bits::ALL);
            options.timestamps = Some(Timestamps {
                tsval,
                tsecr: theirs.tsval,
            });
            options.window_scale =
                (state & bits::SHIFT != bits::SHIFT).then(|| window_shift(self.config));
            options.sack_permitted = state & bits::SACK != 0;
            options.extension = (state & bits::EXTENSION != 0).then(|| own_extension(self.config));
            if state & bits::ECN != 0 {
                flags |= Flags::ECE;
            }
        }
        Header {
            src_port: syn.header.dst_port,
            dst_port: syn.header.src_port,
            seq: cookie,
            ack: syn.header.seq + 1,
            flags,
            window: u16::try_from(self.config.receive_buffer).unwrap_or(u16::MAX),
            options,
        }
    }

    /// Returns our initial sequence number and what was negotiated, if `ack` acknowledges a cookie that was
    /// issued not long ago.
    pub(super) fn redeem(
        &self,
        now: Timestamp,
        ack: &Segment<'_>,
    ) -> Option<(SeqNumber, Negotiated)> {
        let cookie = SeqNumber::new(ack.header.ack.get().wrapping_sub(1));
        let irs = SeqNumber::new(ack.header.seq.get().wrapping_sub(1));
        let mss_index = (cookie.get() & 0b111) as usize;
        let is_ours = (0..2).any(|age| self.cookie(now, age, irs, mss_index) == cookie);
        if !is_ours {
            return None;
        }
        let timestamps = ack
            .header
            .options
            .timestamps
            .filter(|_| self.config.timestamps);
        // What was not sent with the SYN-ACK was not negotiated.
        let state = timestamps.map_or(bits::SHIFT, |option| option.tsecr & bits::ALL);
        let shift = u8::try_from(state & bits::SHIFT).unwrap_or(0);
        let window_scaling = self.config.window_scaling && state & bits::SHIFT != bits::SHIFT;
        let extension = self.config.extension && state & bits::EXTENSION != 0;
        let negotiated = Negotiated {
            peer_mss: MSS_VALUES.get(mss_index).copied().unwrap_or(DEFAULT_MSS),
            snd_window_shift: if window_scaling {
                shift.min(MAX_WINDOW_SCALE)
            } else {
                0
            },
            rcv_window_shift: if window_scaling {
                window_shift(self.config)
            } else {
                0
            },
            window_scaling,
            timestamps: timestamps.is_some(),
            sack: self.config.sack && state & bits::SACK != 0,
            extension: extension.then_some(Extension {
                version: Extension::VERSION,
                features: FEATURE_CRC32C,
                ack_delay_ms: UNKNOWN_ACK_DELAY_MS,
                token: None,
            }),
            ecn: self.config.ecn && state & bits::ECN != 0,
        };
        Some((cookie, negotiated))
    }

    /// The offset of the timestamp clock, the same that the connection will have.
    fn timestamp_offset(&self) -> u32 {
        self.secrets.timestamp_offset(self.key)
    }

    /// The seven bits for what both sides want.
    fn remember(&self, syn: &Header) -> u32 {
        let offered = &syn.options;
        let shift = offered.window_scale.filter(|_| self.config.window_scaling);
        let mut state = shift.map_or(bits::SHIFT, |shift| u32::from(shift.min(MAX_WINDOW_SCALE)));
        if self.config.sack && offered.sack_permitted {
            state |= bits::SACK;
        }
        // Only an extension that says what ours says can be remembered in one bit.
        let is_known = |theirs: Extension| theirs.offers(FEATURE_CRC32C);
        if self.config.extension && offered.extension.is_some_and(is_known) {
            state |= bits::EXTENSION;
        }
        if self.config.ecn && is_ecn_setup(syn.flags) {
            state |= bits::ECN;
        }
        state
    }

    fn cookie(&self, now: Timestamp, age: u64, irs: SeqNumber, mss_index: usize) -> SeqNumber {
        let period = (now.as_millis() / 1_000 / PERIOD.as_secs()).wrapping_sub(age);
        let mut hasher = SipHasher24::new_with_key(&self.secrets.cookie);
        write_key(&mut hasher, self.key, self.key.local_port);
        hasher.write_u32(irs.get());
        hasher.write_u64(period);
        hasher.write_usize(mss_index);
        let index = u32::try_from(mss_index).unwrap_or(0);
        SeqNumber::new(low_half(hasher.finish()) & !0b111 | index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Integrity};

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn key() -> Key {
        Key::new("10.0.0.1:9".parse().unwrap(), 40_000, 1)
    }

    fn secrets() -> Secrets {
        Secrets {
            isn: [1; 16],
            port: [2; 16],
            cookie: [3; 16],
            hash_seed: 4,
        }
    }

    fn syn_options() -> Options {
        Options {
            mss: Some(1_400),
            window_scale: Some(9),
            sack_permitted: true,
            timestamps: Some(Timestamps {
                tsval: 77,
                tsecr: 0,
            }),
            extension: Some(Extension {
                version: 1,
                features: FEATURE_CRC32C,
                ack_delay_ms: 25,
                token: None,
            }),
            ..Options::default()
        }
    }

    fn encode(header: &Header) -> Vec<u8> {
        let mut buf = vec![0; 60];
        let len = header.encode(&mut buf).unwrap();
        buf.truncate(len);
        wire::seal(&mut buf, Integrity::Sum);
        buf
    }

    fn issue(now: Timestamp, config: &Config, options: Options) -> Header {
        let syn = Header {
            src_port: 40_000,
            dst_port: 1,
            seq: SeqNumber::new(u32::MAX),
            flags: Flags::SYN | Flags::ECE | Flags::CWR,
            options,
            ..Header::default()
        };
        let (secrets, key) = (secrets(), key());
        let bytes = encode(&syn);
        Oven {
            secrets: &secrets,
            config,
            key: &key,
        }
        .issue(now, &Segment::decode(&bytes).unwrap())
    }

    fn ack_of(syn_ack: &Header) -> Header {
        let timestamps = syn_ack.options.timestamps.map(|option| Timestamps {
            tsval: 78,
            tsecr: option.tsval,
        });
        Header {
            src_port: 40_000,
            dst_port: 1,
            seq: syn_ack.ack,
            ack: syn_ack.seq + 1,
            flags: Flags::ACK,
            options: Options {
                timestamps,
                ..Options::default()
            },
            ..Header::default()
        }
    }

    fn redeem(now: Timestamp, config: &Config, ack: &Header) -> Option<(SeqNumber, Negotiated)> {
        let (secrets, key) = (secrets(), key());
        let bytes = encode(ack);
        Oven {
            secrets: &secrets,
            config,
            key: &key,
        }
        .redeem(now, &Segment::decode(&bytes).unwrap())
    }

    #[test]
    fn everything_negotiated_survives_the_round_trip() {
        let config = Config::default();
        let syn_ack = issue(START, &config, syn_options());
        assert_eq!(syn_ack.ack, SeqNumber::new(0));
        assert_eq!(
            syn_ack.options.timestamps.map(|option| option.tsecr),
            Some(77)
        );
        let (iss, negotiated) = redeem(START, &config, &ack_of(&syn_ack)).unwrap();
        assert_eq!(iss, syn_ack.seq);
        assert_eq!(negotiated.peer_mss, 1_220);
        assert_eq!(negotiated.snd_window_shift, 9);
        // 32 MiB needs a shift of 10: 33,554,432 >> 9 is 65,536, one too many.
        assert_eq!(negotiated.rcv_window_shift, 10);
        assert_eq!(syn_ack.options.window_scale, Some(10));
        assert!(negotiated.window_scaling && negotiated.timestamps && negotiated.sack);
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK | Flags::ECE);
        assert!(negotiated.ecn);
        assert_eq!(
            negotiated.extension.map(|extension| extension.features),
            Some(FEATURE_CRC32C)
        );
    }

    #[test]
    fn without_timestamps_nothing_else_is_offered() {
        let config = Config::default();
        let syn_ack = issue(
            START,
            &config,
            Options {
                timestamps: None,
                ..syn_options()
            },
        );
        assert_eq!(
            syn_ack.options,
            Options {
                mss: Some(config.mss),
                ..Options::default()
            }
        );
        let (_, negotiated) = redeem(START, &config, &ack_of(&syn_ack)).unwrap();
        assert!(!negotiated.window_scaling && !negotiated.timestamps && !negotiated.sack);
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
        assert!(!negotiated.ecn);
        assert_eq!(negotiated.extension, None);
        assert_eq!(
            (negotiated.snd_window_shift, negotiated.rcv_window_shift),
            (0, 0)
        );
    }

    #[test]
    fn what_is_switched_off_stays_off_whatever_the_peer_echoes() {
        let config = Config::builder()
            .window_scaling(false)
            .sack(false)
            .extension(false)
            .ecn(false)
            .build()
            .unwrap();
        let mut ack = ack_of(&issue(START, &config, syn_options()));
        ack.options.timestamps = Some(Timestamps {
            tsval: 78,
            tsecr: bits::EXTENSION | bits::SACK | bits::ECN,
        });
        let (_, negotiated) = redeem(START, &config, &ack).unwrap();
        assert!(!negotiated.window_scaling && !negotiated.sack && !negotiated.ecn);
        assert_eq!(negotiated.extension, None);
    }

    #[test]
    fn a_cookie_lives_one_to_two_periods() {
        let config = Config::default();
        // Period 15 begins at 960 s.
        let ack = ack_of(&issue(
            Timestamp::from_millis(960_000),
            &config,
            syn_options(),
        ));
        let cases = [
            (960_000, true),
            (1_087_999, true),
            (1_088_000, false),
            (959_999, false),
        ];
        for (millis, is_valid) in cases {
            let redeemed = redeem(Timestamp::from_millis(millis), &config, &ack);
            assert_eq!(redeemed.is_some(), is_valid, "{millis} ms");
        }
    }

    #[test]
    fn a_changed_number_is_no_cookie() {
        let config = Config::default();
        let ack = ack_of(&issue(START, &config, syn_options()));
        let other_mss = Header {
            ack: SeqNumber::new(ack.ack.get() ^ 1),
            ..ack
        };
        let other_irs = Header {
            seq: ack.seq + 1,
            ..ack
        };
        let other_hash = Header {
            ack: ack.ack + 8,
            ..ack
        };
        for forged in [other_mss, other_irs, other_hash] {
            assert!(redeem(START, &config, &forged).is_none(), "{forged:?}");
        }
    }

    #[test]
    fn the_timestamp_is_at_most_127_ms_behind_and_never_ahead_of_the_clock() {
        let config = Config::default();
        let (secrets, key) = (secrets(), key());
        let offset = secrets.timestamp_offset(&key);
        for millis in 0..200 {
            let now = START + Duration::from_millis(millis);
            let tsval = issue(now, &config, syn_options())
                .options
                .timestamps
                .unwrap()
                .tsval;
            assert!(
                timestamp_clock(now, offset).wrapping_sub(tsval) < 128,
                "{millis}"
            );
        }
    }
}
