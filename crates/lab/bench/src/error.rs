//! Why something could not be measured.

use tonic::Status;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense; nothing was started.
    #[error("{0}")]
    Usage(String),
    /// Something did not go as it must for the figures to mean anything.
    #[error("{0}")]
    Failed(String),
    /// A server or a service did not start, or did not stop.
    #[error(transparent)]
    Server(#[from] mesh::Error),
}

impl Error {
    /// In words.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// A call that has to succeed did not.
    pub(crate) fn call(method: &'static str) -> impl Fn(Status) -> Self {
        move |status| {
            let said = runtime::status::refusal_of(&status).map_or_else(
                || format!("{:?}: {}", status.code(), status.message()),
                |refusal| format!("{} ({})", refusal.reason.name(), status.message()),
            );
            Self::Failed(format!("{method} failed: {said}"))
        }
    }

    /// The system refused something.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |cause| Self::Failed(format!("cannot {doing}: {cause}"))
    }
}
