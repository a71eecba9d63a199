//! Plays one row: makes calls, times them, records the answers, and stops at the first wrong one.

use std::time::{Duration, Instant};

use fault::Reason;
use runtime::backoff::Backoff;
use runtime::status::reason_of;
use tonic::{Code, Response, Status};

use crate::party::describe;

/// How long the effect of an event may take to show. Events take milliseconds. The rest is for a busy machine, and for
/// facts that are reported periodically.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// The first and the longest pause between two reads.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// One call, or one wait for an answer.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) answer: String,
    pub(super) took: Duration,
    /// Whether the call was repeated until the expected answer arrived.
    pub(super) waited: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// An answer is not what the contract requires.
    Wrong(String),
    /// The row cannot be played.
    Skipped(String),
}

/// The calls of one row so far.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) calls: Vec<Call>,
}

impl Stage {
    fn note(&mut self, method: &'static str, answer: String, since: Instant, waited: bool) {
        self.calls.push(Call { method, answer, took: since.elapsed(), waited });
    }

    /// Makes a call that has to succeed. `show` extracts from the answer what the table shows.
    pub(super) async fn call<T>(
        &mut self,
        method: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T, Stop> {
        let since = Instant::now();
        match call.await {
            Ok(response) => {
                let answer = response.into_inner();
                self.note(method, show(&answer), since, false);
                Ok(answer)
            }
            Err(status) => {
                self.note(method, describe(&status), since, false);
                Err(Stop::Wrong("it was to be answered OK".to_owned()))
            }
        }
    }

    /// Makes a call that has to be refused for this reason.
    pub(super) async fn refused<T>(
        &mut self,
        method: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
        reason: Reason,
    ) -> Result<(), Stop> {
        let since = Instant::now();
        match call.await {
            Ok(_) => {
                self.note(method, "OK".to_owned(), since, false);
                Err(Stop::Wrong(format!("it was to be refused with {}", reason.name())))
            }
            Err(status) => {
                self.note(method, describe(&status), since, false);
                let as_expected = reason_of(&status) == Some(reason);
                if as_expected {
                    Ok(())
                } else {
                    Err(Stop::Wrong(format!("it was to be refused with {}", reason.name())))
                }
            }
        }
    }

    /// Repeats a read until `show` finds the expected content in its answer. NOT_FOUND, PERMISSION_DENIED and
    /// UNAVAILABLE are no failures meanwhile: a view that does not exist yet may not be readable either.
    pub(super) async fn until<T>(
        &mut self,
        method: &'static str,
        read: impl AsyncFn() -> Result<Response<T>, Status>,
        show: impl Fn(&T) -> Option<String>,
    ) -> Result<T, Stop> {
        let since = Instant::now();
        let mut backoff = Backoff::new(POLL_PAUSES.0, POLL_PAUSES.1);
        loop {
            let seen = match read().await {
                Ok(response) => {
                    let answer = response.into_inner();
                    if let Some(text) = show(&answer) {
                        self.note(method, text, since, true);
                        return Ok(answer);
                    }
                    "another answer than expected".to_owned()
                }
                Err(status) => {
                    let may_come = matches!(status.code(), Code::NotFound | Code::PermissionDenied | Code::Unavailable);
                    if !may_come {
                        self.note(method, describe(&status), since, true);
                        return Err(Stop::Wrong("it was to be answered OK".to_owned()));
                    }
                    describe(&status)
                }
            };
            if since.elapsed() >= EVENT_TIMEOUT {
                self.note(method, seen, since, true);
                return Err(Stop::Wrong(format!("it did not show within {EVENT_TIMEOUT:?}")));
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Stops the row unless the condition holds.
pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Wrong(otherwise())) }
}
