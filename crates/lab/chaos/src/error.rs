//! Why a scenario could not be played. What it finds wrong is no error but a row.

use tonic::Status;

/// Why a scenario has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server is missing, does not start or does not stop.
    #[error(transparent)]
    Server(#[from] mesh::Error),
    /// This machine cannot do it; everything else is unaffected.
    #[error("skipped: {0}")]
    Skipped(String),
    /// What has to work even so did not.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Something that has to work did not, in a sentence.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// A call that is part of the setting, not of the load, was refused.
    pub(crate) fn call(doing: &str) -> impl FnOnce(Status) -> Self + '_ {
        move |status| Self::Failed(format!("{doing}: {status:?}"))
    }

    pub(crate) fn system(doing: &str) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Failed(format!("cannot {doing}: {cause}"))
    }
}
