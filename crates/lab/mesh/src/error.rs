//! The errors of servers that this crate starts.

use std::time::Duration;

/// Why a server does not run, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not installed.
    #[error("no {program} found: {advice}")]
    Missing {
        /// The program, with the version that is needed.
        program: &'static str,
        /// How to install it.
        advice: &'static str,
    },
    /// The operating system refused an operation.
    #[error("cannot {doing}")]
    System {
        /// The operation, as a verb phrase: `start nats-server`.
        doing: String,
        /// The operating system's error.
        #[source]
        cause: std::io::Error,
    },
    /// A program ended unexpectedly, or reported an error.
    #[error("{what}: {output}")]
    Failed {
        /// The operation that failed.
        what: String,
        /// The last lines of the program's output.
        output: String,
    },
    /// A program did not do something in time.
    #[error("{what} within {limit:?}: {output}")]
    Late {
        /// What did not happen: `nats-server did not answer`.
        what: String,
        /// The time it had.
        limit: Duration,
        /// The last lines of the program's output.
        output: String,
    },
}

impl Error {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::System { doing, cause }
    }
}
