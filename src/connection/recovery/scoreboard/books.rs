//! What the scoreboard keeps of each record, and only while there are records.

use std::ops::Range;

use slab::Slab;

use super::record::Record;
use crate::connection::Offset;
use crate::connection::offset_map::OffsetMap;
use crate::connection::on_demand::Blank;
use crate::connection::range_set::RangeSet;

/// An ACK has at most so many blocks (RFC 2018 §3).
const RECENT: usize = 4;

/// The records and what finds them.
#[derive(Debug, Clone)]
pub(super) struct Books {
    pub(super) records: Slab<Record>,
    /// Where the record is that begins at an offset.
    pub(super) places: OffsetMap<usize>,
    pub(super) sacked: RangeSet,
    /// Where the lost records are.
    pub(super) lost: OffsetMap<usize>,
    /// What the last ACKs' blocks have become, the newest first: the next ACK names most of them again.
    pub(super) recent: [Range<Offset>; RECENT],
    pub(super) lost_bytes: u64,
    /// Octets in state `Retransmitted` or `Doubled`.
    pub(super) resent_bytes: u64,
    /// `HighRxt` (RFC 6675 §2), as the offset after it.
    pub(super) high_rxt: Offset,
}

impl Books {
    const fn empty() -> Self {
        Self {
            records: Slab::new(),
            places: OffsetMap::new(),
            sacked: RangeSet::new(),
            lost: OffsetMap::new(),
            recent: [const { Offset::ZERO..Offset::ZERO }; RECENT],
            lost_bytes: 0,
            resent_bytes: 0,
            high_rxt: Offset::ZERO,
        }
    }
}

impl Blank for Books {
    fn new() -> Self {
        Self::empty()
    }

    fn blank() -> &'static Self {
        static BLANK: Books = Books::empty();
        &BLANK
    }
}
