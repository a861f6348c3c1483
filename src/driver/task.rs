//! The drive loop: receives batches, feeds the endpoint, sends what comes out, sleeps until the earliest
//! deadline.
//!
//! It wakes up for a datagram, for the deadline, for room in a full transport, and when a handle made a
//! deadline earlier or left something to send; an idle connection causes no wake-up. The sleep is reset
//! only to fire earlier: a deadline that moved away costs at most one wake-up later on, and not one
//! reset of a timer per ACK.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::buffers::Buffers;
use super::core::Wakeups;
use super::shared::{Sending, Shared};
use super::transport::RecvMeta;
use crate::Timestamp;
use crate::endpoint::Arrival;

/// Receives in one turn before the task yields.
const RECEIVES_PER_TURN: usize = 4;
/// Failed receives in a row after which the next one waits, so that a broken socket costs no core.
const TOLERATED_ERRORS: u32 = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The task that drives one endpoint. Ends when no handle is left and every connection is over.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    buffers: Buffers,
    /// What the buffers held, on its way to the endpoint.
    batch: Vec<(Bytes, RecvMeta)>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What `sleep` is set to, until it fired.
    armed: Option<Timestamp>,
    errors_in_row: u32,
    pause: Option<Pin<Box<Sleep>>>,
    wakeups: Wakeups,
}

/// How a turn of receiving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    /// Nothing more has arrived.
    Waiting,
    /// There may be more.
    Unfinished,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            buffers: Buffers::default(),
            batch: Vec::new(),
            sleep: None,
            armed: None,
            errors_in_row: 0,
            pause: None,
            wakeups: Wakeups::default(),
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>) -> Receiving {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return Receiving::Waiting;
            }
            self.pause = None;
        }
        for _ in 0..RECEIVES_PER_TURN {
            match self.shared.transport().poll_recv(cx, self.buffers.free()) {
                Poll::Pending => return Receiving::Waiting,
                Poll::Ready(Ok(count)) => {
                    self.errors_in_row = 0;
                    self.deliver(count);
                }
                Poll::Ready(Err(error)) => {
                    self.shared.on_receive_error(&error);
                    self.errors_in_row = self.errors_in_row.saturating_add(1);
                    if let Some(excess) = self.errors_in_row.checked_sub(TOLERATED_ERRORS) {
                        let pause = FIRST_PAUSE.saturating_mul(1 << excess.min(10));
                        self.pause = Some(Box::pin(sleep(pause.min(LONGEST_PAUSE))));
                        return Receiving::Unfinished;
                    }
                }
            }
        }
        Receiving::Unfinished
    }

    /// Feeds the first `count` buffers to the endpoint, under one lock.
    fn deliver(&mut self, count: usize) {
        self.buffers.take(count, &mut self.batch);
        let batch = &self.batch;
        self.shared.enter(|core, now, _| {
            for (bytes, meta) in batch {
                core.endpoint.handle_arrival(
                    now,
                    &Arrival {
                        remote: meta.remote,
                        local_ip: meta.local_ip,
                        ecn: meta.ecn,
                        bytes,
                        stride: meta.stride,
                    },
                );
            }
        });
        self.batch.clear();
        self.buffers.refill();
    }

    /// Arms the sleep for the earliest deadline; false if that has passed already.
    fn sleep(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if let Some(sleep) = &mut self.sleep
                && self.armed.is_some()
                && sleep.as_mut().poll(cx).is_ready()
            {
                self.armed = None;
                return false;
            }
            let Some(deadline) = self.shared.fall_asleep(self.armed) else {
                return true;
            };
            self.arm(self.shared.clock().instant(deadline));
            self.armed = Some(deadline);
        }
    }

    fn arm(&mut self, at: Instant) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(sleep_until(at))),
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.wake_up(cx.waker(), &mut this.wakeups);
        loop {
            let receiving = this.receive(cx);
            this.shared.take_unreachable(&mut this.wakeups);
            this.wakeups.run();
            let sending = if this.shared.run_timers() {
                this.shared.poll_transmit(cx)
            } else {
                Sending::Done
            };
            if receiving == Receiving::Unfinished || sending == Sending::Unfinished {
                // Bounded work per turn; the others of this runtime have their turn now.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !this.shared.has_handles() && this.shared.is_finished() {
                return Poll::Ready(());
            }
            if this.sleep(cx) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also when the runtime shuts down below the sockets.
        self.shared.on_driver_gone();
    }
}
