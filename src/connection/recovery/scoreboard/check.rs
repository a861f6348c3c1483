//! Whether the scoreboard's numbers equal a recount of its records.

use super::{RecordState, Scoreboard};

impl Scoreboard {
    /// Checks what the type promises.
    pub fn check_invariants(&self) {
        self.books.sacked.check_invariants();
        assert!(self.snd_una <= self.snd_nxt && self.loss_frontier <= self.snd_nxt);
        let (mut pipe, mut lost_bytes, mut resent_bytes, mut unsacked) = (0, 0, 0, 0);
        let mut at = self.snd_una;
        self.books.places.check_invariants();
        self.books.lost.check_invariants();
        assert_eq!(self.books.places.len(), self.books.records.len(), "records");
        let mut lost = Vec::new();
        for (start, place) in self.books.places.iter() {
            let record = &self.books.records[place];
            if record.state == RecordState::Lost {
                lost.push((start, place));
            }
            assert!(
                start >= at && record.end > start,
                "records out of order at {start:?}"
            );
            let gap = self.books.sacked.covered_in(at..start);
            assert_eq!(
                gap,
                start.saturating_since(at),
                "hole in the scoreboard below {start:?}"
            );
            assert_eq!(
                self.books.sacked.covered_in(start..record.end),
                0,
                "SACKed record {start:?}"
            );
            at = record.end;
            let len = record.end.saturating_since(start);
            unsacked += len;
            pipe += len * record.state.copies();
            match record.state {
                RecordState::Lost => lost_bytes += len,
                RecordState::Retransmitted | RecordState::Doubled => resent_bytes += len,
                RecordState::Sent => {}
            }
            if matches!(record.state, RecordState::Sent | RecordState::Doubled) {
                assert!(
                    start >= self.loss_frontier,
                    "{start:?} is below the frontier"
                );
            }
        }
        let tail = self.books.sacked.covered_in(at..self.snd_nxt);
        assert_eq!(
            tail,
            self.snd_nxt.saturating_since(at),
            "hole at the end of the scoreboard"
        );
        assert_eq!(unsacked, self.unsacked(), "unsacked");
        assert_eq!(pipe, self.pipe, "pipe");
        assert_eq!(lost_bytes, self.books.lost_bytes, "lost bytes");
        assert_eq!(resent_bytes, self.books.resent_bytes, "resent bytes");
        assert!(self.books.lost.iter().eq(lost), "set of lost records");
        for known in self
            .books
            .recent
            .iter()
            .filter(|known| known.end > self.snd_una)
        {
            let known = known.start.max(self.snd_una)..known.end;
            let len = known.end.saturating_since(known.start);
            assert_eq!(self.books.sacked.covered_in(known), len, "recent block");
        }
    }
}
