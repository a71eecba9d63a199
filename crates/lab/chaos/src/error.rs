//! Why a scenario could not be played. A violation that it finds is not an error but part of its row.

use tonic::Status;

/// The reason why a scenario has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server is missing, does not start or does not stop.
    #[error(transparent)]
    Server(#[from] mesh::Error),
    /// This machine cannot play the scenario. Other scenarios are unaffected.
    #[error("skipped: {0}")]
    Skipped(String),
    /// A step that must work in spite of the fault failed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// A step that must work failed; `what` is a sentence.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// A call was refused that prepares the scenario and is not part of the load.
    pub(crate) fn call(doing: &str) -> impl FnOnce(Status) -> Self + '_ {
        move |status| Self::Failed(format!("{doing}: {status:?}"))
    }

    pub(crate) fn system(doing: &str) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Failed(format!("cannot {doing}: {cause}"))
    }
}
