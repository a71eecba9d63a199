//! Calls to a service of the same process by its methods, without the door.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use domain::access::Caller;
use fault::{Fault, Reason};
use futures::FutureExt as _;
use tonic::{Request, Response, Status};

use super::methods::Method;
use super::record::Record;
use crate::deadline::Deadline;
use crate::scope;
use crate::status::status;
use crate::tasks::panic_text;
use crate::trace::TraceContext;

/// A method of a service of this process. `T` is the trait that is generated from the service's contract, so a call has
/// the same messages and the same refusals as one over the network, and the same record in logs and metrics. It passes
/// neither a connection, nor the codec, nor the door, and has no limit of calls under way.
pub struct InProcess<T: ?Sized> {
    service: Arc<T>,
    caller: Caller,
    method: Arc<Method>,
}

impl<T: ?Sized> Clone for InProcess<T> {
    fn clone(&self) -> Self {
        let Self { service, caller, method } = self;
        Self { service: Arc::clone(service), caller: caller.clone(), method: Arc::clone(method) }
    }
}

impl<T: ?Sized> fmt::Debug for InProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("caller", &self.caller).field("method", &self.method).finish_non_exhaustive()
    }
}

impl<T: ?Sized> InProcess<T> {
    /// The method `package.Service/Method` of a service, called as this caller.
    pub fn new(service: Arc<T>, caller: Caller, method: &str) -> Self {
        let method = Method {
            name: method.into(),
            streams: false,
            infrastructure: false,
            lists: false,
            places: None,
            meters: OnceLock::new(),
        };
        Self { service, caller, method: Arc::new(method) }
    }

    /// Calls the method and waits for its answer until the deadline. `call` passes the request to the method. A panic
    /// is the service's failure and not the caller's, as behind a door.
    ///
    /// # Errors
    /// The method's own error; INTERNAL if it panicked, DEADLINE_EXCEEDED if it did not answer in time.
    pub async fn call<'a, M, A, F>(
        &'a self,
        message: M,
        trace: &TraceContext,
        deadline: Deadline,
        call: impl FnOnce(&'a T, Request<M>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let trace = trace.child();
        let mut request = Request::new(message);
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(self.caller.clone());
        request.extensions_mut().insert(trace);
        let mut record = Record::begin(Arc::clone(&self.method));
        // Without languages: whoever passes this answer on says it in its own caller's.
        let scope = record.enter(trace, Some(&self.caller), None);
        let answered = AssertUnwindSafe(call(&self.service, request)).catch_unwind();
        let answer = match tokio::time::timeout_at(deadline.instant(), scope::within(scope, answered)).await {
            Ok(Ok(answer)) => answer.map(Response::into_inner),
            Ok(Err(panic)) => Err(status(Fault::internal(panic_text(panic.as_ref())))),
            Err(_) => Err(status(Fault::new(Reason::DeadlineExceeded, "the deadline has passed"))),
        };
        record.answered(answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok));
        answer
    }
}
