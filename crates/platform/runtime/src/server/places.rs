//! Places for calls, and the share that one caller may have of them, so that it cannot take the places of all others.
//!
//! A share bounds what is under way, not a rate: who waits for answers is never refused, however fast they come, and a
//! burst that harms nobody needs no allowance. The work behind the door is bounded with it, because each call has at
//! most one command in a writer's queue and reads one page at a time. Only Screening, which has no share, sends several
//! at once, for callers that have one each. A place ends with the head of the answer.
//!
//! Lists are counted apart and have a smaller share. They wait for the few connections that pages may take, and for a
//! second at most: with as many of one caller as it may have other calls, the lists of the others would give up.
//!
//! Callers are counted under a hash with a random key, so that nobody can choose a name that meets another's. A caller
//! without calls under way has no entry: there are never more entries than places.

use std::array;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::access::Caller;
use fault::{Fault, Reason};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError};

use super::ServerOptions;
use crate::metrics::CALLS_OVER_SHARE;

/// Parts of the table, each with a lock of its own that is held for one look.
const SHARDS: usize = 32;
/// How many times fewer lists than other calls a caller may have under way.
const FEWER_LISTS: usize = 8;
/// The retry delay of a caller that has its share under way: about as long as a slow call takes.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Places for calls, and how many calls of each caller are under way there.
#[derive(Debug)]
pub(super) struct Places {
    /// A permit for each place.
    all: Arc<Semaphore>,
    /// What takes a place, as refusals name it.
    what: Box<str>,
    limits: Limits,
    keys: RandomState,
    shards: [Mutex<Counts>; SHARDS],
}

/// Calls that are under way, by the hash of their caller.
type Counts = HashMap<u64, usize, BuildHasherDefault<Hashed>>;

/// The most calls that a caller may have under way, by its kind.
#[derive(Debug, Clone, Copy)]
struct Limits {
    customer: usize,
    /// An admin or an auditor.
    other: usize,
    /// All calls without a token together.
    anonymous: usize,
}

impl Places {
    /// So many places for what refusals call `what`.
    pub(super) fn new(what: impl Into<Box<str>>, count: usize, options: &ServerOptions) -> Self {
        let limits = Limits {
            customer: options.max_calls_per_customer.max(1),
            other: options.max_calls_per_caller.max(1),
            anonymous: count.div_ceil(2).max(1),
        };
        let (all, shards) = (Arc::new(Semaphore::new(count)), array::from_fn(|_| Mutex::default()));
        Self { all, what: what.into(), limits, keys: RandomState::new(), shards }
    }

    /// Takes a place, whoever calls.
    ///
    /// # Errors
    /// OVERLOADED if all places are taken.
    pub(super) fn take(&self) -> Result<SemaphorePermit<'_>, Fault> {
        self.all.try_acquire().map_err(overloaded)
    }

    /// The same for longer than a borrow.
    ///
    /// # Errors
    /// OVERLOADED if all places are taken.
    pub(super) fn take_owned(&self) -> Result<OwnedSemaphorePermit, Fault> {
        Arc::clone(&self.all).try_acquire_owned().map_err(overloaded)
    }

    /// Counts a call of this caller until the returned share is dropped. `None` for a service, which has no limit.
    /// `lists` tells whether the call reads a page.
    ///
    /// # Errors
    /// RATE_LIMITED if the caller has its share under way.
    pub(super) fn share<P: Deref<Target = Self>>(
        this: P,
        caller: &Caller,
        lists: bool,
    ) -> Result<Option<Share<P>>, Fault> {
        let (role, subject, limit) = match caller {
            // It calls for many customers, whose shares were counted where they called.
            Caller::Service(_) => return Ok(None),
            Caller::Customer(customer) => ("customer", customer.segment(), this.limits.customer),
            Caller::Admin { subject, .. } => ("admin", subject.as_str(), this.limits.other),
            Caller::Auditor(subject) => ("auditor", subject.as_str(), this.limits.other),
            // Nothing tells them apart.
            Caller::Anonymous => ("anonymous", "", this.limits.anonymous),
        };
        let limit = if lists { limit.div_ceil(FEWER_LISTS) } else { limit };
        let key = this.keys.hash_one((role, subject, lists));
        let mut counts = this.counts(key);
        let calls = counts.entry(key).or_default();
        if *calls >= limit {
            drop(counts);
            return Err(this.refusal(role, caller, lists, limit));
        }
        *calls += 1;
        drop(counts);
        Ok(Some(Share { places: this, key }))
    }

    fn refusal(&self, role: &'static str, caller: &Caller, lists: bool, limit: usize) -> Fault {
        counter!(CALLS_OVER_SHARE, "role" => role).increment(1);
        let what = if lists { format!("lists among {}", self.what) } else { self.what.to_string() };
        let message = format!("{caller} has {limit} {what} under way, which is its share; wait for one of them to end");
        Fault::new(Reason::RateLimited, message)
            .with("caller", caller)
            .with("limit", limit)
            .exceeding(caller, format!("{what} under way: at most {limit}"))
            .retry_after(RETRY_DELAY)
    }

    fn counts(&self, key: u64) -> MutexGuard<'_, Counts> {
        // The lower bits choose the place in a table, so these choose the table.
        self.shards[(key >> 32) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overloaded(_: TryAcquireError) -> Fault {
    Fault::new(Reason::Overloaded, "the service has too many calls in flight")
}

/// One call of a caller's share, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<P: Deref<Target = Places>> {
    places: P,
    key: u64,
}

impl<P: Deref<Target = Places>> Drop for Share<P> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut calls) = self.places.counts(self.key).entry(self.key) {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
    }
}

/// Passes on what was hashed already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use domain::access::Hospitals;
    use domain::ids::CustomerId;

    use super::*;

    fn places() -> Places {
        let options = ServerOptions { max_calls_per_customer: 2, max_calls_per_caller: 3, ..ServerOptions::default() };
        Places::new("calls", 8, &options)
    }

    fn customer(id: &str) -> Caller {
        Caller::Customer(CustomerId::from_segment(id).unwrap())
    }

    /// Takes all that a caller may have.
    fn all_of<'a>(places: &'a Places, caller: &Caller) -> Vec<Share<&'a Places>> {
        let mut taken = Vec::new();
        while let Ok(share) = Places::share(places, caller, false) {
            taken.push(share.expect("a caller with a share"));
            assert!(taken.len() < 100, "{caller} has no limit");
        }
        taken
    }

    #[test]
    fn each_caller_has_its_own_and_gets_back_what_ended() {
        let places = places();
        let admin = |subject: &str| Caller::Admin { subject: subject.to_owned(), hospitals: Hospitals::All };
        // One name in several roles is several callers.
        let callers = [
            (customer("kim"), 2),
            (customer("lee"), 2),
            (admin("kim"), 3),
            (Caller::Auditor("kim".to_owned()), 3),
            (Caller::Anonymous, 4),
        ];
        let mut held = Vec::new();
        for (caller, limit) in &callers {
            let taken = all_of(&places, caller);
            assert_eq!(taken.len(), *limit, "{caller}");
            held.push(taken);
        }
        for ((caller, _), taken) in callers.iter().zip(&mut held) {
            assert!(Places::share(&places, caller, false).is_err());
            taken.pop();
            let again = Places::share(&places, caller, false).unwrap();
            assert!(Places::share(&places, caller, false).is_err());
            taken.extend(again);
        }
        let service = Caller::Service("screening".to_owned());
        for _ in 0..1_000 {
            assert!(Places::share(&places, &service, false).unwrap().is_none());
        }
    }

    #[test]
    fn lists_are_counted_apart_and_fewer_of_them_may_be_under_way() {
        let options = ServerOptions { max_calls_per_customer: 17, ..ServerOptions::default() };
        let places = Places::new("calls", 8, &options);
        let kim = customer("kim");
        let held: Vec<_> = std::iter::from_fn(|| Places::share(&places, &kim, true).ok()).take(10).collect();
        assert_eq!(held.len(), 3, "an eighth, rounded up");
        assert_eq!(all_of(&places, &kim).len(), 17);
        let refusal = Places::share(&places, &kim, true).unwrap_err();
        assert_eq!(refusal.quota().unwrap().description, "lists among calls under way: at most 3");
    }

    #[test]
    fn who_has_no_call_under_way_takes_no_room() {
        let places = places();
        let count = || places.shards.iter().map(|shard| shard.lock().unwrap().len()).sum::<usize>();
        for round in 0..10_000 {
            let caller = customer(&format!("c{round}"));
            let held = all_of(&places, &caller);
            assert_eq!(count(), 1);
            drop(held);
            assert_eq!(count(), 0);
        }
    }

    #[test]
    fn the_refusal_names_the_caller_and_the_limit() {
        let places = places();
        let kim = customer("kim");
        let _held = all_of(&places, &kim);
        let refusal = Places::share(&places, &kim, false).unwrap_err();
        assert_eq!((refusal.reason(), refusal.retry_delay()), (Reason::RateLimited, Some(RETRY_DELAY)));
        assert_eq!((&*refusal.metadata()["caller"], &*refusal.metadata()["limit"]), ("customer:kim", "2"));
        let quota = refusal.quota().unwrap();
        assert_eq!(
            (quota.subject.as_str(), quota.description.as_str()),
            ("customer:kim", "calls under way: at most 2")
        );
    }

    #[test]
    fn callers_at_once_are_counted_right() {
        let options = ServerOptions { max_calls_per_customer: 4, ..ServerOptions::default() };
        let places = Arc::new(Places::new("calls", 8, &options));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let places = Arc::clone(&places);
                std::thread::spawn(move || {
                    // Two threads for each customer, so that together they stay within the limit.
                    let caller = customer(&format!("c{}", thread / 2));
                    for _ in 0..20_000 {
                        let two = [
                            Places::share(&*places, &caller, false).unwrap(),
                            Places::share(&*places, &caller, false).unwrap(),
                        ];
                        drop(two);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(places.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
