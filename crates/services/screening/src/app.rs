//! The use cases. Reading, changing and listing are here; making, moving and settling bookings are in the modules
//! below.
//!
//! A handler may be dropped at any await when its caller gives up. Work that must not stop halfway runs in a task.

mod create;
pub(crate) mod expiry;
pub(crate) mod in_flight;
mod placing;
pub(crate) mod reconciler;
pub(crate) mod refusals;
mod reschedule;
pub(crate) mod resolver;
mod settle;
mod validate;

use std::time::Duration;

use domain::access::{Caller, Scope};
use domain::event::Cause;
use domain::ids::ScreeningId;
use domain::page::Rows;
use domain::request::Request;
use domain::screening::{self, Command, Screening};
use fault::Fault;
use runtime::clock::Clock;
use runtime::deadline::Deadline;
use runtime::tasks::Tasks;
use runtime::trace::TraceContext;
use store::read::failed;
use store::{Database, Lookups};
use tokio::sync::Notify;

use crate::batch::{BookingChange, ScreeningWriter};
use crate::hospital_client::HospitalClient;
use crate::tables::booking_lookup::BookingLookup;
use crate::tables::list::Listing;
use crate::tables::screening_lookup::{ScreeningLookup, ScreeningQuery};
use crate::{Options, decode, tables};
use in_flight::InFlight;
use refusals::Refusals;

/// How long the writer may take for a write with no caller's deadline.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the use cases share.
#[derive(Debug)]
pub(crate) struct App {
    /// The client of Hospital.
    pub(crate) hospital: HospitalClient,
    pub(crate) clock: Clock,
    pub(crate) database: Database,
    /// Calls with a request_id that are under way.
    pub(crate) in_flight: InFlight,
    pub(crate) writer: ScreeningWriter,
    pub(crate) options: Options,
    /// Wakes the resolver after a PENDING booking was written.
    pub(crate) parked: Notify,
    /// Counts bookings that a full slot refused.
    pub(crate) refusals: Refusals,
    /// Reads single bookings, those of several callers in one statement.
    pub(crate) screening_lookup: Lookups<ScreeningLookup>,
    /// Finds earlier bookings that a new one meets, for several callers in one statement.
    pub(crate) booking_lookup: Lookups<BookingLookup>,
    /// Owns tasks that outlive the call that began them.
    pub(crate) tasks: Tasks,
}

impl App {
    pub(crate) async fn get(&self, scope: &Scope, id: ScreeningId) -> Result<Screening, Fault> {
        let found = self.screening_lookup.ask(ScreeningQuery { scope: scope.clone(), id }).await?;
        found.ok_or_else(|| scope.absent(screening::not_found(id), "screening"))
    }

    pub(crate) async fn list(&self, scope: &Scope, listing: &Listing) -> Result<Rows<Screening>, Fault> {
        scope.require_filter(&listing.comparisons)?;
        tables::list::list(self.database.pages(), scope, listing).await.map_err(failed)
    }

    pub(crate) async fn cancel(
        &self,
        caller: &Caller,
        call: decode::Change,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        let command = Command::Cancel { by: decode::party(caller), message: call.reason, etag: call.etag };
        self.change(caller, call.id, command, call.request, trace, deadline).await
    }

    pub(crate) async fn rename(
        &self,
        caller: &Caller,
        call: decode::Rename,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        let command = Command::Rename { name: call.name, etag: call.etag };
        self.change(caller, call.id, command, call.request, trace, deadline).await
    }

    pub(crate) async fn complete(
        &self,
        caller: &Caller,
        call: decode::Change,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        self.change(caller, call.id, Command::Complete { etag: call.etag }, call.request, trace, deadline).await
    }

    pub(crate) async fn mark_no_show(
        &self,
        caller: &Caller,
        call: decode::Change,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        self.change(caller, call.id, Command::MarkNoShow { etag: call.etag }, call.request, trace, deadline).await
    }

    async fn change(
        &self,
        caller: &Caller,
        id: ScreeningId,
        command: Command,
        request: Request,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        let cause = Cause::of_call(caller, Some(&request), trace.traceparent());
        let change = BookingChange { scope: caller.scope()?, cause, request, id, command };
        self.writer.change(change, deadline.instant()).await
    }
}
