//! The connection's timers: one enum, one table of deadlines.
//!
//! A deadline is a function of the connection's state, so the table is computed from it when asked for
//! and never has to be kept in step. Expiry is decided by comparing timestamps.

use crate::Timestamp;

/// What may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The SYN or SYN-ACK is sent again (RFC 6298 §5.7).
    Handshake,
    /// The handshake as a whole gives up (`connect_timeout`).
    Connect,
    /// Loss recovery: the oldest unacknowledged data is sent again (RFC 6298 §5), late data counts as lost, or
    /// a silent tail is probed (RFC 8985 §8).
    Retransmit,
    /// A closed window is probed (RFC 9293 §3.8.6.1).
    Persist,
    /// The pacer lets the next segment out.
    Pacing,
    /// A delayed ACK is due (RFC 9293 §3.8.6.3).
    DelayedAck,
    /// The user timeout (RFC 9293 §3.9.1).
    User,
    /// An idle peer is probed (RFC 9293 §3.8.4).
    Keepalive,
    /// A peer that was not heard since the handshake is asked whether it has our ACK.
    Confirmation,
    /// The idle timeout.
    Idle,
    /// A connection without application gives up.
    Linger,
    /// TIME-WAIT ends (RFC 9293 §3.4.2).
    TimeWait,
}

impl Timer {
    /// Every timer, in the order in which simultaneous expiries are handled.
    pub const ALL: &[Self] = &[
        Self::Handshake,
        Self::Connect,
        Self::Retransmit,
        Self::Persist,
        Self::Pacing,
        Self::DelayedAck,
        Self::User,
        Self::Keepalive,
        Self::Confirmation,
        Self::Idle,
        Self::Linger,
        Self::TimeWait,
    ];
}

/// A deadline for each [`Timer`], or none.
#[derive(Debug, Clone, Copy)]
pub struct TimerTable([Option<Timestamp>; Timer::ALL.len()]);

impl TimerTable {
    /// Makes a table in which nothing is waited for.
    pub const fn new() -> Self {
        Self([None; Timer::ALL.len()])
    }

    /// Sets or clears one deadline.
    pub fn set(&mut self, timer: Timer, deadline: Option<Timestamp>) {
        if let Some(slot) = self.0.get_mut(timer as usize) {
            *slot = deadline;
        }
    }

    /// Returns the earliest deadline.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.0.iter().flatten().min().copied()
    }

    /// Says whether `timer` has expired at `now`.
    pub fn is_expired(&self, timer: Timer, now: Timestamp) -> bool {
        self.0
            .get(timer as usize)
            .copied()
            .flatten()
            .is_some_and(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_has_a_slot_of_its_own() {
        for (index, timer) in Timer::ALL.iter().enumerate() {
            assert_eq!(*timer as usize, index);
            let mut table = TimerTable::new();
            table.set(*timer, Some(Timestamp::from_millis(5)));
            assert_eq!(table.earliest(), Some(Timestamp::from_millis(5)));
            let expired: Vec<_> = Timer::ALL
                .iter()
                .filter(|t| table.is_expired(**t, Timestamp::MAX))
                .collect();
            assert_eq!(expired, [timer]);
        }
    }

    #[test]
    fn expiry_includes_the_deadline_itself() {
        let mut table = TimerTable::new();
        let deadline = Timestamp::from_millis(10);
        table.set(Timer::Persist, Some(deadline));
        table.set(Timer::Idle, Some(Timestamp::from_millis(20)));
        assert_eq!(table.earliest(), Some(deadline));
        assert!(!table.is_expired(Timer::Persist, Timestamp::from_nanos(9_999_999)));
        assert!(table.is_expired(Timer::Persist, deadline));
    }
}
