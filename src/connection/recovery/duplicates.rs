//! Duplicate ACKs, and what they stand for where there is no SACK (RFC 5681 §3.2, RFC 6582).
//!
//! Without SACK each duplicate ACK says that some segment arrived and left the network. Instead of
//! inflating and deflating the window as RFC 6582 §3.2 does, these bytes are taken off `pipe`; what may
//! be sent is the same:
//!
//! - a duplicate ACK adds one `mss` to the window there, and takes one off `pipe` here;
//! - a partial ACK of `n` bytes deflates the window by `n` less one `mss` there. Here `pipe` falls by
//!   `n` with the data, and rises by `n` less one `mss`, for one of the segments acknowledged was the
//!   retransmission and the others had been counted by duplicate ACKs.

/// Duplicate ACKs since `snd_una` last moved, and the bytes that they took off `pipe`.
#[derive(Debug, Clone, Default)]
pub struct Duplicates {
    count: u32,
    /// Bytes above `snd_una` assumed to be with the peer; 0 where SACK says it exactly. No window has more (RFC 7323
    /// §2.3).
    held: u32,
}

impl Duplicates {
    /// A duplicate ACK arrived that stands for `held` bytes.
    pub fn on_duplicate(&mut self, held: u64) {
        self.count = self.count.saturating_add(1);
        self.held = self.held.saturating_add(narrow(held));
    }

    /// `snd_una` moved outside of recovery, recovery ended, or the timer expired.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// `snd_una` moved by `acked` bytes within recovery (RFC 6582 §3.2, step 3). `outstanding` is what
    /// is still unacknowledged.
    pub fn on_partial_ack(&mut self, acked: u64, outstanding: u64, mss: u64) {
        self.count = 0;
        let rest = outstanding.saturating_sub(mss);
        let held = self.held().saturating_sub(acked.saturating_sub(mss));
        self.held = narrow(held.min(rest));
    }

    /// Returns how many there were.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Returns the bytes assumed to be with the peer.
    pub fn held(&self) -> u64 {
        self.held.into()
    }
}

fn narrow(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_ack_leaves_what_the_window_arithmetic_of_the_rfc_leaves() {
        // 10 segments in flight, the first and the fifth lost, 8 duplicate ACKs.
        let mut duplicates = Duplicates::default();
        for _ in 0..8 {
            duplicates.on_duplicate(1_000);
        }
        assert_eq!((duplicates.count(), duplicates.held()), (8, 8_000));
        // The retransmission of the first is acknowledged, up to the fifth: 4 segments, of which 3 had sent
        // a duplicate ACK. 6 are outstanding, 5 of them with the peer.
        duplicates.on_partial_ack(4_000, 6_000, 1_000);
        assert_eq!((duplicates.count(), duplicates.held()), (0, 5_000));
        // Lying duplicates never count more than what can be there.
        duplicates.on_partial_ack(1_000, 3_000, 1_000);
        assert_eq!(duplicates.held(), 2_000);
    }
}
