//! What the connection waits for, and what happens when the wait is over.
//!
//! RFC 6298 §5 (retransmission), RFC 8985 §8 (one timer for timeout, probe and reordering), RFC 9293
//! §3.8.3 (retry limits), §3.8.4 (keepalive), §3.8.6.1 (zero window), §3.9.1.1 (user timeout), §3.4.2
//! (TIME-WAIT).

use crate::connection::recovery::RecoveryTimer;
use crate::connection::sender::Blocked;
use crate::connection::timers::{Timer, TimerTable};
use crate::connection::{Connection, State};
use crate::{TimeoutCause, Timestamp};

impl Connection {
    /// Returns the deadlines of all timers.
    fn timers(&self) -> TimerTable {
        let mut table = TimerTable::new();
        let config = &self.config;
        if let Some(handshake) = &self.handshake {
            table.set(Timer::Handshake, handshake.deadline);
            let limit = config.connect_timeout;
            table.set(Timer::Connect, limit.map(|limit| handshake.started + limit));
        }
        if self.state.is_synchronized() && self.state != State::TimeWait {
            let recovery = self.sender.recovery().timer();
            table.set(Timer::Retransmit, recovery.map(|(deadline, _)| deadline));
            table.set(Timer::Persist, self.sender.persist_deadline());
            if let Blocked::Pacing(deadline) = self.sender.blocked() {
                table.set(Timer::Pacing, Some(deadline));
            }
            let unanswered = self.sender.unanswered_since();
            let user = unanswered.zip(config.user_timeout);
            table.set(Timer::User, user.map(|(since, limit)| since + limit));
            table.set(Timer::Keepalive, self.keepalive_deadline());
            // What is outstanding is sent again and finds out the same.
            let confirmation = self.confirmation.filter(|_| unanswered.is_none());
            table.set(Timer::Confirmation, confirmation.map(|c| c.deadline));
            table.set(
                Timer::Idle,
                config.idle_timeout.map(|limit| self.last_heard + limit),
            );
        }
        if self.state.is_synchronized() {
            table.set(Timer::DelayedAck, self.receiver.ack_deadline());
        }
        table.set(Timer::Linger, self.ending().linger_deadline(self.state));
        table.set(
            Timer::TimeWait,
            self.ending().time_wait_deadline(self.state),
        );
        table
    }

    /// When the next keepalive probe is due: not while data or a probe of a closed window is out,
    /// which find out the same.
    fn keepalive_deadline(&self) -> Option<Timestamp> {
        let idle = self.config.keepalive?;
        if self.sender.unanswered_since().is_some() || self.sender.persist_deadline().is_some() {
            return None;
        }
        let interval = self
            .config
            .keepalive_interval
            .saturating_mul(self.keepalive_probes);
        Some(self.last_heard + idle + interval)
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers().earliest()
    }

    /// Acts on every timer that has expired at `now`; calling it early is harmless.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let table = self.timers();
        for timer in Timer::ALL {
            // An earlier one may have ended the connection.
            if table.is_expired(*timer, now) && self.state != State::Closed {
                self.on_timer(now, *timer);
            }
        }
    }

    fn on_timer(&mut self, now: Timestamp, timer: Timer) {
        let retries = self.config.data_retries;
        match timer {
            Timer::Handshake => self.on_handshake_timeout(),
            Timer::Connect => {
                if let Some(limit) = self.config.connect_timeout {
                    self.time_out(TimeoutCause::ConnectTimeout(limit), false);
                }
            }
            Timer::Retransmit => self.on_recovery_timer(now),
            Timer::Persist => {
                if self.sender.unanswered_probes() >= retries.max(1) {
                    self.time_out(TimeoutCause::DataRetries { retries }, false);
                } else {
                    self.sender.on_persist_timeout();
                }
            }
            Timer::User => {
                if let Some(limit) = self.config.user_timeout {
                    self.time_out(TimeoutCause::UserTimeout(limit), true);
                }
            }
            Timer::Keepalive => {
                if self.keepalive_probes >= self.config.keepalive_probes {
                    let probes = self.keepalive_probes;
                    self.time_out(TimeoutCause::Keepalive { probes }, true);
                } else {
                    self.outbox.keepalive_due = true;
                    self.keepalive_probes += 1;
                }
            }
            Timer::Confirmation => {
                self.outbox.keepalive_due = true;
                self.confirmation = self.confirmation.and_then(|c| c.after_probe(now));
            }
            Timer::Idle => {
                if let Some(limit) = self.config.idle_timeout {
                    self.time_out(TimeoutCause::IdleTimeout(limit), true);
                }
            }
            Timer::Linger => self.on_linger_timeout(),
            Timer::TimeWait => self.close_orderly(),
            // What they hold back comes out of the next `poll_transmit`.
            Timer::Pacing | Timer::DelayedAck => {}
        }
    }

    fn on_recovery_timer(&mut self, now: Timestamp) {
        let retries = self.config.data_retries;
        match self.sender.recovery().timer().map(|(_, timer)| timer) {
            Some(RecoveryTimer::Reordering) => self.sender.on_reordering_timeout(now),
            Some(RecoveryTimer::Probe) => self.sender.on_probe_timeout(now),
            // Only timeouts are retries that count.
            Some(RecoveryTimer::Timeout) if self.sender.is_retry_limit_reached(retries) => {
                self.time_out(TimeoutCause::DataRetries { retries }, false);
            }
            Some(RecoveryTimer::Timeout) => {
                self.sender.on_rto(now);
                self.doubt_path_mtu(now);
            }
            None => {}
        }
    }

    fn on_handshake_timeout(&mut self) {
        let Some(handshake) = &mut self.handshake else {
            return;
        };
        if handshake.retries >= self.config.syn_retries {
            let retries = handshake.retries;
            self.time_out(TimeoutCause::SynRetries { retries }, false);
        } else {
            handshake.retries += 1;
            handshake.is_due = true;
        }
    }
}
