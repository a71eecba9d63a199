//! What became of the database that comes back as it was earlier.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use checkup::service::Service;

/// The database that goes back in a run, if one does, and the hosts of its service.
#[derive(Debug, Default)]
pub(crate) struct Restore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The service whose database went back.
    gone_back: Option<Service>,
    /// Its hosts that have not looked since whether they lost their past.
    unasked: BTreeSet<&'static str>,
    /// The hosts that refuse to serve.
    refusing: BTreeSet<&'static str>,
}

impl Restore {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the copy of a database.
    pub(crate) fn copy(service: Service) -> String {
        format!("{service}-older")
    }

    /// The name under which a database is now.
    pub(crate) fn current(&self, name: &str) -> String {
        let went_back = self.lock().gone_back.filter(|service| service.name() == name);
        went_back.map_or_else(|| name.to_owned(), Self::copy)
    }

    /// From now on the database of the service on these hosts is the copy.
    pub(crate) fn put_back(&self, service: Service, hosts: &[&'static str]) {
        let mut state = self.lock();
        state.gone_back = Some(service);
        state.unasked.extend(hosts);
    }

    /// Records that a host does not serve. Returns whether it is the first time.
    pub(crate) fn refuses(&self, host: &'static str) -> bool {
        let mut state = self.lock();
        state.unasked.remove(host);
        state.refusing.insert(host)
    }

    /// Records that a host serves. Returns whether it refused to before.
    pub(crate) fn serves(&self, host: &'static str) -> bool {
        let mut state = self.lock();
        state.unasked.remove(host);
        state.refusing.remove(host)
    }

    /// Whether a host refuses to serve.
    pub(crate) fn is_refused(&self) -> bool {
        !self.lock().refusing.is_empty()
    }

    /// Whether a host may refuse to serve later.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().unasked.is_empty()
    }
}
