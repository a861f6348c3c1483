//! What it means for the exit code that there is no secure connection.

use crate::exit::{Exit, Failure};
use crate::{secure, text};

impl From<secure::FailureKind> for Exit {
    fn from(kind: secure::FailureKind) -> Self {
        match kind {
            secure::FailureKind::Usage => Self::Usage,
            secure::FailureKind::Refused => Self::Refused,
            secure::FailureKind::Connection => Self::Connection,
        }
    }
}

impl From<secure::Failure> for Failure {
    fn from(failure: secure::Failure) -> Self {
        Self {
            exit: failure.kind.into(),
            words: text::chain(&failure),
        }
    }
}
