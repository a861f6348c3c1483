//! The advertised window: how far the peer may send, and when it is worth telling it of more room.
//!
//! Follows RFC 9293 §3.8.6 (window management, silly-window avoidance of the receiver) and RFC 7323
//! §2 (scaling). How large it should be is [`tuning`](super::tuning)'s to find; here it only grows.

use crate::connection::offset::Offset;

/// Segment size assumed while the peer has sent nothing larger (RFC 9293 §3.7.1: the default MSS).
const DEFAULT_MSS: u64 = 536;
/// Largest value of the window field.
const FIELD_MAX: u64 = 65_535;

/// The receive window.
///
/// Invariants:
/// - `capacity` never shrinks, and never exceeds `max_capacity` but for what it was made with;
/// - `right_edge` never moves left and is never left of what the peer was told;
/// - it is at most `capacity` plus [`slack`](Self::slack) beyond the first unread byte.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes that may wait for the reader.
    capacity: u64,
    /// What that may grow to.
    max_capacity: u32,
    /// Our receive shift (RFC 7323 §2.2): `Rcv.Wind.Shift`.
    shift: u8,
    /// First offset that is not accepted.
    right_edge: Offset,
    /// Whether a segment without SYN, whose window is scaled, was sent.
    is_advertised: bool,
}

impl Window {
    /// A window of `capacity` bytes, of which a SYN advertises what fits its unscaled field; it may grow to
    /// `max_capacity`.
    pub(super) fn new(capacity: usize, max_capacity: usize) -> Self {
        let capacity = capacity as u64;
        Self {
            capacity,
            // No window can be told that is larger (RFC 7323 §2.3).
            max_capacity: u32::try_from(max_capacity).unwrap_or(u32::MAX),
            shift: 0,
            right_edge: Offset::FIRST + capacity.min(FIELD_MAX),
            is_advertised: false,
        }
    }

    pub(super) fn set_shift(&mut self, shift: u8) {
        // RFC 7323 §2.3: a shift is at most 14.
        self.shift = shift.min(14);
    }

    /// RFC 7323 §2.2: the window in a segment with SYN is never scaled.
    pub(super) fn field_syn(&self) -> u16 {
        u16::try_from(self.capacity).unwrap_or(u16::MAX)
    }

    /// Bytes that may wait for the reader now.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Grows to `wanted` bytes, as far as is allowed. The right edge moves with the next advertisement.
    pub(super) fn grow_to(&mut self, wanted: u64) {
        self.capacity = self.capacity.max(wanted.min(self.max_capacity.into()));
    }

    pub(super) fn right_edge(&self) -> Offset {
        self.right_edge
    }

    /// Fixes the window that a departing segment tells, and returns its field.
    ///
    /// `readable` is what the application has not read below `rcv_nxt`, `segment_size` the peer's
    /// usual segment, both in bytes. The field counts from `rcv_nxt`.
    pub(super) fn advertise(
        &mut self,
        rcv_nxt: Offset,
        readable: usize,
        segment_size: usize,
    ) -> u16 {
        self.is_advertised = true;
        let candidate = self.candidate(rcv_nxt, readable);
        // RFC 9293 §3.8.6.2.2: the right edge stays until it can move by the smaller of half the
        // buffer and one segment.
        let step = (self.span() / 2).min(full_sized(segment_size)).max(1);
        if candidate >= self.right_edge + step {
            self.right_edge = candidate;
        }
        self.field_from(rcv_nxt, readable)
    }

    /// The field that repeats the present right edge in a segment that acknowledges `ack`, at or below
    /// RCV.NXT. `unread` is what lies between the first unread byte and `ack`.
    ///
    /// A duplicate ACK tells no news: one with another window would be none (RFC 5681 §2, (e)).
    pub(super) fn repeat(&mut self, ack: Offset, unread: usize) -> u16 {
        self.is_advertised = true;
        self.field_from(ack, unread)
    }

    fn field_from(&mut self, ack: Offset, unread: usize) -> u16 {
        let unit = 1_u64 << self.shift;
        let held = self.right_edge.saturating_since(ack);
        // RFC 9293 §3.8.6: the edge should not move left, but the field counts in units and the
        // acknowledgment number in bytes. Rounding up keeps the edge; it promises less than one unit more.
        let rounded = held.div_ceil(unit) * unit;
        if rounded + unread as u64 <= self.capacity + self.slack() {
            self.right_edge = self.right_edge.max(ack + rounded);
            return field(rounded >> self.shift);
        }
        // Tiny segments to a reader that stands still would so push the edge on for ever. RFC 7323 §2.4
        // has senders cope with an edge that rounding takes back; we accept up to the old one.
        field(held >> self.shift)
    }

    /// Whether so much room has come up since the last advertisement that the peer should know now.
    ///
    /// While half of the window is still open the peer is not waiting, and the next ACK tells it; then
    /// only half a window of news is worth a segment of its own. Below that the step is two segments,
    /// twice that of [`advertise`](Self::advertise), so that an update always moves the edge.
    pub(super) fn has_update(&self, rcv_nxt: Offset, readable: usize, segment_size: usize) -> bool {
        let half = self.span() / 2;
        let is_half_open = self.right_edge.saturating_since(rcv_nxt) >= half;
        let step = if is_half_open {
            half
        } else {
            half.min(2 * full_sized(segment_size))
        };
        self.is_advertised && self.candidate(rcv_nxt, readable) >= self.right_edge + step.max(1)
    }

    /// The right edge that the free room allows.
    fn candidate(&self, rcv_nxt: Offset, readable: usize) -> Offset {
        let free = self.capacity.saturating_sub(readable as u64);
        let unit = 1_u64 << self.shift;
        let mut room = free.min(FIELD_MAX << self.shift) & !(unit - 1);
        if room == 0 && readable == 0 {
            // A capacity below one unit must not shut the window for ever.
            room = unit;
        }
        rcv_nxt + room
    }

    /// The largest window that can be told.
    fn span(&self) -> u64 {
        self.capacity.min(FIELD_MAX << self.shift)
    }

    /// Bytes beyond the capacity that rounding may promise.
    fn slack(&self) -> u64 {
        (self.capacity / 4).max(1 << self.shift)
    }

    /// Asserts the invariants, where `readable` bytes below `rcv_nxt` are unread.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self, rcv_nxt: Offset, readable: usize) {
        let promised = self.right_edge.saturating_since(rcv_nxt) + readable as u64;
        assert!(promised <= self.limit(), "{promised} bytes promised");
    }

    /// Most bytes that are ever promised: unread ones and the window together.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn limit(&self) -> u64 {
        self.capacity + self.slack()
    }
}

/// The peer's usual segment, for thresholds: small ones seen so far prove nothing.
fn full_sized(segment_size: usize) -> u64 {
    DEFAULT_MSS.max(segment_size as u64)
}

fn field(units: u64) -> u16 {
    u16::try_from(units).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
