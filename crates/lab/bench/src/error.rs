//! The errors of measurements.

use tonic::Status;

/// The reason why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense. Nothing was started.
    #[error("{0}")]
    Usage(String),
    /// A step failed that must succeed for the figures to mean anything.
    #[error("{0}")]
    Failed(String),
    /// A server or a service did not start, or did not stop.
    #[error(transparent)]
    Server(#[from] mesh::Error),
}

impl Error {
    /// A step failed; `what` is a sentence.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// A call failed that must succeed.
    pub(crate) fn call(method: &'static str) -> impl Fn(Status) -> Self {
        move |status| {
            let said = runtime::status::refusal_of(&status).map_or_else(
                || format!("{:?}: {}", status.code(), status.message()),
                |refusal| format!("{} ({})", refusal.reason.name(), status.message()),
            );
            Self::Failed(format!("{method} failed: {said}"))
        }
    }

    /// The operating system refused an operation.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::Failed(format!("cannot {doing}: {cause}"))
    }
}
