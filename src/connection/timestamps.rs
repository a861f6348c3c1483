//! Timestamps (RFC 7323): our clock in them, the peer's latest one, RTT samples from echoes, and the
//! protection against wrapped sequence numbers (PAWS, §5).
//!
//! They are in force from the moment both SYNs are known, so also in SYN-RECEIVED.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::{Connection, Offset};
use crate::Timestamp;
use crate::wire::{Flags, Header, Timestamps};

/// How long TS.Recent is trusted without being renewed (RFC 7323 §5.5): 24 days.
const TS_RECENT_LIFETIME: Duration = Duration::from_secs(24 * 24 * 3600);
/// How many milliseconds older than TS.Recent a segment's timestamp may be.
const PAWS_TOLERANCE: u32 = 250;
/// A timestamp echo older than this is no RTT sample but a lie or a wrap.
const MAX_RTT_SAMPLE: Duration = Duration::from_secs(600);

impl Connection {
    /// Our timestamp clock: milliseconds (RFC 7323 §5.4), shifted by the connection's own offset.
    pub(super) fn tsval(&self, now: Timestamp) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the clock is taken modulo 2^32"
        )]
        let millis = now.as_millis() as u32;
        millis.wrapping_add(self.timestamp_offset)
    }

    /// Returns the option of a departing segment, if segments carry it.
    pub(super) fn timestamps(&self, now: Timestamp) -> Option<Timestamps> {
        self.uses_timestamps().then(|| Timestamps {
            tsval: self.tsval(now),
            tsecr: self.ts_recent.map_or(0, |(tsval, _)| tsval),
        })
    }

    /// Whether segments carry timestamps.
    fn uses_timestamps(&self) -> bool {
        self.negotiated
            .or_else(|| self.handshake.as_ref()?.negotiated)
            .is_some_and(|negotiated| negotiated.timestamps)
    }

    /// RFC 7323 §3.2: whether a segment comes without the timestamps that were agreed.
    pub(super) fn lacks_timestamps(&self, header: &Header) -> bool {
        self.uses_timestamps()
            && !header.flags.contains(Flags::RST)
            && header.options.timestamps.is_none()
    }

    /// RFC 7323 §5.3 R1: says whether the timestamp lets the segment pass.
    ///
    /// Deviation from RFC 7323 §5.3 R1: where both ends are known to count milliseconds, because both offered
    /// our extension option, a segment may be a little older than TS.Recent. When one of several late segments
    /// is sent again, its copy renews TS.Recent, and the originals of the others would be dropped when they
    /// arrive: reordering would become loss. What PAWS is for, a duplicate from before the sequence numbers
    /// wrapped, is 3 GiB older, more than 100 Gbit/s carry in this time. A duplicate from an earlier connection
    /// with the same ports (RFC 6191) can be younger, but not as young as the peer's SYN.
    pub(super) fn passes_paws(&self, now: Timestamp, header: &Header) -> bool {
        let known = self.ts_recent.filter(|_| self.uses_timestamps());
        let (Some((recent, set_at)), Some(timestamps)) = (known, header.options.timestamps) else {
            return true;
        };
        let counts_millis = self.negotiated.is_some_and(|n| n.extension.is_some());
        let tolerance = PAWS_TOLERANCE.min(recent.wrapping_sub(self.ts_first));
        let is_just_late = counts_millis && recent.wrapping_sub(timestamps.tsval) <= tolerance;
        header.flags.contains(Flags::RST)
            || !is_before(timestamps.tsval, recent)
            || is_just_late
            || now.saturating_since(set_at) > TS_RECENT_LIFETIME
    }

    /// The peer's SYN, or the segment that stands for it, sets TS.Recent first.
    pub(super) fn start_ts_recent(&mut self, now: Timestamp, header: &Header) {
        self.ts_recent = header.options.timestamps.map(|ts| (ts.tsval, now));
        self.ts_first = self.ts_recent.map_or(0, |(tsval, _)| tsval);
    }

    /// RFC 7323 §4.3 (2): only a segment that reaches back to the last ACK renews TS.Recent.
    pub(super) fn renew_ts_recent(&mut self, now: Timestamp, header: &Header, start: Offset) {
        let Some(timestamps) = header.options.timestamps.filter(|_| self.uses_timestamps()) else {
            return;
        };
        let is_newer = self
            .ts_recent
            .is_none_or(|(recent, _)| !is_before(timestamps.tsval, recent));
        if is_newer && start <= self.last_ack_sent {
            self.ts_recent = Some((timestamps.tsval, now));
        }
    }

    /// The RTT sample in a timestamp echo (RFC 7323 §4.1), if it is plausible.
    pub(super) fn echoed_rtt(&self, now: Timestamp, tsecr: u32) -> Option<Duration> {
        let millis = self.tsval(now).wrapping_sub(tsecr);
        let rtt = Duration::from_millis(u64::from(millis));
        (tsecr != 0 && rtt <= MAX_RTT_SAMPLE).then_some(rtt)
    }
}

/// Says whether timestamp `a` is older than `b` in 32-bit serial order (RFC 7323 §5.2).
fn is_before(a: u32, b: u32) -> bool {
    let distance = b.wrapping_sub(a);
    distance != 0 && distance < 1 << 31
}
