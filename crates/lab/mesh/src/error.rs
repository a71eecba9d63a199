//! What can go wrong with a server that is not ours.

use std::time::Duration;

/// Why a server does not run, or does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not installed.
    #[error("no {program} found: {advice}")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// A program ended that should not have, or said no.
    #[error("{what}: {output}")]
    Failed {
        /// What was tried.
        what: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Nothing happened for too long.
    #[error("{what} within {limit:?}: {output}")]
    Late {
        /// What was waited for in vain.
        what: String,
        /// How long.
        limit: Duration,
        /// The end of what the program wrote.
        output: String,
    },
}

impl Error {
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::System { doing, cause }
    }
}
