//! Knows which request ids this process is working on, so that a repetition that times out can be answered with
//! REQUEST_IN_PROGRESS. It prevents no double execution: the request record does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::request::RequestKey;

/// Counts the running calls per request id. Clones are cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<RequestKey, usize>>>);

/// A running call. Dropping it ends the call.
#[derive(Debug)]
pub(crate) struct Turn {
    calls: InFlight,
    key: RequestKey,
    repeated: bool,
}

impl InFlight {
    /// Counts a call as running until the returned value is dropped.
    pub(crate) fn enter(&self, key: &RequestKey) -> Turn {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = calls.entry(key.clone()).or_insert(0);
        let repeated = *running > 0;
        *running += 1;
        Turn { calls: self.clone(), key: key.clone(), repeated }
    }
}

impl Turn {
    /// Whether another call with this request id was running when this one began.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeated
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = calls.get_mut(&self.key) {
            *running -= 1;
            if *running == 0 {
                calls.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_a_call_that_meets_another_is_a_repeat() {
        let calls = InFlight::default();
        let key = RequestKey { caller: "admin:lee".into(), method: "CreateSlot", id: Uuid::from_u128(1) };
        let first = calls.enter(&key);
        let second = calls.enter(&key);
        assert!(!first.is_repeated() && second.is_repeated());
        assert!(!calls.enter(&RequestKey { method: "CloseSlot", ..key.clone() }).is_repeated());
        drop(first);
        assert!(calls.enter(&key).is_repeated());
        drop(second);
        assert!(!calls.enter(&key).is_repeated());
        assert!(calls.0.lock().unwrap().is_empty());
    }
}
