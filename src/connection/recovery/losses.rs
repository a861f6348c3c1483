//! Passes what the scoreboard finds lost on to the counters and the controller, segment by segment.

use super::delivery_rate::RateEstimator;
use super::path_probe::Excused;
use super::rack::Rack;
use super::scoreboard::{Piece, Scoreboard};
use super::{Recovery, RecoveryCounters};
use crate::Timestamp;
use crate::congestion::{CongestionController, Lost};

/// Splits [`Recovery`] into the scoreboard and what hears of its losses.
pub struct Losses<'a> {
    /// Where to mark them.
    pub scoreboard: &'a mut Scoreboard,
    /// The detector by time.
    pub rack: Option<&'a mut Rack>,
    /// Where to report them.
    pub report: LossReport<'a>,
}

/// Passes losses on to the counters and the controller.
pub struct LossReport<'a> {
    now: Timestamp,
    mss: u64,
    rate: &'a mut RateEstimator,
    controller: &'a mut dyn CongestionController,
    counters: &'a mut Option<Box<RecoveryCounters>>,
    excused: Option<&'a mut Excused>,
}

impl<'a> Losses<'a> {
    /// Makes the split.
    pub fn new(recovery: &'a mut Recovery, now: Timestamp) -> Self {
        Self {
            scoreboard: &mut recovery.scoreboard,
            rack: recovery.rack.as_mut(),
            report: LossReport {
                now,
                mss: recovery.mss,
                rate: &mut recovery.rate,
                controller: &mut *recovery.controller,
                counters: &mut recovery.counters,
                excused: recovery.excused.as_deref_mut(),
            },
        }
    }
}

impl LossReport<'_> {
    /// Tells the controller of each segment of `piece`, and says whether it had to: not of a probe of the
    /// path's MTU.
    pub fn on_lost(&mut self, piece: &Piece) -> bool {
        let excused = self.excused.as_deref_mut();
        if excused.is_some_and(|excused| excused.on_lost(piece)) {
            return false;
        }
        let mut left = piece.len();
        let mut starts_range = self.rate.starts_range(piece.start, piece.end);
        while left > 0 {
            let bytes = left.min(self.mss);
            left -= bytes;
            self.rate.on_lost(bytes);
            self.counters.get_or_insert_default().segments_lost += 1;
            self.controller.on_lost(&Lost {
                now: self.now,
                bytes,
                sent_at: piece.snapshot.sent_at,
                tx_in_flight: piece.snapshot.tx_in_flight,
                prior_delivered: piece.snapshot.delivered,
                prior_lost: piece.snapshot.lost,
                is_app_limited: piece.snapshot.is_app_limited,
                total_lost: self.rate.lost(),
                starts_range: std::mem::take(&mut starts_range),
            });
        }
        true
    }
}
