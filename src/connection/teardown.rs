//! The end of a connection: FIN, RST, half-close, lingering, TIME-WAIT, abort.
//!
//! RFC 9293 §3.6 (closing), §3.10.4 (CLOSE), §3.10.5 (ABORT), §3.4.2 (TIME-WAIT); RFC 2525 §2.17 (RST
//! when unread data is dropped); RFC 1122 §4.2.2.13 (RST for data that nobody will read).

use tracing::debug;

use crate::config::DropPolicy;
use crate::connection::{Connection, Event, State, WriteError};
use crate::wire::{Integrity, SeqNumber};
use crate::{ConnectionError, TimeoutCause, Timestamp};

/// How far a connection has come towards its end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Why it ended, if not in order.
    error: Option<ConnectionError>,
    /// Whether everything we had to say was delivered, as far as can be known.
    is_delivered: bool,
    /// Until when it may go on without an application.
    released_until: Option<Timestamp>,
    /// Until when we wait for the acknowledgment of our FIN from a peer that has finished too and has
    /// acknowledged all data.
    last_ack_until: Option<Timestamp>,
    /// When TIME-WAIT ends.
    time_wait_until: Option<Timestamp>,
}

/// What there is of a connection that nothing ends.
static ENDLESS: Ending = Ending {
    error: None,
    is_delivered: false,
    released_until: None,
    last_ack_until: None,
    time_wait_until: None,
};

impl Ending {
    pub(super) fn linger_deadline(&self, state: State) -> Option<Timestamp> {
        match state {
            State::TimeWait | State::Closed => None,
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => [self.released_until, self.last_ack_until]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    pub(super) fn time_wait_deadline(&self, state: State) -> Option<Timestamp> {
        self.time_wait_until.filter(|_| state == State::TimeWait)
    }
}

/// All that has to be remembered of a connection in TIME-WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWaitRecord {
    /// Our virtual port.
    pub local_port: u16,
    /// The peer's virtual port.
    pub remote_port: u16,
    /// The number after our FIN.
    pub snd_nxt: SeqNumber,
    /// The number after the peer's FIN.
    pub rcv_nxt: SeqNumber,
    /// The peer's latest timestamp (RFC 6191 §2), if timestamps were agreed.
    pub ts_recent: Option<u32>,
    /// What is added to our millisecond clock in timestamps.
    pub timestamp_offset: u32,
    /// The integrity check that was agreed.
    pub integrity: Integrity,
    /// When it may be forgotten.
    pub expires: Timestamp,
    /// The window field of our last ACK.
    pub window_field: u16,
}

impl Connection {
    pub(super) fn ending(&self) -> &Ending {
        self.ending.as_deref().unwrap_or(&ENDLESS)
    }

    /// Queues the FIN behind what was written. Calling it again is harmless.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] if the connection had ended before.
    pub fn finish(&mut self, now: Timestamp) -> Result<(), WriteError> {
        if self.sender.is_finished() {
            return Ok(());
        }
        if self.state == State::Closed {
            // The peer had finished and had all our data when it went: nobody waits for our FIN.
            if self.ending().is_delivered {
                return Ok(());
            }
            return Err(WriteError::Closed(self.closing_error()));
        }
        self.sender.finish();
        self.state.on_finish();
        self.note_last_ack(now);
        Ok(())
    }

    /// Says whether the peer has acknowledged every byte and our FIN.
    ///
    /// Once the peer's FIN has arrived and all our data is acknowledged, a missing acknowledgment of our
    /// FIN counts as `true` too when the connection ends: the peer read to our end and is gone.
    ///
    /// # Errors
    ///
    /// The reason why that will never be known.
    pub fn finish_status(&self) -> Result<bool, ConnectionError> {
        if self.ending().is_delivered || self.sender.is_fin_acked() {
            return Ok(true);
        }
        match &self.ending().error {
            Some(error) => Err(error.clone()),
            None if self.state == State::Closed => Err(ConnectionError::Aborted),
            None => Ok(false),
        }
    }

    /// Ends the connection at once with RST; what was not delivered is lost (RFC 9293 §3.10.5).
    pub fn abort(&mut self, _now: Timestamp) {
        if self.state == State::Closed {
            return;
        }
        // RFC 9293 §3.10.5: in TIME-WAIT the peer has all it needs, and is not told.
        if self.state != State::TimeWait {
            self.reset_peer();
        }
        self.close_with(ConnectionError::Aborted);
    }

    /// The application dropped its handle. Delivery goes on in the background for at most `linger`,
    /// unless data was left unread or the [`DropPolicy`] asks for RST.
    pub fn release(&mut self, now: Timestamp) {
        if self.state == State::Closed {
            return;
        }
        if self.state == State::TimeWait {
            // Both sides have finished: nothing is cut, and the wait goes on.
            self.ending.get_or_insert_default().released_until = Some(now);
            self.receiver.discard();
            return;
        }
        let is_cut = self.config.drop_policy == DropPolicy::Reset && !self.sender.is_finished();
        // RFC 2525 §2.17: the peer must learn that its data was not read.
        let has_unread = self.receiver.readable_bytes() > 0;
        let is_unborn = matches!(self.state, State::SynSent | State::SynReceived);
        if is_cut || has_unread || is_unborn {
            self.abort(now);
            return;
        }
        self.ending.get_or_insert_default().released_until = Some(now + self.config.linger);
        // Cannot fail: the state is not CLOSED.
        let _ = self.finish(now);
    }

    /// Whether the application has dropped its handle.
    pub(super) fn is_released(&self) -> bool {
        self.ending().released_until.is_some()
    }

    /// Returns why the connection ended, `None` while it lives or if it ended in order.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.ending().error.as_ref()
    }

    /// Returns the error for calls on a closed connection.
    pub(super) fn closing_error(&self) -> ConnectionError {
        self.ending()
            .error
            .clone()
            .unwrap_or(ConnectionError::Aborted)
    }

    /// Says whether the connection is closed and has nothing more to send, so that it can be forgotten.
    pub fn is_drained(&self) -> bool {
        self.state == State::Closed && self.outbox.reset.is_none()
    }

    /// Returns what has to be remembered in TIME-WAIT, once nothing else is left to do.
    pub fn time_wait(&self) -> Option<TimeWaitRecord> {
        let expires = self.ending().time_wait_deadline(self.state)?;
        if self.receiver.pending_acks() > 0 || self.receiver.ack_deadline().is_some() {
            return None;
        }
        let integrity = self.negotiated?.integrity();
        Some(TimeWaitRecord {
            local_port: self.local_port,
            remote_port: self.remote_port,
            snd_nxt: self.sender.snd_nxt().narrow(self.iss),
            rcv_nxt: self.receiver.rcv_nxt().narrow(self.irs),
            ts_recent: self.ts_recent.map(|(tsval, _)| tsval),
            timestamp_offset: self.timestamp_offset,
            integrity,
            expires,
            window_field: self.outbox.last_window_field,
        })
    }

    /// Begins TIME-WAIT, or begins it anew (RFC 9293 §3.10.7.4, a retransmitted FIN).
    pub(super) fn restart_time_wait(&mut self, now: Timestamp) {
        self.ending.get_or_insert_default().time_wait_until = Some(now + self.config.time_wait);
        self.sender.clear();
    }

    /// Ends TIME-WAIT early: the peer's next connection needs its place (RFC 6191 §2).
    pub fn give_way(&mut self) {
        if self.state == State::TimeWait {
            self.close_orderly();
        }
    }

    /// Begins the bounded wait for the acknowledgment of our FIN if that is all that is missing.
    pub(super) fn note_last_ack(&mut self, now: Timestamp) {
        if self.is_only_fin_unacked() && self.ending().last_ack_until.is_none() {
            self.ending.get_or_insert_default().last_ack_until = Some(now + self.config.linger);
        }
    }

    /// Whether both sides have finished and only the acknowledgment of our FIN is missing.
    pub(super) fn is_only_fin_unacked(&self) -> bool {
        matches!(self.state, State::Closing | State::LastAck) && self.sender.is_all_data_acked()
    }

    pub(super) fn on_linger_timeout(&mut self) {
        if self.is_only_fin_unacked() {
            self.ending.get_or_insert_default().is_delivered = true;
            self.close_orderly();
        } else {
            self.time_out(TimeoutCause::Linger(self.config.linger), true);
        }
    }

    /// A timer or limit ended the connection. `tell_peer` sends RST, for ends that a living peer should
    /// learn of.
    pub(super) fn time_out(&mut self, cause: TimeoutCause, tell_peer: bool) {
        if self.is_only_fin_unacked() {
            self.ending.get_or_insert_default().is_delivered = true;
            self.close_orderly();
            return;
        }
        debug!(%cause, "timed out");
        if tell_peer {
            self.reset_peer();
        }
        self.close_with(ConnectionError::TimedOut(cause));
    }

    /// An acceptable RST arrived (RFC 9293 §3.10.7.4, second).
    pub(super) fn on_reset(&mut self) {
        match self.state {
            State::SynSent => self.close_with(ConnectionError::Refused),
            State::SynReceived => {
                let is_passive = self.handshake.as_ref().is_some_and(|h| h.is_passive);
                let error = if is_passive {
                    ConnectionError::Reset
                } else {
                    ConnectionError::Refused
                };
                self.close_with(error);
            }
            State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => {
                // The peer read to our end and closed before our FIN, if any, could reach it.
                let is_delivered =
                    self.state == State::CloseWait && self.sender.is_all_data_acked();
                self.ending.get_or_insert_default().is_delivered = is_delivered;
                self.close_with(ConnectionError::Reset);
            }
            State::Closing | State::LastAck => {
                if self.is_only_fin_unacked() {
                    self.ending.get_or_insert_default().is_delivered = true;
                    self.close_orderly();
                } else {
                    self.close_with(ConnectionError::Reset);
                }
            }
            // RFC 1337 §3 (F1): a RST does not end TIME-WAIT.
            State::TimeWait | State::Closed => {}
        }
    }

    /// Ends the connection in order.
    pub(super) fn close_orderly(&mut self) {
        self.enter_closed();
        self.events.push(Event::Finished);
    }

    /// Ends the connection for `error`; the first reason stays.
    pub(super) fn close_with(&mut self, error: ConnectionError) {
        self.ending
            .get_or_insert_default()
            .error
            .get_or_insert(error);
        self.enter_closed();
    }

    fn enter_closed(&mut self) {
        let is_delivered = self.sender.is_fin_acked();
        self.ending.get_or_insert_default().is_delivered |= is_delivered;
        self.state.on_closed();
        self.handshake = None;
        self.sender.clear();
        if self.is_released() {
            self.receiver.discard();
        }
        self.events.push(Event::Closed);
    }
}
