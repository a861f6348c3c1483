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
    /// When the first retransmission was made, and where it begins.
    first_retransmission: Option<(Timestamp, Offset)>,
    /// A congestion echo has confirmed it: it is never taken back.
    is_final: bool,
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
            first_retransmission: None,
            is_final: false,
            has_advanced: false,
            retransmitted: RangeSet::new(),
            copies: 0,
            duplicates: RangeSet::new(),
            reported: 0,
            expires: None,
        }
    }

    /// RFC 4015 §3, step 8: what an echo confirms is not taken back, however it began.
    pub fn confirm(&mut self) {
        self.is_final = true;
    }

    /// Says whether an echo has confirmed it.
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// `range` was sent again.
    pub fn on_retransmitted(&mut self, now: Timestamp, range: Range<Offset>) {
        if self.expires.is_some() {
            return;
        }
        self.first_retransmission.get_or_insert((now, range.start));
        self.copies = (self.copies).saturating_add(range.end.saturating_since(range.start));
        self.retransmitted.insert(range);
    }

    /// An ACK echoes `echoed`, in whole milliseconds, and advances or not to `snd_una`. Says whether it proves
    /// the episode spurious.
    pub fn on_echo(&mut self, echoed: Option<Timestamp>, advances: bool, snd_una: Offset) -> bool {
        let Some((first, start)) = self.first_retransmission else {
            return false;
        };
        // RFC 3522 §3.2 has the oldest segment in mind. An episode may begin with a later one, while the
        // retransmission of an older one that the episode before has sent is on its way: what acknowledges only
        // that echoes an earlier time, and proves nothing.
        if !advances || snd_una <= start || std::mem::replace(&mut self.has_advanced, true) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ack_of_what_the_episode_has_sent_again_can_prove_it_spurious() {
        let at = Timestamp::from_millis;
        let offset = |bytes: u64| Offset::FIRST + bytes;
        let mut episode = Episode::new(false);
        episode.on_retransmitted(at(100), offset(5_000)..offset(6_000));
        // 3,000 to 4,000 had been sent again at 50, in the episode before.
        assert!(!episode.on_echo(Some(at(50)), true, offset(5_000)));
        assert!(!episode.clone().on_echo(Some(at(100)), true, offset(6_000)));
        assert!(episode.on_echo(Some(at(50)), true, offset(6_000)));
    }
}
