//! The audit after the load: it settles every call, compares the services, and checks every answer that was given.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use contract::screening::v1::ListScreeningsRequest;
use futures::{StreamExt, stream};
use serde_json::Value;
use testkit::{Booking, Moving, Outcome, Party, Sighting, Wrong};
use tokio::time::Instant;

use crate::Error;
use crate::desk::Desk;
use crate::observed::Observed;
use crate::pool::RetryPolicy;
use crate::stage::Stage;

/// How long a call with an unknown outcome is repeated.
const RESEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How many calls run at the same time.
const CONCURRENCY: usize = 64;
/// How many answered bookings are requested again.
const REPLAYED_BOOKINGS: usize = 200;
/// How many examples per kind of finding are shown.
const SHOWN_EXAMPLES: usize = 5;

/// The findings of an audit.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) oversold: u64,
    pub(crate) complaints: Vec<String>,
    pub(crate) settled: Duration,
}

impl Audit {
    /// Settles every unknown call, then compares answers and services. The stage must be whole again.
    ///
    /// # Errors
    /// If a service or the report of `checkup verify` cannot be read.
    pub(crate) async fn of(
        stage: &impl Stage,
        binary: &Path,
        desk: &Desk,
        observed: &Observed,
        settle: Duration,
    ) -> Result<Self, Error> {
        let mut audit = Self::default();
        let begun = Instant::now();
        resend(desk, observed).await;
        let (_, unknown) = observed.history.counts();
        if unknown > 0 {
            audit.complaints.push(format!("{unknown} bookings are unknown after {RESEND_TIMEOUT:?} of asking"));
        }
        for view in 0..views(stage) {
            audit.verify(stage, binary, view, settle).await?;
        }
        audit.settled = begun.elapsed();
        audit.replay(desk, observed).await;
        let seen = sightings(desk).await?;
        for finding in observed.history.findings(&seen) {
            let count = match finding.wrong {
                Wrong::Lost => &mut audit.lost,
                Wrong::Doubled => &mut audit.doubled,
            };
            *count += 1;
            if *count <= SHOWN_EXAMPLES {
                audit.complaints.push(format!("{:?}: {}", finding.wrong, finding.what));
            }
        }
        Ok(audit)
    }

    /// Runs `checkup verify` on one set of replicas.
    async fn verify(&mut self, stage: &impl Stage, binary: &Path, view: usize, settle: Duration) -> Result<(), Error> {
        let output = stage.verify(binary, view, settle).await?;
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            Error::failed(format!("checkup verify said no JSON ({error}): {said}"))
        })?;
        let rows = |key: &str| report[key].as_array().cloned().unwrap_or_default();
        let disagreements = rows("disagreements");
        self.oversold += disagreements.iter().filter(|row| row["rule"] == "capacity-holds").count() as u64;
        let mut by_rule: HashMap<String, Vec<&Value>> = HashMap::new();
        for row in &disagreements {
            by_rule.entry(row["rule"].as_str().unwrap_or_default().to_owned()).or_default().push(row);
        }
        for (rule, rows) in by_rule {
            let examples: Vec<String> = rows.iter().take(SHOWN_EXAMPLES).map(ToString::to_string).collect();
            self.complaints.push(format!("verify, view {view}: {} × {rule}: {}", rows.len(), examples.join(" ")));
        }
        for key in ["moving", "skipped"] {
            let rows = rows(key);
            if let Some(first) = rows.first() {
                self.complaints.push(format!("verify, view {view}: {} {key}, for example {first}", rows.len()));
            }
        }
        if disagreements.is_empty() && report["ok"] != true {
            self.complaints.push(format!("verify, view {view}, is not content: {report}"));
        }
        Ok(())
    }

    /// Repeats answered requests. Each must be answered with the same booking again. A repeated move moves nothing.
    async fn replay(&mut self, desk: &Desk, observed: &Observed) {
        let again = Observed::new(Vec::new());
        let asked = observed.history.sample(REPLAYED_BOOKINGS).into_iter().map(|booking| {
            let again = &again;
            async move {
                let (token, retry_policy) = (token(desk, &booking), RetryPolicy::until_known(RESEND_TIMEOUT));
                let blank = || Booking { moves: Vec::new(), cancelling: None, ..booking.clone() };
                let (mut repeated, mut moved) = (Booking { outcome: Outcome::Unknown, ..blank() }, blank());
                desk.book(again, &token, &mut repeated, retry_policy).await;
                for moving in booking.moves.iter().filter(|moving| moving.outcome == Outcome::Done(())) {
                    moved.moves.push(Moving { outcome: Outcome::Unknown, ..moving.clone() });
                    desk.reschedule(again, &token, &mut moved, retry_policy).await;
                }
                (booking, repeated, moved)
            }
        });
        let mut answers = stream::iter(asked).buffer_unordered(CONCURRENCY);
        while let Some((before, now, moved)) = answers.next().await {
            for moving in moved.moves.iter().filter(|moving| moving.outcome != Outcome::Done(())) {
                self.doubled += 1;
                self.complaints.push(format!("a repeated move is answered {:?}: {before:?}", moving.outcome));
            }
            // The answer has the current state: a booking that was cancelled since is no longer CONFIRMED.
            let is_over = matches!(&now.outcome, Outcome::Refused(state) if state.ends_with("CANCELLED"));
            if now.outcome != before.outcome && !(is_over && before.cancelling.is_some()) {
                self.doubled += 1;
                self.complaints.push(format!("a repeated request is answered {:?}: {before:?}", now.outcome));
            }
        }
        self.complaints.extend(again.complaints());
    }
}

fn views<S: Stage>(_stage: &S) -> usize {
    S::VIEWS
}

fn token(desk: &Desk, booking: &Booking) -> String {
    desk.tokens.customer(&booking.customer)
}

/// Repeats every call with an unknown outcome, with the same request_id, for [`RESEND_TIMEOUT`] at most.
async fn resend(desk: &Desk, observed: &Observed) {
    let end = Instant::now() + RESEND_TIMEOUT;
    loop {
        let unknown = observed.history.take_unknown();
        let done = unknown.is_empty() || Instant::now() >= end;
        let settled = unknown.into_iter().map(|mut booking| async {
            if !done {
                let (token, retry_policy) = (token(desk, &booking), RetryPolicy::until_known(RESEND_TIMEOUT));
                if booking.outcome == Outcome::Unknown {
                    desk.book(observed, &token, &mut booking, retry_policy).await;
                } else if booking.moves.iter().any(|moving| moving.outcome == Outcome::Unknown) {
                    desk.reschedule(observed, &token, &mut booking, retry_policy).await;
                } else {
                    desk.cancel(observed, &token, &mut booking, retry_policy).await;
                }
            }
            observed.history.note(booking);
        });
        stream::iter(settled).buffer_unordered(CONCURRENCY).collect::<Vec<()>>().await;
        if done {
            return;
        }
    }
}

/// Every screening of the system.
async fn sightings(desk: &Desk) -> Result<Vec<Sighting>, Error> {
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    let auditor = Party::new(desk.screening.next(), Some(&desk.tokens.auditor()));
    loop {
        let order_by = "create_time".to_owned();
        let request = ListScreeningsRequest {
            page_size: 1_000,
            page_token,
            order_by,
            show_waitlisted: true,
            ..ListScreeningsRequest::default()
        };
        let page = auditor.screening().list_screenings(request).await.map_err(Error::call("ListScreenings"))?;
        let page = page.into_inner();
        seen.extend(page.screenings.into_iter().map(Sighting::from));
        if page.next_page_token.is_empty() {
            return Ok(seen);
        }
        page_token = page.next_page_token;
    }
}
