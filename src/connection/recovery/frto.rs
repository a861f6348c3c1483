//! F-RTO: whether a retransmission timeout was spurious, by what the next two ACKs acknowledge
//! (RFC 5682, the basic algorithm of §2.1 and with SACK that of §3.1).
//!
//! After the timeout only the first segment is sent again. If the ACK that this brings advances, two
//! segments of *new* data follow in place of more retransmissions. If then something is acknowledged that
//! was sent once only, the originals were not lost but late. It needs neither timestamps nor DSACK.
//!
//! Not used for a timeout within fast recovery, where ACKs of its retransmissions would be taken for those
//! of originals, and, by step 1, not before what an earlier attempt covered is acknowledged.

use crate::connection::Offset;
use crate::connection::on_demand::{Blank, OnDemand};

/// RFC 5682 §2.1, §3.1, step 2: segments of new data that stand in for retransmissions.
const NEW_SEGMENTS: u64 = 2;

/// Which ACK is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// No timeout is being examined.
    Idle,
    /// Step 2: the first that advances.
    First,
    /// Step 3: the next one.
    Second,
}

/// An ACK, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct FrtoAck {
    /// Oldest unacknowledged offset after it.
    pub snd_una: Offset,
    /// Next offset to send.
    pub snd_nxt: Offset,
    /// How far it advanced `snd_una`.
    pub acked: u64,
    /// Whether it is a duplicate ACK that reports nothing.
    pub is_duplicate: bool,
    /// Whether SACK was negotiated.
    pub with_sack: bool,
    /// The highest offset that it SACKs, if any.
    pub sack_end: Option<Offset>,
    /// Whether it delivered something that was sent once only.
    pub has_original: bool,
}

/// The detector.
///
/// Invariant: `allowance` is 0 unless the second ACK is waited for.
#[derive(Debug, Clone)]
pub struct Frto {
    is_enabled: bool,
    /// Takes memory from the first timeout on.
    examination: OnDemand<Examination>,
}

/// What is known of the latest timeout.
#[derive(Debug, Clone)]
struct Examination {
    step: Step,
    /// `RecoveryPoint`, `recover`: the highest offset sent when the first ACK came.
    recovery_point: Offset,
    /// The end of what step 1 has sent again.
    resent: Offset,
    /// Bytes of new data that may still be sent in step 2.
    allowance: u64,
}

impl Examination {
    const NONE: Self = Self {
        step: Step::Idle,
        recovery_point: Offset::ZERO,
        resent: Offset::ZERO,
        allowance: 0,
    };
}

impl Blank for Examination {
    fn new() -> Self {
        Self::NONE
    }

    fn blank() -> &'static Self {
        static BLANK: Examination = Examination::NONE;
        &BLANK
    }
}

impl Frto {
    /// Makes an idle one.
    pub const fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            examination: OnDemand::new(),
        }
    }

    /// Step 1: the timer expired.
    pub fn on_timeout(&mut self, snd_una: Offset, snd_nxt: Offset, was_in_recovery: bool) {
        self.stop();
        if !self.is_enabled {
            return;
        }
        // `recover` is a number that was sent, `recovery_point` the one after it.
        if was_in_recovery || self.examination.recovery_point > snd_una {
            self.examination.recovery_point = snd_nxt;
        } else {
            self.examination.step = Step::First;
        }
    }

    /// Steps 2 and 3. Returns whether the timeout was spurious.
    pub fn on_ack(&mut self, ack: &FrtoAck, mss: u64) -> bool {
        let is_beyond = |offset: Offset| offset > self.examination.recovery_point;
        match self.examination.step {
            Step::First if ack.acked > 0 => {
                self.examination.recovery_point = ack.snd_nxt;
                if ack.snd_una >= ack.snd_nxt || ack.snd_una < self.examination.resent {
                    // Step 2a
                    self.stop();
                } else {
                    // Step 2b
                    self.examination.step = Step::Second;
                    self.examination.allowance = mss.saturating_mul(NEW_SEGMENTS);
                }
            }
            // §2.1, step 2a. In §3.1, duplicate ACKs before the first that advances mean nothing.
            Step::First if ack.is_duplicate && !ack.with_sack => self.stop(),
            // Step 3a: what was sent last has arrived before what may be late.
            Step::Second if is_beyond(ack.snd_una) || ack.sack_end.is_some_and(is_beyond) => {
                self.stop();
            }
            Step::Second if ack.has_original => {
                // Step 3b. RFC 5682 §2.1: `recover` becomes SND.UNA, so that the next timeout is examined too.
                self.stop();
                self.examination.recovery_point = ack.snd_una;
                return true;
            }
            Step::Second if ack.acked > 0 || ack.is_duplicate => self.stop(),
            Step::Idle | Step::First | Step::Second => {}
        }
        false
    }

    /// What was lost was sent again up to `end`.
    pub fn on_retransmitted(&mut self, end: Offset) {
        if self.examination.step == Step::First {
            self.examination.resent = self.examination.resent.max(end);
        }
    }

    /// Ends the examination; the timeout counts as real.
    pub fn stop(&mut self) {
        if let Some(examination) = self.examination.existing() {
            examination.step = Step::Idle;
            examination.allowance = 0;
        }
    }

    /// New data was sent.
    pub fn on_sent(&mut self, bytes: u64) {
        if let Some(examination) = self.examination.existing() {
            examination.allowance = examination.allowance.saturating_sub(bytes);
        }
    }

    /// Says whether retransmissions wait for the second ACK.
    pub fn holds_retransmissions(&self) -> bool {
        self.examination.step == Step::Second
    }

    /// Returns how many bytes of new data are to be sent in step 2, whatever the window says.
    pub fn allowance(&self) -> u64 {
        self.examination.allowance
    }
}
