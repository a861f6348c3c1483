//! `RateTrace`: a bottleneck whose rate changes as a trace file says, by the rules of mahimahi's
//! `mm-link`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::timestamp::Timestamp;

/// Bytes that one opportunity delivers: an IP packet of 1,500 bytes, and the 4 bytes that a TUN
/// device puts before it.
const OPPORTUNITY: u64 = 1_504;
/// Bytes that a datagram takes beside its payload, so that traces mean what they mean for mahimahi:
/// the headers of IPv4 and UDP, and a TUN device's.
const OVERHEAD: u64 = 20 + 8 + 4;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// When a link may deliver: a trace in the format of mahimahi, as recorded from cellular networks or
/// made up.
///
/// Each line of such a file is a time in whole milliseconds from its beginning, at which 1,504 bytes
/// may leave; a line that is repeated delivers as many times more. Bytes are counted, not datagrams: one
/// opportunity carries several small datagrams or a part of a large one, each of which takes 32 bytes
/// beside its payload (the headers of IPv4, UDP and mahimahi's TUN device), so that one of 1,472 fills
/// an opportunity. What finds nothing to deliver is wasted. After the last line's time the trace
/// begins anew.
///
/// ```
/// use reliable_udp::sim::{LinkConfig, RateTrace};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One opportunity per 2 ms: 752,000 bytes per second.
/// let trace = RateTrace::parse_mahimahi("2\n")?;
/// let link = LinkConfig::builder().trace(trace).queue_datagrams(100).build()?;
/// # let _ = link;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RateTrace {
    /// Invariant: milliseconds, never decreasing; the last is greater than 0.
    opportunities: Arc<[u64]>,
}

/// Why a text is no trace; lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateTraceError {
    /// A line is not a whole number of milliseconds. mahimahi knows no comments and no empty lines.
    #[error("line {line}: {text:?} is not a whole number of milliseconds")]
    NotANumber {
        /// The line.
        line: usize,
        /// Its first characters.
        text: String,
    },
    /// A line's time is before that of the line above it.
    #[error("line {line}: {millis} ms is earlier than the line above it")]
    Decreasing {
        /// The line.
        line: usize,
        /// Its time.
        millis: u64,
    },
    /// There is no line.
    #[error("the trace is empty")]
    Empty,
    /// The last line's time is 0, so that the trace would repeat without end at one instant.
    #[error("line {line}: the trace ends at 0 ms; it has to last some time")]
    NoLength {
        /// The last line.
        line: usize,
    },
}

impl RateTrace {
    /// Reads a trace in the format of mahimahi.
    ///
    /// # Errors
    ///
    /// [`RateTraceError`] names the first line that is wrong, and how.
    pub fn parse_mahimahi(text: &str) -> Result<Self, RateTraceError> {
        let mut opportunities = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            // `u64::from_str` takes a sign, mahimahi does not.
            let number = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.then(|| text.parse::<u64>().ok()).flatten();
            let Some(millis) = number else {
                let text = text.chars().take(20).collect();
                return Err(RateTraceError::NotANumber { line, text });
            };
            if opportunities.last().is_some_and(|&last| millis < last) {
                return Err(RateTraceError::Decreasing { line, millis });
            }
            opportunities.push(millis);
        }
        match opportunities.last() {
            None => Err(RateTraceError::Empty),
            Some(0) => Err(RateTraceError::NoLength {
                line: opportunities.len(),
            }),
            Some(_) => Ok(Self {
                opportunities: opportunities.into(),
            }),
        }
    }

    /// Returns after what time the trace begins anew.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_millis())
    }

    /// Returns how many bytes may leave after `from` and until `until`, headers included.
    pub fn capacity(&self, from: Timestamp, until: Timestamp) -> u64 {
        let opportunities = self
            .number_after(until)
            .saturating_sub(self.number_after(from));
        opportunities.saturating_mul(OPPORTUNITY)
    }

    /// Returns the rate in bytes per second, headers included, averaged over the whole trace.
    pub fn mean_rate(&self) -> u64 {
        let bytes = u128::from(OPPORTUNITY) * self.opportunities.len() as u128;
        let rate = bytes * 1_000 / u128::from(self.period_millis().max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn period_millis(&self) -> u64 {
        self.opportunities.last().copied().unwrap_or(1)
    }

    /// Returns the number, counted from 0, of the first opportunity later than `now`: an opportunity
    /// is gone for what comes at its very instant.
    fn number_after(&self, now: Timestamp) -> u64 {
        let millis = now.as_millis();
        let period = self.period_millis().max(1);
        let in_cycle = (self.opportunities).partition_point(|&at| at <= millis % period) as u64;
        // The last opportunity of a cycle and one at 0 of the next are at the same instant.
        (millis / period).saturating_mul(self.opportunities.len() as u64) + in_cycle
    }

    /// Returns when an opportunity is.
    fn time_of(&self, number: u64) -> Timestamp {
        let count = (self.opportunities.len() as u64).max(1);
        let index = usize::try_from(number % count).unwrap_or(0);
        let in_cycle = self.opportunities.get(index).copied().unwrap_or(0);
        let start = (number / count).saturating_mul(self.period_millis());
        Timestamp::from_nanos(
            start
                .saturating_add(in_cycle)
                .saturating_mul(NANOS_PER_MILLI),
        )
    }
}

impl fmt::Debug for RateTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateTrace")
            .field("opportunities", &self.opportunities.len())
            .field("period", &self.period())
            .finish()
    }
}

/// How far a link has come in its trace.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The opportunity in use.
    number: u64,
    /// Bytes of it that are used up.
    used: u64,
}

impl Progress {
    /// Begins at the first opportunity after `busy_until`.
    pub(super) fn new(trace: &RateTrace, busy_until: Timestamp) -> Self {
        Self {
            number: trace.number_after(busy_until),
            used: 0,
        }
    }

    /// Takes what a datagram of `len` bytes that comes at `now` needs; returns when its last byte leaves.
    pub(super) fn depart(&mut self, trace: &RateTrace, now: Timestamp, len: usize) -> Timestamp {
        let first = trace.number_after(now);
        if first > self.number {
            *self = Self {
                number: first,
                used: 0,
            };
        }
        self.used += OVERHEAD + len as u64;
        // An opportunity that is used up to its last byte is still the one of that datagram.
        let whole = self.used.saturating_sub(1) / OPPORTUNITY;
        self.number = self.number.saturating_add(whole);
        self.used -= whole * OPPORTUNITY;
        trace.time_of(self.number)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Link, LinkConfig};
    use super::{RateTrace, RateTraceError};
    use crate::timestamp::Timestamp;

    fn trace(lines: &[u64]) -> RateTrace {
        let lines: Vec<String> = lines.iter().map(u64::to_string).collect();
        RateTrace::parse_mahimahi(&lines.join("\n")).unwrap()
    }

    fn link(lines: &[u64]) -> Link {
        Link::new(
            1,
            LinkConfig::builder().trace(trace(lines)).build().unwrap(),
        )
    }

    /// Sends a datagram at a millisecond; returns the one of its arrival.
    fn send(link: &mut Link, at: u64, len: usize) -> Option<u64> {
        let datagram = Bytes::from(vec![0; len]);
        let delivery = link
            .send(Timestamp::from_millis(at), datagram)
            .into_iter()
            .next();
        delivery.map(|delivery| delivery.at.as_millis())
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        let not_a_number = |line, text: &str| {
            let text = text.to_owned();
            Err(RateTraceError::NotANumber { line, text })
        };
        for (text, expected) in [
            ("", Err(RateTraceError::Empty)),
            ("0", Err(RateTraceError::NoLength { line: 1 })),
            ("0\n0\n", Err(RateTraceError::NoLength { line: 2 })),
            ("1\n\n2\n", not_a_number(2, "")),
            ("1\nx", not_a_number(2, "x")),
            ("+1", not_a_number(1, "+1")),
            ("1.5", not_a_number(1, "1.5")),
            (
                "18446744073709551616",
                not_a_number(1, "18446744073709551616"),
            ),
            (
                "1\n5\n4\n",
                Err(RateTraceError::Decreasing { line: 3, millis: 4 }),
            ),
            ("0\n5", Ok(trace(&[0, 5]))),
            ("0\r\n5\r\n", Ok(trace(&[0, 5]))),
        ] {
            assert_eq!(RateTrace::parse_mahimahi(text), expected, "{text:?}");
        }
        let error = RateTrace::parse_mahimahi("1\n0\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2: 0 ms is earlier than the line above it"
        );
    }

    #[test]
    fn an_opportunity_carries_one_large_datagram_or_several_small_ones() {
        // 1,472 + 32 = 1,504.
        let mut large = link(&[10, 20, 30]);
        let arrivals = [0, 0, 0].map(|at| send(&mut large, at, 1_472));
        assert_eq!(arrivals, [Some(10), Some(20), Some(30)]);
        // 4 * (344 + 32) = 1,504.
        let mut too_large = link(&[10, 20, 30]);
        assert_eq!(send(&mut too_large, 0, 1_473), Some(20));
        let mut small = link(&[10, 20, 30]);
        let arrivals = [0, 1, 2, 3, 4].map(|at| send(&mut small, at, 344));
        assert_eq!(arrivals, [Some(10), Some(10), Some(10), Some(10), Some(20)]);
    }

    #[test]
    fn a_datagram_may_need_the_rest_of_one_opportunity_and_a_part_of_the_next() {
        let mut link = link(&[10, 20, 30]);
        // They end at 1,032, 2,064, 3,096, 4,128 and 5,160; the opportunities at 1,504, 3,008, 4,512, 6,016.
        let arrivals = [0; 5].map(|at| send(&mut link, at, 1_000));
        assert_eq!(arrivals, [Some(10), Some(20), Some(30), Some(30), Some(40)]);
    }

    #[test]
    fn opportunities_are_wasted_while_nothing_waits() {
        let mut link = link(&[10, 20, 30, 40]);
        assert_eq!(send(&mut link, 25, 100), Some(30));
        // What is left of 30 ms serves who waited then, and nobody later.
        assert_eq!(send(&mut link, 29, 100), Some(30));
        assert_eq!(send(&mut link, 30, 100), Some(40));
    }

    #[test]
    fn equal_lines_are_as_many_opportunities() {
        let mut link = link(&[5, 5, 5, 9]);
        let arrivals = [0; 5].map(|at| send(&mut link, at, 1_472));
        assert_eq!(arrivals, [Some(5), Some(5), Some(5), Some(9), Some(14)]);
    }

    #[test]
    fn the_trace_repeats_from_its_last_line_on() {
        let mut link = link(&[0, 4]);
        // At 4 ms the first cycle ends and the second begins.
        let arrivals = [0, 0, 0].map(|at| send(&mut link, at, 1_472));
        assert_eq!(arrivals, [Some(4), Some(4), Some(8)]);
        assert_eq!(send(&mut link, 4_000_001, 1_472), Some(4_000_004));
    }

    #[test]
    fn the_capacity_is_that_of_the_opportunities_between() {
        let trace = trace(&[1, 2, 2, 10]);
        let at = Timestamp::from_millis;
        for (from, until, opportunities) in [
            (0, 0, 0),
            (0, 1, 1),
            (1, 2, 2),
            (0, 10, 4),
            (0, 20, 8),
            (2, 13, 4),
            (9, 3, 0),
        ] {
            let capacity = trace.capacity(at(from), at(until));
            assert_eq!(capacity, opportunities * 1_504, "{from} to {until}");
        }
        assert_eq!(trace.mean_rate(), 4 * 1_504 * 100);
        assert_eq!(trace.period().as_millis(), 10);
    }

    #[test]
    fn queue_limits_apply() {
        let config = LinkConfig::builder().trace(trace(&[10])).queue_datagrams(2);
        let mut link = Link::new(1, config.build().unwrap());
        let arrivals = [0, 0, 0].map(|at| send(&mut link, at, 1_472));
        assert_eq!(arrivals, [Some(10), Some(20), None]);
        assert_eq!(link.stats().dropped_queue, 1);
        assert_eq!(send(&mut link, 10, 1_472), Some(30));
    }

    #[test]
    fn a_new_trace_waits_for_what_the_old_one_has_queued() {
        let mut link = link(&[10]);
        assert_eq!(
            [0, 0].map(|at| send(&mut link, at, 1_472)),
            [Some(10), Some(20)]
        );
        link.set_config(LinkConfig::builder().trace(trace(&[3])).build().unwrap());
        assert_eq!(send(&mut link, 1, 1_472), Some(21));
        link.set_config(LinkConfig::builder().rate(1_000_000).build().unwrap());
        assert_eq!(send(&mut link, 2, 1_000), Some(22));
    }
}
