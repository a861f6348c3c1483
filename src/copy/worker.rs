//! Runs a state machine that blocks on the disk, one batch at a time, off the async threads.
//!
//! The state machine moves into a blocking task for each batch and comes back with its result. So
//! no thread is held while a session waits for its peer, and small files share one hop per batch.

use tokio::task::{JoinHandle, spawn_blocking};

use super::error::CopyError;

/// Owns `T`, or the task that does at the moment.
#[derive(Debug)]
pub(super) struct Worker<T, R> {
    state: State<T, R>,
}

#[derive(Debug)]
enum State<T, R> {
    Idle(Box<T>),
    Busy(JoinHandle<(Box<T>, R)>),
    /// The runtime dropped the task.
    Lost,
}

impl<T: Send + 'static, R: Send + 'static> Worker<T, R> {
    pub(super) fn new(value: T) -> Self {
        Self {
            state: State::Idle(Box::new(value)),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy(_))
    }

    /// Begins a batch. Does nothing unless idle.
    pub(super) fn start(&mut self, batch: impl FnOnce(&mut T) -> R + Send + 'static) {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            State::Idle(mut value) => State::Busy(spawn_blocking(move || {
                let result = batch(&mut value);
                (value, result)
            })),
            other => other,
        };
    }

    /// Waits for the batch that was started. Cancel safe: the batch goes on, and can be waited for
    /// again.
    pub(super) async fn finished(&mut self) -> Result<R, CopyError> {
        let State::Busy(task) = &mut self.state else {
            return Err(CopyError::RuntimeGone);
        };
        match task.await {
            Ok((value, result)) => {
                self.state = State::Idle(value);
                Ok(result)
            }
            Err(error) => {
                self.state = State::Lost;
                match error.try_into_panic() {
                    // The caller's event callback panicked: that is the caller's to see.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(CopyError::RuntimeGone),
                }
            }
        }
    }

    /// Waits until no batch runs, and gives the state machine back.
    pub(super) async fn into_inner(mut self) -> Result<T, CopyError> {
        if self.is_busy() {
            self.finished().await?;
        }
        match self.state {
            State::Idle(value) => Ok(*value),
            State::Busy(_) | State::Lost => Err(CopyError::RuntimeGone),
        }
    }
}
