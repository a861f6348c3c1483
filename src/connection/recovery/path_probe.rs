//! Losses that say nothing about congestion: a probe of the path's MTU, and what the system refused to send.
//!
//! What they carried is lost and sent again as any other data; but the controller, the delivery rate and the
//! counters do not hear of it, and no recovery begins (RFC 8899 §3, RFC 4821 §7.6.2). That holds for this one
//! transmission only: the loss of what is sent in its place is a loss as any other.

use std::ops::Range;

use super::pacer::Pacer;
use super::scoreboard::Piece;
use super::{Phase, Recovery};
use crate::Timestamp;
use crate::connection::Offset;
use crate::connection::path_mtu::ProbeOutcome;

/// One transmission whose loss is excused, until its data is acknowledged.
#[derive(Debug)]
pub struct Excused {
    range: Range<Offset>,
    transmission: u64,
    fate: Fate,
    /// Whether nobody waits to be told.
    is_reported: bool,
    /// The departure clock before it left.
    pacer: Pacer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Passed,
    Lost,
}

impl Excused {
    fn covers(&self, piece: &Piece) -> bool {
        piece.snapshot.transmission == self.transmission && self.range.contains(&piece.start)
    }

    /// `piece` was delivered.
    pub fn on_delivered(&mut self, piece: &Piece) {
        if self.fate == Fate::Unknown && !piece.was_retransmitted && self.covers(piece) {
            self.fate = Fate::Passed;
        }
    }

    /// Says whether `piece`, which is lost, is part of it.
    pub fn on_lost(&mut self, piece: &Piece) -> bool {
        let is_part = self.covers(piece);
        if is_part && self.fate == Fate::Unknown {
            self.fate = Fate::Lost;
        }
        is_part
    }
}

impl Recovery {
    /// Says whether a probe of the path's MTU may be sent: nothing is being repaired, and no other is out. Without
    /// SACK there are none, for then the loss of one segment cannot be told from that of others.
    pub fn may_probe_path(&self) -> bool {
        let is_quiet = matches!(self.phase, Phase::Open) && !self.scoreboard.is_disturbed();
        self.sack && is_quiet && self.excused.is_none()
    }

    /// New data went out as a probe of the path's MTU, one segment.
    pub fn on_path_probe_sent(&mut self, now: Timestamp, range: Range<Offset>) {
        let pacer = self.pacer.clone();
        self.on_sent(now, range.clone());
        self.excused = self.scoreboard.last_transmission().map(|transmission| {
            Box::new(Excused {
                range,
                transmission,
                fate: Fate::Unknown,
                is_reported: false,
                pacer,
            })
        });
    }

    /// The system refused what was sent last. It is lost, if it was new data; of a retransmission the timer
    /// will tell.
    pub fn on_refused(&mut self) {
        let Some(range) = self.scoreboard.last_run() else {
            return;
        };
        let Some(transmission) = self.scoreboard.last_transmission() else {
            return;
        };
        let probe = self
            .excused
            .take_if(|probe| probe.fate == Fate::Unknown && probe.transmission == transmission);
        if let Some(probe) = &probe {
            // It took no time on any wire.
            self.pacer = probe.pacer.clone();
        } else if !self.has_sent_new {
            return;
        }
        self.scoreboard
            .mark_transmission_lost(transmission, range.clone(), &mut |_| {});
        self.excused = Some(Box::new(Excused {
            range,
            transmission,
            fate: Fate::Lost,
            is_reported: true,
            pacer: Pacer::default(),
        }));
    }

    /// Takes what became of the probe, once it is known.
    pub fn take_path_probe_outcome(&mut self) -> Option<ProbeOutcome> {
        let is_over = self.snd_una() >= self.excused.as_ref()?.range.end;
        let excused = self.excused.as_mut()?;
        let outcome = match excused.fate {
            Fate::Passed => Some(ProbeOutcome::Passed),
            Fate::Lost => Some(ProbeOutcome::Lost),
            Fate::Unknown => is_over.then_some(ProbeOutcome::Inconclusive),
        };
        let news = outcome.filter(|_| !excused.is_reported);
        excused.is_reported |= outcome.is_some();
        if is_over || excused.fate == Fate::Passed {
            self.excused = None;
        }
        news
    }

    /// Says whether what was overtaken is known to be an excused loss.
    pub(super) fn is_hole_excused(&self) -> bool {
        self.excused
            .as_ref()
            .is_some_and(|excused| excused.fate == Fate::Lost && excused.range.end > self.snd_una())
    }
}
