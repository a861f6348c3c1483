//! tokio's clock, paused or not, for the simulator's transports; and one timer on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::driver::Clock;
use crate::timestamp::Timestamp;

/// A clock whose origin is its first reading, so that it can be made outside of a runtime.
#[derive(Debug, Default)]
pub(super) struct LazyClock(OnceLock<Clock>);

impl LazyClock {
    /// Returns the present.
    pub(super) fn now(&self) -> Timestamp {
        self.started().now()
    }

    fn started(&self) -> &Clock {
        self.0.get_or_init(Clock::start)
    }
}

/// One timer, armed anew only when its deadline changes.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Waits until `at`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        clock: &LazyClock,
        at: Timestamp,
    ) -> Poll<()> {
        let deadline = clock.started().instant(at);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}
