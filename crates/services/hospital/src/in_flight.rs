//! Which request ids are being worked on in this process: a repeat whose time runs out while the first call still runs is
//! told so. It prevents nothing; that a request is done once is the request record's work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::request::RequestKey;

/// Counts calls by request id; a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<RequestKey, usize>>>);

/// One call's part in the count; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    calls: InFlight,
    key: RequestKey,
    repeated: bool,
}

impl InFlight {
    /// A call begins.
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
