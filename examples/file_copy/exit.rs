//! What the exit code says.

use std::process::ExitCode;

use reliable_udp::copy::CopyError;

/// For `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    everything was copied and verified
  1    something was not: the others were
  2    wrong arguments, or a file that they name cannot be read
  3    no connection, or it was lost for good
  4    refused: secret, certificate, address, or too many connections
  130  interrupted; what can be continued is kept
Of several, the highest that is true.";

/// How a copy, or several, ended. The greater is the more important to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Exit {
    #[default]
    Complete,
    Incomplete,
    Usage,
    Connection,
    Refused,
    Interrupted,
}

impl Exit {
    /// Whose fault a session's end is.
    pub(crate) fn of(error: &CopyError) -> Self {
        match error {
            CopyError::Denied(_) => Self::Refused,
            CopyError::Root { .. }
            | CopyError::Source { .. }
            | CopyError::InvalidArgument { .. }
            | CopyError::Secret(_) => Self::Usage,
            _ => Self::Connection,
        }
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Incomplete => 1,
            Self::Usage => 2,
            Self::Connection => 3,
            Self::Refused => 4,
            // As the shell says of a process that SIGINT ended.
            Self::Interrupted => 130,
        }
    }

    /// The word of the JSON output.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Usage => "usage",
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a program ends, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) words: String,
}

impl Failure {
    #[expect(clippy::needless_pass_by_value, reason = "goes into `map_err`")]
    pub(crate) fn usage(words: impl ToString) -> Self {
        Self {
            exit: Exit::Usage,
            words: words.to_string(),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "goes into `map_err`")]
    pub(crate) fn connection(words: impl ToString) -> Self {
        Self {
            exit: Exit::Connection,
            words: words.to_string(),
        }
    }
}
