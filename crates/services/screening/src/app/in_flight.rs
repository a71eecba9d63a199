//! The calls with a request_id that run in this process. The first one works, its repetitions wait for its outcome.
//!
//! This makes concurrent repetitions cheap and their answers equal. It does not make them safe: the request record
//! does, and it holds across processes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::request::{Fingerprint, Request, RequestKey};
use domain::screening::Screening;
use fault::{Fault, Reason};
use tokio::sync::watch;

pub(crate) type Outcome = Result<Screening, Fault>;

type Running = Arc<Mutex<HashMap<RequestKey, (Fingerprint, watch::Receiver<Option<Outcome>>)>>>;

/// The running calls. Clones share them.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Running);

/// The duty to report the outcome of a call. If it is dropped without one, the waiting calls get NOT_READY.
#[derive(Debug)]
pub(crate) struct Lead {
    running: Running,
    key: Option<RequestKey>,
    found: watch::Sender<Option<Outcome>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    key: RequestKey,
    found: watch::Receiver<Option<Outcome>>,
}

/// Whether a call is the first with its request_id.
#[derive(Debug)]
pub(crate) enum Entered {
    /// No other call with this request_id is running.
    First(Lead, Waiting),
    /// The first call is still running.
    Again(Waiting),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InFlight {
    /// Registers a call. A call whose caller chose no request_id is always the first.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED if a call with the same request_id and other content is running.
    pub(crate) fn enter(&self, request: &Request) -> Result<Entered, Fault> {
        let key = request.key.clone();
        let mut running = locked(&self.0);
        if let Some((fingerprint, found)) = running.get(&key) {
            request.matches(fingerprint)?;
            return Ok(Entered::Again(Waiting { key, found: found.clone() }));
        }
        let (sender, found) = watch::channel(None);
        let listed = request.chosen.then(|| key.clone());
        if request.chosen {
            running.insert(key.clone(), (request.fingerprint, found.clone()));
        }
        let lead = Lead { running: Arc::clone(&self.0), key: listed, found: sender };
        Ok(Entered::First(lead, Waiting { key, found }))
    }
}

impl Lead {
    /// Reports the outcome to everybody who waits. A repetition after this begins a new call.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.leave();
        self.found.send_replace(Some(outcome));
    }

    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            locked(&self.running).remove(&key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Waiting {
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.found.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(in_progress(&self.key))),
            Err(_) => Err(Fault::new(Reason::NotReady, "the call was cut off; send the same request_id again")),
        }
    }
}

/// The answer to a repetition whose deadline passes before the first call has an outcome.
pub(crate) fn in_progress(key: &RequestKey) -> Fault {
    let message = "the first call with this request_id is still under way; send the same request again";
    Fault::new(Reason::RequestInProgress, message).with("requestId", key.id)
}

#[cfg(test)]
mod tests {
    use domain::access::Caller;
    use uuid::Uuid;

    use super::*;

    fn request(id: Option<u128>, content: &str) -> Request {
        let message = contract::screening::v1::GetScreeningRequest { name: content.into() };
        let id = id.map(Uuid::from_u128);
        Request::new(&Caller::Anonymous, "CreateScreening", id, Uuid::from_u128(7), &message)
    }

    #[tokio::test]
    async fn a_duplicate_hears_what_the_first_finds_out() {
        let calls = InFlight::default();
        let Ok(Entered::First(lead, first)) = calls.enter(&request(Some(1), "a")) else { panic!() };
        let Ok(Entered::Again(again)) = calls.enter(&request(Some(1), "a")) else { panic!() };
        assert_eq!(calls.enter(&request(Some(1), "b")).unwrap_err().reason(), Reason::RequestIdReused);
        lead.finish(Err(Fault::new(Reason::SlotFull, "full")));
        assert_eq!(first.outcome().await.unwrap_err().reason(), Reason::SlotFull);
        assert_eq!(again.outcome().await.unwrap_err().reason(), Reason::SlotFull);
        assert!(matches!(calls.enter(&request(Some(1), "b")), Ok(Entered::First(..))));
    }

    #[tokio::test]
    async fn a_first_that_vanishes_holds_nobody_up() {
        let calls = InFlight::default();
        let Ok(Entered::First(lead, first)) = calls.enter(&request(Some(1), "a")) else { panic!() };
        drop(lead);
        assert_eq!(first.outcome().await.unwrap_err().reason(), Reason::NotReady);
        assert!(locked(&calls.0).is_empty());
    }

    #[test]
    fn without_a_request_id_every_call_is_the_first() {
        let calls = InFlight::default();
        let one = calls.enter(&request(None, "a"));
        let other = calls.enter(&request(None, "a"));
        assert!(matches!((one, other), (Ok(Entered::First(..)), Ok(Entered::First(..)))));
    }
}
