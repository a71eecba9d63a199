//! Use cases: what each method of both services does once its call is decoded and its caller is authorised.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::access::Caller;
use domain::capacity::{Claim, Slot, claim_not_found, close_slot, open_slot, slot_not_found};
use domain::civil::today;
use domain::event::Cause;
use domain::filter::Comparison;
use domain::hospital::{CapacityRequest, Terms, capacity_request_not_found, delete, hospital_not_found};
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::page::{Page, Rows};
use domain::request::Request;
use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::clock::Clock;
use runtime::deadline::Deadline;
use runtime::trace::TraceContext;
use store::read::failed;
use store::{Database, Writer, request_record};
use tokio::sync::Notify;

use crate::batch::HospitalBatchHandler;
use crate::command::{Ask, Change, ClaimRequest, Command, NewSlot, Outcome};
use crate::decode::Wanted;
use crate::in_flight::InFlight;
use crate::tables::read::{self, Available, ClaimView, Dates, HospitalView, Search, SlotView};
use crate::tables::revocation::Cancelling;

/// A repeated request stops waiting this long before its deadline, so that REQUEST_IN_PROGRESS still arrives.
const RESPONSE_RESERVE: Duration = Duration::from_millis(50);

/// What a use case needs to know about the call that it serves.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) trace: TraceContext,
    /// When the caller stops waiting.
    pub(crate) deadline: Deadline,
}

impl Call {
    fn cause(&self, request: Option<&Request>) -> Cause {
        Cause::of_call(&self.caller, request, self.trace.traceparent())
    }
}

pub(crate) type Listed<T> = Result<Rows<T>, Fault>;

/// The use cases. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct App {
    writer: Writer<HospitalBatchHandler>,
    database: Database,
    clock: Clock,
    in_flight: InFlight,
    revocations: Arc<Notify>,
}

impl App {
    /// `revocations` wakes the background worker that revokes claims.
    pub(crate) fn new(
        writer: Writer<HospitalBatchHandler>,
        database: Database,
        clock: Clock,
        revocations: Arc<Notify>,
    ) -> Self {
        Self { writer, database, clock, in_flight: InFlight::default(), revocations }
    }

    /// The current time, for values that an answer derives from it, such as whether a capacity request has expired.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes a place on a slot, or a ticket of its queue. A repetition with the same claim id takes no second one.
    pub(crate) async fn reserve(
        &self,
        call: &Call,
        Wanted { slot, claim, allow_waitlist }: Wanted,
    ) -> Result<(ClaimView, Option<Terms>), Fault> {
        let claim_request = ClaimRequest { slot, claim, cause: call.cause(None) };
        let command = Command::Reserve(claim_request, allow_waitlist);
        let (claim, terms, position) = self.writer.submit(command, call.deadline.instant()).await??.claim()?;
        let view = match position {
            Some(position) => ClaimView { claim, position },
            None => read::claim_view(self.database.reader(), claim).await.map_err(failed)?,
        };
        Ok((view, terms))
    }

    /// Gives a place back. A claim that never had a place becomes a tombstone.
    pub(crate) async fn release(&self, call: &Call, slot: SlotId, claim: ClaimId) -> Result<Claim, Fault> {
        let claim_request = ClaimRequest { slot, claim, cause: call.cause(None) };
        let (claim, ..) =
            self.writer.submit(Command::Release(claim_request), call.deadline.instant()).await??.claim()?;
        Ok(claim)
    }

    /// Makes a change at most once per request id. A repetition gets the resource as it is now.
    pub(crate) async fn ask(&self, call: &Call, request: Request, change: Change) -> Result<Outcome, Fault> {
        let begins = matches!(
            change,
            Change::DeleteHospital { .. }
                | Change::CloseSlot { cancel_bookings: true, .. }
                | Change::CloseSlots { cancel_bookings: true, .. }
        );
        let turn = request.chosen.then(|| self.in_flight.enter(&request.key));
        let repeated = turn.as_ref().is_some_and(|turn| turn.is_repeated());
        let deadline = if repeated { call.deadline.earlier_by(RESPONSE_RESERVE) } else { call.deadline };
        let id = request.key.id;
        let ask = Ask { cause: call.cause(Some(&request)), request, change };
        let outcome = match self.writer.submit(Command::Ask(Box::new(ask)), deadline.instant()).await {
            Err(fault) if repeated && fault.reason() == Reason::DeadlineExceeded => {
                let message = "the first call with this request_id is still running; send the same request again";
                return Err(Fault::new(Reason::RequestInProgress, message).with("requestId", id));
            }
            answered => answered??,
        };
        if begins {
            self.revocations.notify_one();
        }
        Ok(outcome)
    }

    /// What a deletion would answer, and how many claims it would revoke. `None` if a deletion has begun already or
    /// this request was answered before.
    pub(crate) async fn preview_deletion(
        &self,
        request: &Request,
        id: &HospitalId,
        force: bool,
        etag: &str,
    ) -> Result<(HospitalView, Option<i64>), Fault> {
        let answered = self.is_answered(request).await?;
        let view = self.hospital(id).await?;
        if answered {
            return Ok((view, None));
        }
        let begins = delete(&view.hospital, view.held, force, "", etag, self.now())?.is_some();
        let total = begins.then_some(view.held.total());
        Ok((view, total))
    }

    /// What closing a slot would answer: the slot as it is, with the number of bookings that would be cancelled.
    pub(crate) async fn preview_closing(
        &self,
        request: &Request,
        id: &SlotId,
        cancel_bookings: bool,
        etag: &str,
    ) -> Result<SlotView, Fault> {
        let answered = self.is_answered(request).await?;
        let view = self.slot_view(self.slot(id).await?).await?;
        if answered {
            return Ok(view);
        }
        let hospital = self.hospital(&id.hospital).await?.hospital;
        close_slot(&hospital, &view.slot, cancel_bookings, "", etag, self.now())?;
        let left = i64::from(view.slot.to_cancel(cancel_bookings));
        let begins = left > 0 && view.cancelling.is_none();
        let cancelling = begins.then_some(Cancelling { revoked: 0, left });
        Ok(SlotView { cancelling, ..view })
    }

    /// What closing several slots would answer: those that are not over, as they are, each with the number of bookings
    /// that would be cancelled.
    pub(crate) async fn preview_closings(
        &self,
        request: &Request,
        id: &HospitalId,
        dates: &BTreeSet<Date>,
        cancel_bookings: bool,
    ) -> Result<Vec<SlotView>, Fault> {
        let answered = self.is_answered(request).await?;
        let hospital = self.hospital(id).await?.hospital;
        let today = today(self.now(), &hospital.time_zone);
        let reader = self.database.reader();
        let views = read::slots_on(reader, id, dates.range(today..).copied()).await.map_err(failed)?;
        if answered {
            return Ok(views);
        }
        hospital.require_active()?;
        let preview = |view: SlotView| {
            let left = i64::from(view.slot.to_cancel(cancel_bookings));
            let begins = left > 0 && view.cancelling.is_none();
            SlotView { cancelling: begins.then_some(Cancelling { revoked: 0, left }), ..view }
        };
        Ok(views.into_iter().map(preview).collect())
    }

    /// What opening dates would answer: the slots as they would be, or as they are if this request was answered before.
    pub(crate) async fn preview_openings(
        &self,
        request: &Request,
        id: &HospitalId,
        slots: &[NewSlot],
    ) -> Result<Vec<Slot>, Fault> {
        let answered = self.is_answered(request).await?;
        let hospital = self.hospital(id).await?.hospital;
        let views = read::slots_on(self.database.reader(), id, slots.iter().map(|new| new.date)).await;
        let held: HashMap<Date, Slot> =
            views.map_err(failed)?.into_iter().map(|view| (view.slot.id.date, view.slot)).collect();
        let open = |new: &NewSlot| match (held.get(&new.date), answered) {
            (Some(slot), true) => Ok(slot.clone()),
            (held, _) => open_slot(&hospital, new.date, new.capacity, held, self.now()).map(|(slot, _)| slot),
        };
        slots.iter().map(open).collect()
    }

    /// Whether this request was answered before.
    async fn is_answered(&self, request: &Request) -> Result<bool, Fault> {
        let records = request_record::find(self.database.reader(), &[&request.key]).await.map_err(failed)?;
        let Some(record) = records.get(&request.key) else { return Ok(false) };
        request.matches(&record.fingerprint)?;
        Ok(true)
    }

    /// Adds to slots of one hospital how far the cancelling of their bookings has come.
    pub(crate) async fn slot_views(&self, slots: Vec<Slot>) -> Result<Vec<SlotView>, Fault> {
        read::views(self.database.reader(), slots).await.map_err(failed)
    }

    pub(crate) async fn hospital(&self, id: &HospitalId) -> Result<HospitalView, Fault> {
        let view = read::hospital(self.database.reader(), id, self.now()).await.map_err(failed)?;
        view.ok_or_else(|| hospital_not_found(id))
    }

    pub(crate) async fn hospitals(&self, filter: &[Comparison], deleted: bool, page: &Page) -> Listed<HospitalView> {
        read::hospitals(self.database.pages(), filter, deleted, page, self.now()).await.map_err(failed)
    }

    pub(crate) async fn slot(&self, id: &SlotId) -> Result<Slot, Fault> {
        let slot = read::slot(self.database.reader(), id).await.map_err(failed)?;
        slot.ok_or_else(|| slot_not_found(id))
    }

    /// A slot with the progress of its cancellation.
    pub(crate) async fn slot_view(&self, slot: Slot) -> Result<SlotView, Fault> {
        read::with_cancelling(self.database.reader(), slot).await.map_err(failed)
    }

    pub(crate) async fn slots(&self, hospital: &HospitalId, dates: Dates, page: &Page) -> Listed<SlotView> {
        self.require_hospitals([hospital]).await?;
        read::slots(self.database.pages(), hospital, dates, page).await.map_err(failed)
    }

    /// A page of the slots that can be booked now.
    pub(crate) async fn availability(&self, search: &Search, page: &Page) -> Listed<Available> {
        self.require_hospitals(&search.hospitals).await?;
        read::availability(self.database.pages(), search, page, self.now()).await.map_err(failed)
    }

    /// Refuses a hospital that does not exist.
    pub(crate) async fn require_hospitals(&self, ids: impl IntoIterator<Item = &HospitalId>) -> Result<(), Fault> {
        let ids: Vec<&HospitalId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let segments = ids.iter().map(|id| id.segment());
        let known = read::known_hospitals(self.database.reader(), segments).await.map_err(failed)?;
        match ids.into_iter().find(|id| !known.contains_key(*id)) {
            Some(unknown) => Err(hospital_not_found(unknown)),
            None => Ok(()),
        }
    }

    pub(crate) async fn claim(&self, slot: &SlotId, id: ClaimId) -> Result<ClaimView, Fault> {
        let claim = read::claim(self.database.reader(), slot, id).await.map_err(failed)?;
        claim.ok_or_else(|| claim_not_found(&id))
    }

    /// A page of the claims of one slot, or of every slot if `slot` is `None`.
    pub(crate) async fn claims(&self, slot: Option<&SlotId>, filter: &[Comparison], page: &Page) -> Listed<ClaimView> {
        if let Some(slot) = slot {
            self.slot(slot).await?;
        }
        read::claims(self.database.pages(), slot, filter, page).await.map_err(failed)
    }

    pub(crate) async fn capacity_request(&self, id: &CapacityRequestId) -> Result<CapacityRequest, Fault> {
        let request = read::capacity_request(self.database.reader(), id).await.map_err(failed)?;
        request.ok_or_else(|| capacity_request_not_found(id))
    }

    pub(crate) async fn capacity_requests(
        &self,
        hospital: &HospitalId,
        filter: &[Comparison],
        page: &Page,
    ) -> Listed<CapacityRequest> {
        self.require_hospitals([hospital]).await?;
        read::capacity_requests(self.database.pages(), hospital, filter, page, self.now()).await.map_err(failed)
    }
}
