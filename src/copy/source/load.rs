//! One reading that several sessions wait for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::ReadError;
use super::block::Block;

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
    /// Waits for the reading to end. `None` if it was given up: read yourself.
    pub(super) fn wait(&self) -> Option<Result<Arc<Block>, ReadError>> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self
            .done
            .wait_while(outcome, |outcome| matches!(outcome, Outcome::Pending))
            .unwrap_or_else(PoisonError::into_inner);
        match &*outcome {
            Outcome::Done(result) => Some(result.clone()),
            Outcome::Pending | Outcome::Abandoned => None,
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
