//! What loss recovery counts.

/// What was counted since the connection began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryCounters {
    /// Segments declared lost.
    pub segments_lost: u64,
    /// Segments sent again.
    pub segments_retransmitted: u64,
    /// Bytes sent again.
    pub bytes_retransmitted: u64,
    /// Expiries of the retransmission timer.
    pub rto_count: u64,
    /// Entries into fast recovery.
    pub fast_recovery_count: u64,
    /// SACK blocks refused because more ranges were reported than segments are outstanding.
    pub sack_blocks_refused: u64,
    /// Times that the peer proved to have discarded SACKed data.
    pub reneging_count: u64,
    /// ACKs by which data proved to have been overtaken on its way.
    pub reordering_count: u64,
    /// Tail loss probes sent.
    pub tlp_count: u64,
    /// Losses that a tail loss probe repaired.
    pub tlp_repair_count: u64,
    /// Retransmitted segments that the peer reported as duplicates.
    pub segments_spurious: u64,
    /// Reductions of the window that were taken back.
    pub undo_count: u64,
    /// Timeouts that F-RTO found spurious.
    pub frto_count: u64,
}
