//! Loss detection by what the peer acknowledged: duplicate ACKs (RFC 5681 §3.2, RFC 6582) and the SACK
//! scoreboard (RFC 6675).
//!
//! One pure function looks at the evidence and returns a verdict; marking, and what follows for the
//! window, is done by the caller. A detector by time would stand beside it and return the same verdicts.

use crate::connection::Offset;
use crate::connection::range_set::RangeSet;

/// RFC 6675 §2, RFC 5681 §3.2: how many later segments have to arrive before one counts as lost.
pub const DUP_THRESH: u32 = 3;

/// What is known after an ACK.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Oldest unacknowledged offset.
    pub snd_una: Offset,
    /// What the peer holds above it; empty without SACK.
    pub sacked: &'a RangeSet,
    /// Duplicate ACKs in a row.
    pub duplicates: u32,
    /// Effective send MSS in bytes.
    pub mss: u64,
}

/// What the evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing proved lost.
    Nothing,
    /// The segment at `snd_una`.
    First,
    /// Everything below this offset that is not SACKed; it is where a SACKed range begins.
    Below(Offset),
}

/// Says what is lost.
pub fn detect(evidence: &Evidence<'_>) -> Verdict {
    // RFC 6675 §5, step 2: IsLost is the stronger evidence, for it also tells how much is lost.
    match sack_frontier(evidence.sacked, evidence.mss) {
        Some(frontier) if frontier > evidence.snd_una => Verdict::Below(frontier),
        // RFC 6675 §5, step 1; RFC 5681 §3.2, step 2.
        _ if evidence.duplicates >= DUP_THRESH => Verdict::First,
        _ => Verdict::Nothing,
    }
}

/// Returns the offset below which `IsLost` (RFC 6675 §4) holds for everything not SACKed: above it lie
/// either `DUP_THRESH` discontiguous SACKed ranges or more than `(DUP_THRESH - 1) * mss` SACKed bytes.
///
/// What lies above an offset only shrinks as the offset rises, so one boundary says it all, and at most
/// `DUP_THRESH` ranges are looked at.
fn sack_frontier(sacked: &RangeSet, mss: u64) -> Option<Offset> {
    let enough = mss.saturating_mul(u64::from(DUP_THRESH) - 1);
    let mut bytes = 0_u64;
    for (ranges, range) in (1..=DUP_THRESH).zip(sacked.iter().rev()) {
        bytes = bytes.saturating_add(range.end.saturating_since(range.start));
        if ranges == DUP_THRESH || bytes > enough {
            return Some(range.start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_from_what_lies_above() {
        // Name, SACKed ranges, duplicate ACKs, verdict; the mss is 1,000 and snd_una 1,000.
        type Case = (&'static str, &'static [(u64, u64)], u32, Verdict);
        let cases: [Case; 10] = [
            ("nothing", &[], 0, Verdict::Nothing),
            ("two duplicates", &[], 2, Verdict::Nothing),
            ("three duplicates", &[], 3, Verdict::First),
            // RFC 6675 §4: "more than (DupThresh - 1) * SMSS bytes"
            ("two segments", &[(2_000, 4_000)], 2, Verdict::Nothing),
            (
                "two segments and a byte",
                &[(2_000, 4_001)],
                1,
                Verdict::Below(Offset::new(2_000)),
            ),
            // RFC 6675 §4: "DupThresh discontiguous SACKed sequences"
            (
                "two ranges",
                &[(2_000, 2_001), (3_000, 3_001)],
                2,
                Verdict::Nothing,
            ),
            (
                "three ranges",
                &[(2_000, 2_001), (3_000, 3_001), (4_000, 4_001)],
                1,
                Verdict::Below(Offset::new(2_000)),
            ),
            // The fourth from the top does not move the boundary down.
            (
                "four ranges",
                &[
                    (2_000, 2_001),
                    (3_000, 3_001),
                    (4_000, 4_001),
                    (5_000, 5_001),
                ],
                1,
                Verdict::Below(Offset::new(3_000)),
            ),
            // The upper range alone has enough: the hole between the two is lost too.
            (
                "a long upper range",
                &[(2_000, 3_000), (4_000, 7_000)],
                1,
                Verdict::Below(Offset::new(4_000)),
            ),
            // Three ACKs reported small segments: RFC 6675 §5, step 1.
            ("three small segments", &[(2_000, 2_300)], 3, Verdict::First),
        ];
        for (name, ranges, duplicates, expected) in cases {
            let mut sacked = RangeSet::new();
            for &(start, end) in ranges {
                sacked.insert(Offset::new(start)..Offset::new(end));
            }
            let snd_una = Offset::new(1_000);
            let evidence = Evidence {
                snd_una,
                sacked: &sacked,
                duplicates,
                mss: 1_000,
            };
            assert_eq!(detect(&evidence), expected, "{name}");
        }
    }
}
