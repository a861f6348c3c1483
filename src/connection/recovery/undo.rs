//! Whether a reduction of the window was spurious: nothing was lost, it was only late.
//!
//! Two signs are taken here. Timestamps tell at the first ACK that advances: if it echoes a time before the
//! first retransmission, the original caused it (Eifel, RFC 3522 §3.2). DSACKs tell when they have
//! reported every retransmission of the episode as a duplicate, and as often as it was sent again
//! (RFC 3708 §2). The third, F-RTO, stands in [`super::frto`].
//!
//! What follows from it stands in [`super::spurious`]: the controller restores its window (RFC 4015 §3),
//! recovery ends, and what was falsely marked lost counts as in flight again.

use std::ops::Range;

use crate::Timestamp;
use crate::connection::Offset;
use crate::connection::range_set::RangeSet;

/// The latest reduction, as long as it can prove spurious.
#[derive(Debug, Clone)]
pub struct Episode {
    was_timeout: bool,
    first_retransmission_at: Option<Timestamp>,
    /// Whether an ACK has advanced since the first retransmission.
    has_advanced: bool,
    retransmitted: RangeSet,
    /// Bytes sent again, each copy counted.
    copies: u64,
    /// Those of them that were reported as duplicates.
    duplicates: RangeSet,
    /// Bytes of these reports, each counted.
    reported: u64,
    /// Once it is over: a report that comes when this is acknowledged is of something else.
    expires: Option<Offset>,
}

impl Episode {
    /// A recovery, or the slow start after a timeout, begins.
    pub const fn new(was_timeout: bool) -> Self {
        Self {
            was_timeout,
            first_retransmission_at: None,
            has_advanced: false,
            retransmitted: RangeSet::new(),
            copies: 0,
            duplicates: RangeSet::new(),
            reported: 0,
            expires: None,
        }
    }

    /// `range` was sent again.
    pub fn on_retransmitted(&mut self, now: Timestamp, range: Range<Offset>) {
        if self.expires.is_some() {
            return;
        }
        self.first_retransmission_at.get_or_insert(now);
        self.copies = (self.copies).saturating_add(range.end.saturating_since(range.start));
        self.retransmitted.insert(range);
    }

    /// An ACK echoes `echoed`, in whole milliseconds, and advances or not. Says whether it proves the
    /// episode spurious.
    pub fn on_echo(&mut self, echoed: Option<Timestamp>, advances: bool) -> bool {
        let Some(first) = self.first_retransmission_at else {
            return false;
        };
        if !advances || std::mem::replace(&mut self.has_advanced, true) {
            return false;
        }
        // RFC 3522 §3.2 step 4. In the same millisecond it may be the retransmission.
        echoed.is_some_and(|echoed| echoed.as_millis() < first.as_millis())
    }

    /// `duplicate` was reported. Says whether that proves the episode spurious.
    pub fn on_duplicate(&mut self, duplicate: &Range<Offset>) -> bool {
        let len = duplicate.end.saturating_since(duplicate.start);
        if self.retransmitted.covered_in(duplicate.clone()) == len {
            self.duplicates.insert(duplicate.clone());
            self.reported = self.reported.saturating_add(len);
        }
        // The set sees through a report that the network has doubled, the count through one of two copies.
        let is_complete = self.duplicates.bytes() == self.retransmitted.bytes();
        is_complete && self.reported >= self.copies && !self.duplicates.is_empty()
    }

    /// The episode is over; reports about what was sent up to `snd_nxt` may still come.
    pub fn on_exited(&mut self, snd_nxt: Offset) {
        self.expires = Some(snd_nxt);
    }

    /// Says whether no report can come any more.
    pub fn is_expired(&self, snd_una: Offset) -> bool {
        self.expires.is_some_and(|end| snd_una > end)
    }

    /// Returns the bytes that were sent again, each counted once.
    pub fn resent(&self) -> u64 {
        self.retransmitted.bytes()
    }

    /// Says whether a timeout began it.
    pub const fn was_timeout(&self) -> bool {
        self.was_timeout
    }
}
