//! One reading that several sessions wait for.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::ReadError;
use super::block::Block;

/// How often somebody who waits is asked whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A block that one session is reading, and others may wait for.
#[derive(Debug, Default)]
pub(super) struct Load {
    outcome: Mutex<Outcome>,
    done: Condvar,
}

#[derive(Debug, Default, Clone)]
enum Outcome {
    #[default]
    Pending,
    Done(Result<Arc<Block>, ReadError>),
    /// The reader was stopped and knows nothing.
    Abandoned,
}

impl Load {
    /// Waits for the reading to end. `None` if it was given up: read yourself. `may_go_on` is asked
    /// now and then; `false` ends it with `Interrupted`.
    pub(super) fn wait(
        &self,
        may_go_on: &dyn Fn() -> bool,
    ) -> Option<Result<Arc<Block>, ReadError>> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let is_pending = |outcome: &mut Outcome| matches!(outcome, Outcome::Pending);
            let waited = self.done.wait_timeout_while(outcome, ASK_EVERY, is_pending);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
            match &*outcome {
                Outcome::Done(result) => return Some(result.clone()),
                Outcome::Abandoned => return None,
                Outcome::Pending if may_go_on() => {}
                Outcome::Pending => {
                    return Some(Err(io::Error::from(io::ErrorKind::Interrupted).into()));
                }
            }
        }
    }

    /// Wakes all who wait, with what was read, or without.
    pub(super) fn end(&self, result: Option<Result<Arc<Block>, ReadError>>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        *outcome = result.map_or(Outcome::Abandoned, Outcome::Done);
        drop(outcome);
        self.done.notify_all();
    }
}
