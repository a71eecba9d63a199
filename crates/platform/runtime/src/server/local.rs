//! The server as services of the same process reach it.

use std::sync::{Arc, PoisonError, RwLock};

use fault::{Fault, Reason};
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::door::Door;
use crate::status::status;

/// A handle on the door of the server that is, or will be, run in this process. Calls before and after that are refused as
/// those to any server that does not serve.
#[derive(Debug, Clone, Default)]
pub struct Local(Arc<RwLock<Option<Door>>>);

impl Local {
    /// Opens the door for as long as the guard lives. Then the door is let go of: it leads to services that may hold this
    /// handle, and neither would ever end.
    pub(super) fn open(&self, door: Door) -> Opened<'_> {
        self.put(Some(door));
        Opened(self)
    }

    fn put(&self, door: Option<Door>) {
        // replaced in one assignment, so it is whole even where a holder panicked
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), door);
        drop(before);
    }

    /// Makes a call.
    pub(crate) fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let door = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let Some(mut door) = door else {
                return status(Fault::new(Reason::NotReady, "the server does not serve")).into_http();
            };
            let response = door.call(request).await.unwrap_or_else(|never| match never {});
            response.map(Body::new)
        }
    }
}

/// Keeps a door open.
#[derive(Debug)]
pub(super) struct Opened<'a>(&'a Local);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.put(None);
    }
}
