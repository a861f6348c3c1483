//! What holds the connection back from sending, and for how long each did.
//!
//! Whenever there is nothing to send now, something is the reason; until the next such moment, all time
//! counts for it. It is what Linux's `tcp_info` tells as `tcpi_busy_time`, `tcpi_rwnd_limited` and
//! `tcpi_sndbuf_limited`, in full.

use std::time::Duration;

use crate::Timestamp;
use crate::connection::sender::{Blocked, Sender};
use crate::timestamp::Nanos;

/// What holds the connection back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The application has written no more, or so little that Nagle's algorithm waits for more.
    Application,
    /// The congestion window is full.
    Congestion,
    /// The peer's window is full or closed.
    PeerWindow,
    /// Everything in the send buffer is under way, but for a tail too small to go alone, and the application
    /// waits for room.
    SendBuffer,
    /// The pacer waits for the next departure.
    Pacing,
}

impl Limit {
    const COUNT: usize = 5;

    /// Says what holds `sender` back, which was just asked and had nothing to send.
    pub(super) fn of(sender: &Sender) -> Self {
        match sender.blocked() {
            Blocked::Congestion => Self::Congestion,
            Blocked::Pacing(_) => Self::Pacing,
            Blocked::Window => Self::PeerWindow,
            // Nagle's algorithm waits for more to be written, and so does the writer.
            Blocked::No | Blocked::Nagle if sender.is_writer_waiting() => Self::SendBuffer,
            Blocked::No | Blocked::Nagle => Self::Application,
        }
    }
}

/// The times, which add up to that since [`start`](Self::start).
#[derive(Debug)]
pub(super) struct LimitClock {
    /// What holds the connection back, and since when; `None` before the start and after the end.
    present: Option<(Limit, Timestamp)>,
    times: [Nanos; Limit::COUNT],
    latest: Timestamp,
}

impl LimitClock {
    pub(super) const fn new() -> Self {
        Self {
            present: None,
            times: [Nanos::ZERO; Limit::COUNT],
            latest: Timestamp::ZERO,
        }
    }

    /// The connection is established.
    pub(super) fn start(&mut self, now: Timestamp) {
        self.present = Some((Limit::Application, now));
    }

    /// The connection is held back by `limit` from now on.
    pub(super) fn set(&mut self, now: Timestamp, limit: Limit) {
        self.latest = now;
        if let Some((present, since)) = self.present
            && present != limit
        {
            self.add(present, now.saturating_since(since));
            self.present = Some((limit, now));
        }
    }

    /// Returns the latest time that it was told of.
    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }

    /// The connection is over.
    pub(super) fn stop(&mut self, now: Timestamp) {
        if let Some((present, since)) = self.present.take() {
            self.add(present, now.saturating_since(since));
        }
    }

    /// Returns for how long `limit` has held the connection back until now.
    pub(super) fn time(&self, now: Timestamp, limit: Limit) -> Duration {
        let past = self
            .times
            .get(limit as usize)
            .copied()
            .unwrap_or_default()
            .get();
        match self.present {
            Some((present, since)) if present == limit => past + now.saturating_since(since),
            _ => past,
        }
    }

    fn add(&mut self, limit: Limit, time: Duration) {
        if let Some(sum) = self.times.get_mut(limit as usize) {
            *sum = sum.get().saturating_add(time).into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_counts_once() {
        let at = Timestamp::from_millis;
        let all = [
            Limit::Application,
            Limit::Congestion,
            Limit::PeerWindow,
            Limit::SendBuffer,
            Limit::Pacing,
        ];
        let mut clock = LimitClock::new();
        clock.set(at(5), Limit::Pacing);
        clock.start(at(10));
        clock.set(at(13), Limit::Congestion);
        clock.set(at(15), Limit::Congestion);
        clock.set(at(20), Limit::Pacing);
        clock.set(at(21), Limit::Congestion);
        let times = |clock: &LimitClock, now| {
            all.map(|limit| u64::try_from(clock.time(now, limit).as_millis()).unwrap())
        };
        assert_eq!(times(&clock, at(30)), [3, 16, 0, 0, 1]);
        clock.stop(at(40));
        assert_eq!(times(&clock, at(99)), [3, 26, 0, 0, 1]);
        for (index, limit) in all.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }
}
