//! The server of a process, for calls from services in the same process.

use std::sync::{Arc, PoisonError, RwLock};

use fault::{Fault, Reason};
use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

use super::door::Door;
use crate::status::status;

/// A handle on the door of the server in this process. Before and after the server runs, calls are refused with
/// NOT_READY.
#[derive(Debug, Clone, Default)]
pub struct Local(Arc<RwLock<Option<Door>>>);

impl Local {
    /// Opens the door for as long as the guard lives. The door is dropped with the guard, because it leads to services
    /// that may hold this handle, and such a cycle would never be freed.
    pub(super) fn open(&self, door: Door) -> Opened<'_> {
        self.put(Some(door));
        Opened(self)
    }

    fn put(&self, door: Option<Door>) {
        // The value is replaced in one assignment, so it is whole even if a holder of the lock panicked.
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), door);
        drop(before);
    }

    /// Sends a call through the door; refuses it with NOT_READY while no door is open.
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

/// Keeps a door open until it is dropped.
#[derive(Debug)]
pub(super) struct Opened<'a>(&'a Local);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.put(None);
    }
}
