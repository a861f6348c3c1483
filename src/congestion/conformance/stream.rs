//! Streams of events that bytes encode: possible ones, held against the rules after each, and impossible
//! ones, which must do no harm.

use std::time::Duration;

use super::path::{ArbitraryEvent, MAX_MSS, Path};
use super::{Rule, Suite, Violation};
use crate::Timestamp;
use crate::congestion::{ControllerParams, Sent};

/// Segments that any controller keeps at least.
const LARGEST_MINIMUM: u64 = 4;

const SEGMENT_SIZES: [u64; 6] = [1, 536, 1_000, 1_208, 65_487, MAX_MSS];
const INITIAL_SEGMENTS: [u64; 6] = [1, 2, 3, 10, 1_000, u64::MAX];
const ROUND_TRIPS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_millis(1),
    Duration::from_millis(100),
    Duration::from_secs(10),
    Duration::MAX,
];
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_micros(10),
    Duration::from_millis(10),
    Duration::from_secs(1),
    Duration::from_secs(400),
    Duration::from_nanos(u64::MAX / 2),
];

impl Suite {
    /// Drives one controller by a stream of events that `bytes` encode: for a fuzzer or a property test of
    /// one's own. Any bytes are a stream.
    ///
    /// The first byte says whether the events are possible ones, in the promised order and with numbers that
    /// agree with each other; then every rule is checked after each. If it is odd, they are not, and what is
    /// checked is [`Rule::MinimumWindow`], [`Rule::MinimumThreshold`] and [`Rule::NoGrowthWhileLimited`].
    ///
    /// # Errors
    /// Returns the first broken rule.
    pub fn run_stream(&self, bytes: &[u8]) -> Result<(), Violation> {
        let [kind, mss, window, is_paced, events @ ..] = bytes else {
            return Ok(());
        };
        let mss = choose(&SEGMENT_SIZES, *mss);
        let segments = choose(&INITIAL_SEGMENTS, *window);
        let mut params = ControllerParams::new(Timestamp::ZERO, mss, mss.saturating_mul(segments));
        params.is_paced = is_paced.is_multiple_of(2);
        let path = Path::new(self.control.make(&params), &params, self.min_segments);
        if kind.is_multiple_of(2) {
            self.possible(path, params.is_paced, events)
        } else {
            self.impossible(path, events)
        }
    }

    fn possible(&self, path: Path, is_paced: bool, events: &[u8]) -> Result<(), Violation> {
        let mut walk = Walk::new(self, path, is_paced);
        for (step, event) in events.chunks_exact(2).enumerate() {
            if let [event, amount] = *event {
                walk.step(event, amount)
                    .map_err(|violation| at(violation, step))?;
            }
        }
        Ok(())
    }

    fn impossible(&self, mut path: Path, events: &[u8]) -> Result<(), Violation> {
        for (step, event) in events.chunks_exact(4).enumerate() {
            let [kind, flags, a, b] = *event else {
                continue;
            };
            let before = path.cwnd();
            path.arbitrary(&ArbitraryEvent {
                kind,
                flags,
                a: magnitude(a),
                b: magnitude(b),
            });
            let after = path.cwnd();
            let is_limited_ack = kind % 16 < 6 && flags % 2 == 0;
            let holds = !is_limited_ack || after <= before;
            self.require(Rule::NoGrowthWhileLimited, holds, "", || {
                format!("cwnd grew from {before} to {after}")
            })
            .and_then(|()| self.require_minimum(&path))
            .map_err(|violation| at(violation, step))?;
        }
        Ok(())
    }

    fn require_minimum(&self, path: &Path) -> Result<(), Violation> {
        self.require_floor(path, "")?;
        let ssthresh = path.controller.ssthresh();
        let holds = ssthresh >= path.mss.saturating_mul(2);
        self.require(Rule::MinimumThreshold, holds, "", || {
            format!("ssthresh is {ssthresh}, mss {}", path.mss)
        })
    }
}

fn at(violation: Violation, step: usize) -> Violation {
    Violation {
        when: format!("by event {step}"),
        ..violation
    }
}

fn choose<T: Copy + Default, const N: usize>(values: &[T; N], byte: u8) -> T {
    let index = usize::from(byte) % N;
    values.get(index).copied().unwrap_or_default()
}

/// A number of any size; the largest and the smallest are among them.
fn magnitude(byte: u8) -> u64 {
    match byte {
        0..64 => 1 << byte,
        64..128 => u64::MAX >> (byte - 64),
        128..192 => u64::from(byte - 128) * 1_000,
        192.. => u64::from(byte - 192),
    }
}

/// What the core would know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// In recovery, which left a window of so much.
    Recovery(u64),
    /// After so many timeouts in a row.
    Loss(u32),
}

/// A connection that only does what one can do.
struct Walk<'a> {
    suite: &'a Suite,
    path: Path,
    is_paced: bool,
    in_flight: u64,
    phase: Phase,
    /// `cwnd` and `ssthresh` from before the latest reduction, while it is known what an undo has to restore.
    before: Option<(u64, u64)>,
}

impl<'a> Walk<'a> {
    const fn new(suite: &'a Suite, path: Path, is_paced: bool) -> Self {
        Self {
            suite,
            path,
            is_paced,
            in_flight: 0,
            phase: Phase::Open,
            before: None,
        }
    }

    fn window(&self) -> (u64, u64) {
        (self.path.cwnd(), self.path.controller.ssthresh())
    }

    fn step(&mut self, event: u8, amount: u8) -> Result<(), Violation> {
        let segments = u64::from(amount % 16 + 1);
        match event % 16 {
            0 => self.send(u64::MAX),
            1 => self.send(segments.saturating_mul(self.path.mss)),
            2 | 3 => self.ack(segments.saturating_mul(self.path.mss), event >= 128)?,
            4 => self.ack(u64::from(amount), false)?,
            5 => self.ack(u64::MAX, event >= 128)?,
            6 => self.round(),
            7 => self.enter(segments, false)?,
            8 => self.enter(0, true)?,
            9 => self.lose_more(amount)?,
            10 => self.exit()?,
            11 => self.time_out()?,
            12 => self.undo()?,
            13 => self.pause(amount)?,
            14 => {
                self.path.change_mss(choose(&SEGMENT_SIZES, amount));
                self.before = None;
                // What was enough of a window for the segments before need not be for these.
                if let Phase::Recovery(_) = self.phase {
                    self.phase = Phase::Recovery(0);
                }
            }
            _ => {
                self.path.rtt = choose(&ROUND_TRIPS, amount);
                self.path.wait(choose(&PAUSES, event >> 4));
            }
        }
        self.suite.require_minimum(&self.path)?;
        let rate = self.path.controller.pacing_rate();
        self.suite
            .require(Rule::PacingRate, rate != Some(0), "", || {
                "the pacing rate is zero".to_owned()
            })
    }

    fn send(&mut self, bytes: u64) {
        let room = self.path.cwnd().saturating_sub(self.in_flight);
        self.path.is_cwnd_limited = bytes >= room;
        let bytes = bytes.min(room);
        if bytes > 0 {
            self.in_flight = self.in_flight.saturating_add(bytes);
            let sent = Sent::new(self.path.now, bytes, self.in_flight);
            self.path.controller.on_sent(&sent);
        }
    }

    fn ack(&mut self, bytes: u64, ecn_echo: bool) -> Result<(), Violation> {
        let bytes = bytes.min(self.in_flight);
        if bytes == 0 {
            return Ok(());
        }
        let before = self.path.cwnd();
        self.in_flight -= bytes;
        self.path.acked(bytes, self.in_flight, ecn_echo);
        let after = self.path.cwnd();
        let holds = self.path.is_cwnd_limited || after <= before;
        self.suite
            .require(Rule::NoGrowthWhileLimited, holds, "", || {
                format!("cwnd grew from {before} to {after}")
            })?;
        if let Phase::Loss(_) = self.phase {
            // Progress; with everything acknowledged it is over.
            self.phase = if self.in_flight == 0 {
                Phase::Open
            } else {
                Phase::Loss(0)
            };
        }
        self.require_one_reduction()
    }

    fn round(&mut self) {
        if self.phase == Phase::Open {
            self.path.is_cwnd_limited = true;
            self.path.rounds(1);
            self.in_flight = 0;
        }
    }

    fn enter(&mut self, lost_segments: u64, by_ecn: bool) -> Result<(), Violation> {
        if self.phase != Phase::Open || self.in_flight == 0 {
            return Ok(());
        }
        let before = self.window();
        self.path.lose(u32::try_from(lost_segments).unwrap_or(1));
        let lost = lost_segments.saturating_mul(self.path.mss);
        let flight_size = self.in_flight;
        self.in_flight = flight_size.saturating_sub(lost).max(1);
        self.path.enter(flight_size, self.in_flight, by_ecn);
        self.before = Some(before);
        let after = self.path.cwnd();
        self.phase = Phase::Recovery(after);
        let minimum = self.path.mss.saturating_mul(self.suite.min_segments);
        let holds = after < before.0 || before.0 <= minimum;
        self.suite.require(Rule::LossReduces, holds, "", || {
            format!("cwnd was {}, and {after} after the reduction", before.0)
        })
    }

    fn lose_more(&mut self, amount: u8) -> Result<(), Violation> {
        if self.phase != Phase::Open {
            self.path.lose(u32::from(amount % 4));
        }
        self.require_one_reduction()
    }

    fn require_one_reduction(&self) -> Result<(), Violation> {
        let Phase::Recovery(reduced) = self.phase else {
            return Ok(());
        };
        let now = self.path.cwnd();
        self.suite
            .require(Rule::OneReductionPerEpisode, now >= reduced, "", || {
                format!("cwnd fell from {reduced} to {now} within the episode")
            })
    }

    fn exit(&mut self) -> Result<(), Violation> {
        if matches!(self.phase, Phase::Recovery(_)) {
            self.path.exit_recovery();
            self.in_flight = 0;
            self.require_one_reduction()?;
            self.phase = Phase::Open;
        }
        Ok(())
    }

    fn time_out(&mut self) -> Result<(), Violation> {
        if self.in_flight == 0 {
            return Ok(());
        }
        let (before, mss) = (self.window(), self.path.mss);
        let consecutive = match self.phase {
            Phase::Loss(timeouts) => timeouts.saturating_add(1),
            Phase::Open | Phase::Recovery(_) => 1,
        };
        self.path.time_out_with(self.in_flight, consecutive);
        self.phase = Phase::Loss(consecutive);
        if consecutive == 1 {
            self.before = Some(before);
        }
        let after = self.window();
        let holds = after.0 <= mss && (consecutive == 1 || after.1 == before.1);
        self.suite.require(Rule::TimeoutCollapses, holds, "", || {
            format!(
                "timeout {consecutive} in a row: cwnd and ssthresh were {before:?} and are {after:?}, mss {mss}"
            )
        })
    }

    fn undo(&mut self) -> Result<(), Violation> {
        let Some(before) = self.before.take() else {
            return Ok(());
        };
        let now = self.window();
        self.path.undo(matches!(self.phase, Phase::Loss(_)));
        self.phase = Phase::Open;
        let after = self.window();
        let restored = now.0.max(before.0);
        // What a timeout or an echo had left may be less than a controller otherwise keeps.
        let minimum = self.path.mss.saturating_mul(LARGEST_MINIMUM);
        let has_window = (restored..=restored.max(minimum)).contains(&after.0) || !self.is_paced;
        let has_threshold = now.0 >= before.0 || after.1 >= before.1 || !self.is_paced;
        let holds = has_window && has_threshold && after.0 >= now.0;
        self.suite.require(Rule::UndoRestores, holds, "", || {
            format!("cwnd and ssthresh were {before:?}, then {now:?}, and {after:?} after the undo")
        })
    }

    fn pause(&mut self, amount: u8) -> Result<(), Violation> {
        let before = self.path.cwnd();
        if amount.is_multiple_of(2) {
            self.path.leave_unused();
        } else if self.in_flight == 0 && self.phase == Phase::Open {
            self.path.idle();
        }
        self.before = None;
        if let Phase::Recovery(_) = self.phase {
            self.phase = Phase::Recovery(0);
        }
        let after = self.path.cwnd();
        self.suite
            .require(Rule::IdleNeverGrows, after <= before, "", || {
                format!("cwnd grew from {before} to {after}")
            })
    }
}
