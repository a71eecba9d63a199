//! HospitalService: admins write, everybody reads hospitals, slots and availability.

use std::pin::Pin;

use contract::hospital::v1::hospital_service_server::HospitalService;
use contract::hospital::v1::{
    ApproveCapacityRequestRequest, BatchCloseSlotsRequest, BatchCloseSlotsResponse, BatchCreateSlotsRequest,
    BatchCreateSlotsResponse, CapacityRequest, CloseSlotRequest, CreateCapacityRequestRequest, CreateHospitalRequest,
    CreateSlotRequest, DeleteHospitalRequest, GetCapacityRequestRequest, GetHospitalRequest, GetSlotRequest, Hospital,
    ListCapacityRequestsRequest, ListCapacityRequestsResponse, ListHospitalsRequest, ListHospitalsResponse,
    ListSlotsRequest, ListSlotsResponse, RejectCapacityRequestRequest, ReopenSlotRequest, SearchAvailabilityRequest,
    SearchAvailabilityResponse, SetSlotCapacityRequest, Slot, UpdateHospitalRequest, WatchAvailabilityRequest,
    WatchAvailabilityResponse,
};
use domain::ids::HospitalId;
use fault::Fault;
use futures::{Stream, StreamExt};
use runtime::entropy;
use runtime::status::status;
use tonic::{Request, Response, Status};

use super::{MARKETING, Rpc, answer, call_of, identify, require_request_owner, require_request_reader};
use crate::app::Call;
use crate::command::Change;
use crate::tables::read::SlotView;
use crate::{decode, encode};

type Messages = Pin<Box<dyn Stream<Item = Result<WatchAvailabilityResponse, Status>> + Send>>;

/// A time-ordered id, for a hospital whose caller chose none.
fn fresh_hospital() -> HospitalId {
    let segment = format!("h-{}", entropy::uuid_v7().simple());
    HospitalId::from_segment(&segment).unwrap_or_else(|_| unreachable!("{segment} is of the form of a hospital's id"))
}

impl Rpc {
    async fn create_hospital(&self, call: &Call, mut message: CreateHospitalRequest) -> Result<Hospital, Fault> {
        call.caller.require_admin()?;
        let asked = decode::create_hospital(&mut message, fresh_hospital, entropy::uuid_v4())?;
        let bare = CreateHospitalRequest { request_id: String::new(), ..message };
        let view = self.administer(call, "CreateHospital", asked, &bare).await?.hospital()?;
        Ok(encode::hospital(&view))
    }

    async fn update_hospital(&self, call: &Call, mut message: UpdateHospitalRequest) -> Result<Hospital, Fault> {
        call.caller.require_admin()?;
        let asked = decode::update_hospital(&mut message)?;
        let view = self.administer(call, "UpdateHospital", asked, &message).await?.hospital()?;
        Ok(encode::hospital(&view))
    }

    async fn delete_hospital(&self, call: &Call, mut message: DeleteHospitalRequest) -> Result<Hospital, Fault> {
        call.caller.require_admin()?;
        let (asked, validate_only) = decode::delete_hospital(&mut message)?;
        // validate_only is not part of the fingerprint, so that a preview finds the record of the deletion with the
        // same request_id.
        let bare = DeleteHospitalRequest { request_id: String::new(), validate_only: false, ..message };
        if let (true, Change::DeleteHospital { id, force, reason: _, etag }) = (validate_only, &asked.change) {
            call.caller.require_admin_of(id)?;
            let identity = identify(call, "DeleteHospital", asked.request_id, &bare);
            let (view, total) = self.app.preview_deletion(&identity, id, *force, etag).await?;
            return Ok(encode::deletion_preview(&view, total));
        }
        let view = self.administer(call, "DeleteHospital", asked, &bare).await?.hospital()?;
        Ok(encode::hospital(&view))
    }

    async fn list_hospitals(&self, message: &ListHospitalsRequest) -> Result<ListHospitalsResponse, Fault> {
        let list = decode::list_hospitals(message)?;
        let views = self.app.hospitals(&list.filter, list.parent, &list.page).await?;
        let (hospitals, next_page_token) = list.page.fill(views, |view| encode::hospital(&view));
        Ok(ListHospitalsResponse { hospitals, next_page_token })
    }

    async fn create_slot(&self, call: &Call, message: CreateSlotRequest) -> Result<Slot, Fault> {
        call.caller.require_admin()?;
        let asked = decode::create_slot(&message)?;
        let bare = CreateSlotRequest { request_id: String::new(), ..message };
        let slot = self.administer(call, "CreateSlot", asked, &bare).await?.slot()?;
        Ok(encode::slot(&slot))
    }

    async fn batch_create_slots(
        &self,
        call: &Call,
        message: BatchCreateSlotsRequest,
    ) -> Result<BatchCreateSlotsResponse, Fault> {
        call.caller.require_admin()?;
        let (asked, validate_only) = decode::batch_create_slots(&message)?;
        let bare = BatchCreateSlotsRequest { request_id: String::new(), validate_only: false, ..message };
        if let (true, Change::CreateSlots { hospital, slots }) = (validate_only, &asked.change) {
            call.caller.require_admin_of(hospital)?;
            let identity = identify(call, "BatchCreateSlots", asked.request_id, &bare);
            let slots = self.app.preview_openings(&identity, hospital, slots).await?;
            return Ok(BatchCreateSlotsResponse { slots: slots.iter().map(encode::slot).collect() });
        }
        let slots = self.administer(call, "BatchCreateSlots", asked, &bare).await?.slots()?;
        Ok(BatchCreateSlotsResponse { slots: slots.iter().map(encode::slot).collect() })
    }

    async fn list_slots(&self, message: &ListSlotsRequest) -> Result<ListSlotsResponse, Fault> {
        let list = decode::list_slots(message)?;
        let (hospital, dates) = list.parent;
        let slots = self.app.slots(&hospital, dates, &list.page).await?;
        let (slots, next_page_token) = list.page.fill(slots, |view| encode::slot_view(&view));
        Ok(ListSlotsResponse { slots, next_page_token })
    }

    async fn set_slot_capacity(&self, call: &Call, message: SetSlotCapacityRequest) -> Result<Slot, Fault> {
        call.caller.require_admin()?;
        let asked = decode::set_slot_capacity(&message)?;
        let bare = SetSlotCapacityRequest { request_id: String::new(), ..message };
        let slot = self.administer(call, "SetSlotCapacity", asked, &bare).await?.slot()?;
        Ok(encode::slot(&slot))
    }

    async fn close_slot(&self, call: &Call, mut message: CloseSlotRequest) -> Result<Slot, Fault> {
        call.caller.require_admin()?;
        let (asked, validate_only) = decode::close_slot(&mut message)?;
        // As in DeleteHospital, a preview finds the record of the closing with the same request_id.
        let bare = CloseSlotRequest { request_id: String::new(), validate_only: false, ..message };
        if let (true, Change::CloseSlot { slot, cancel_bookings, reason: _, etag }) = (validate_only, &asked.change) {
            call.caller.require_admin_of(&slot.hospital)?;
            let identity = identify(call, "CloseSlot", asked.request_id, &bare);
            let view = self.app.preview_closing(&identity, slot, *cancel_bookings, etag).await?;
            return Ok(encode::slot_view(&view));
        }
        let slot = self.administer(call, "CloseSlot", asked, &bare).await?.slot()?;
        // the slot is closed, so a read that fails only leaves the progress out
        let view = self.app.slot_view(slot.clone()).await;
        Ok(view.map_or_else(|_| encode::slot(&slot), |view| encode::slot_view(&view)))
    }

    async fn batch_close_slots(
        &self,
        call: &Call,
        mut message: BatchCloseSlotsRequest,
    ) -> Result<BatchCloseSlotsResponse, Fault> {
        call.caller.require_admin()?;
        let (asked, validate_only) = decode::batch_close_slots(&mut message)?;
        let bare = BatchCloseSlotsRequest { request_id: String::new(), validate_only: false, ..message };
        if let (true, Change::CloseSlots { hospital, dates, cancel_bookings, reason: _ }) =
            (validate_only, &asked.change)
        {
            call.caller.require_admin_of(hospital)?;
            let identity = identify(call, "BatchCloseSlots", asked.request_id, &bare);
            let views = self.app.preview_closings(&identity, hospital, dates, *cancel_bookings).await?;
            return Ok(encode::closed_slots(&views));
        }
        let slots = self.administer(call, "BatchCloseSlots", asked, &bare).await?.slots()?;
        // the slots are closed, so a read that fails only leaves the progress out
        let views = self.app.slot_views(slots.clone()).await;
        let bare = |slot| SlotView { slot, cancelling: None };
        Ok(encode::closed_slots(&views.unwrap_or_else(|_| slots.into_iter().map(bare).collect())))
    }

    async fn reopen_slot(&self, call: &Call, message: ReopenSlotRequest) -> Result<Slot, Fault> {
        call.caller.require_admin()?;
        let asked = decode::reopen_slot(&message)?;
        let bare = ReopenSlotRequest { request_id: String::new(), ..message };
        let slot = self.administer(call, "ReopenSlot", asked, &bare).await?.slot()?;
        Ok(encode::slot(&slot))
    }

    async fn availability(&self, message: &SearchAvailabilityRequest) -> Result<SearchAvailabilityResponse, Fault> {
        let list = decode::search_availability(message)?;
        let slots = self.app.availability(&list.parent, &list.page).await?;
        let (available_slots, next_page_token) = list.page.fill(slots, |available| encode::available_slot(&available));
        Ok(SearchAvailabilityResponse { available_slots, next_page_token })
    }

    async fn watch(&self, call: &Call, message: &WatchAvailabilityRequest) -> Result<Messages, Fault> {
        call.caller.require_token()?;
        let query = decode::watch_availability(message)?;
        self.app.require_hospitals(&query.hospitals).await?;
        let messages = self.watches.clone().open(query).await?;
        Ok(Box::pin(messages.map(|message| message.map(encode::watch_message).map_err(status))))
    }

    async fn create_capacity_request(
        &self,
        call: &Call,
        mut message: CreateCapacityRequestRequest,
    ) -> Result<CapacityRequest, Fault> {
        call.caller.require_service(MARKETING)?;
        let asked = decode::create_capacity_request(&mut message, entropy::uuid_v7())?;
        let bare = CreateCapacityRequestRequest { request_id: String::new(), ..message };
        let identity = identify(call, "CreateCapacityRequest", asked.request_id, &bare);
        let request = self.app.ask(call, identity, asked.change).await?.capacity_request()?;
        Ok(encode::capacity_request(&request, self.app.now()))
    }

    async fn capacity_request(
        &self,
        call: &Call,
        message: &GetCapacityRequestRequest,
    ) -> Result<CapacityRequest, Fault> {
        require_request_reader(&call.caller)?;
        let id = decode::get_capacity_request(message)?;
        require_request_owner(&call.caller, &id.hospital)?;
        Ok(encode::capacity_request(&self.app.capacity_request(&id).await?, self.app.now()))
    }

    async fn list_capacity_requests(
        &self,
        call: &Call,
        message: &ListCapacityRequestsRequest,
    ) -> Result<ListCapacityRequestsResponse, Fault> {
        require_request_reader(&call.caller)?;
        let list = decode::list_capacity_requests(message)?;
        require_request_owner(&call.caller, &list.parent)?;
        let requests = self.app.capacity_requests(&list.parent, &list.filter, &list.page).await?;
        let now = self.app.now();
        let encode = |request| encode::capacity_request(&request, now);
        let (capacity_requests, next_page_token) = list.page.fill(requests, encode);
        Ok(ListCapacityRequestsResponse { capacity_requests, next_page_token })
    }

    async fn approve(&self, call: &Call, mut message: ApproveCapacityRequestRequest) -> Result<CapacityRequest, Fault> {
        call.caller.require_admin()?;
        let asked = decode::approve_capacity_request(&mut message)?;
        let bare = ApproveCapacityRequestRequest { request_id: String::new(), ..message };
        let request = self.administer(call, "ApproveCapacityRequest", asked, &bare).await?.capacity_request()?;
        Ok(encode::capacity_request(&request, self.app.now()))
    }

    async fn reject(&self, call: &Call, mut message: RejectCapacityRequestRequest) -> Result<CapacityRequest, Fault> {
        call.caller.require_admin()?;
        let asked = decode::reject_capacity_request(&mut message)?;
        let bare = RejectCapacityRequestRequest { request_id: String::new(), ..message };
        let request = self.administer(call, "RejectCapacityRequest", asked, &bare).await?.capacity_request()?;
        Ok(encode::capacity_request(&request, self.app.now()))
    }
}

#[tonic::async_trait]
impl HospitalService for Rpc {
    type WatchAvailabilityStream = Messages;

    async fn create_hospital(&self, request: Request<CreateHospitalRequest>) -> Result<Response<Hospital>, Status> {
        answer(self.create_hospital(&call_of(&request), request.into_inner()).await)
    }

    async fn get_hospital(&self, request: Request<GetHospitalRequest>) -> Result<Response<Hospital>, Status> {
        let read = async {
            let id = decode::get_hospital(request.get_ref())?;
            self.app.hospital(&id).await
        };
        answer(read.await.map(|view| encode::hospital(&view)))
    }

    async fn list_hospitals(
        &self,
        request: Request<ListHospitalsRequest>,
    ) -> Result<Response<ListHospitalsResponse>, Status> {
        answer(self.list_hospitals(request.get_ref()).await)
    }

    async fn update_hospital(&self, request: Request<UpdateHospitalRequest>) -> Result<Response<Hospital>, Status> {
        answer(self.update_hospital(&call_of(&request), request.into_inner()).await)
    }

    async fn delete_hospital(&self, request: Request<DeleteHospitalRequest>) -> Result<Response<Hospital>, Status> {
        answer(self.delete_hospital(&call_of(&request), request.into_inner()).await)
    }

    async fn create_slot(&self, request: Request<CreateSlotRequest>) -> Result<Response<Slot>, Status> {
        answer(self.create_slot(&call_of(&request), request.into_inner()).await)
    }

    async fn batch_create_slots(
        &self,
        request: Request<BatchCreateSlotsRequest>,
    ) -> Result<Response<BatchCreateSlotsResponse>, Status> {
        answer(self.batch_create_slots(&call_of(&request), request.into_inner()).await)
    }

    async fn get_slot(&self, request: Request<GetSlotRequest>) -> Result<Response<Slot>, Status> {
        let read = async {
            let id = decode::get_slot(request.get_ref())?;
            self.app.slot_view(self.app.slot(&id).await?).await
        };
        answer(read.await.map(|view| encode::slot_view(&view)))
    }

    async fn list_slots(&self, request: Request<ListSlotsRequest>) -> Result<Response<ListSlotsResponse>, Status> {
        answer(self.list_slots(request.get_ref()).await)
    }

    async fn set_slot_capacity(&self, request: Request<SetSlotCapacityRequest>) -> Result<Response<Slot>, Status> {
        answer(self.set_slot_capacity(&call_of(&request), request.into_inner()).await)
    }

    async fn close_slot(&self, request: Request<CloseSlotRequest>) -> Result<Response<Slot>, Status> {
        answer(self.close_slot(&call_of(&request), request.into_inner()).await)
    }

    async fn batch_close_slots(
        &self,
        request: Request<BatchCloseSlotsRequest>,
    ) -> Result<Response<BatchCloseSlotsResponse>, Status> {
        answer(self.batch_close_slots(&call_of(&request), request.into_inner()).await)
    }

    async fn reopen_slot(&self, request: Request<ReopenSlotRequest>) -> Result<Response<Slot>, Status> {
        answer(self.reopen_slot(&call_of(&request), request.into_inner()).await)
    }

    async fn search_availability(
        &self,
        request: Request<SearchAvailabilityRequest>,
    ) -> Result<Response<SearchAvailabilityResponse>, Status> {
        answer(self.availability(request.get_ref()).await)
    }

    async fn watch_availability(
        &self,
        request: Request<WatchAvailabilityRequest>,
    ) -> Result<Response<Messages>, Status> {
        answer(self.watch(&call_of(&request), request.get_ref()).await)
    }

    async fn create_capacity_request(
        &self,
        request: Request<CreateCapacityRequestRequest>,
    ) -> Result<Response<CapacityRequest>, Status> {
        answer(self.create_capacity_request(&call_of(&request), request.into_inner()).await)
    }

    async fn get_capacity_request(
        &self,
        request: Request<GetCapacityRequestRequest>,
    ) -> Result<Response<CapacityRequest>, Status> {
        answer(self.capacity_request(&call_of(&request), request.get_ref()).await)
    }

    async fn list_capacity_requests(
        &self,
        request: Request<ListCapacityRequestsRequest>,
    ) -> Result<Response<ListCapacityRequestsResponse>, Status> {
        answer(self.list_capacity_requests(&call_of(&request), request.get_ref()).await)
    }

    async fn approve_capacity_request(
        &self,
        request: Request<ApproveCapacityRequestRequest>,
    ) -> Result<Response<CapacityRequest>, Status> {
        answer(self.approve(&call_of(&request), request.into_inner()).await)
    }

    async fn reject_capacity_request(
        &self,
        request: Request<RejectCapacityRequestRequest>,
    ) -> Result<Response<CapacityRequest>, Status> {
        answer(self.reject(&call_of(&request), request.into_inner()).await)
    }
}
