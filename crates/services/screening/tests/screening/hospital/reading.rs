//! What Screening reads of the fake Hospital to judge a booking that is not made.

use contract::hospital::v1 as message;
use contract::hospital::v1::hospital_service_server::HospitalService;
use domain::capacity;
use domain::civil::encode_date;
use domain::hospital;
use domain::ids::{HospitalId, SlotId};
use fault::Fault;
use runtime::status::status;
use tonic::{Request, Response, Status, async_trait};

use super::{FakeHospital, require_slot};

/// The methods of HospitalService that Screening never calls.
macro_rules! not_asked_for {
    ($($method:ident($request:ident) -> $answer:ident;)+) => {
        #[async_trait]
        impl HospitalService for FakeHospital {
            async fn get_hospital(
                &self,
                request: Request<message::GetHospitalRequest>,
            ) -> Result<Response<message::Hospital>, Status> {
                require_slot(&request, &request.get_ref().name)?;
                self.read_hospital(&request.into_inner().name).map(Response::new).map_err(status)
            }

            type WatchAvailabilityStream = futures::stream::Empty<Result<message::WatchAvailabilityResponse, Status>>;

            async fn watch_availability(
                &self,
                _: Request<message::WatchAvailabilityRequest>,
            ) -> Result<Response<Self::WatchAvailabilityStream>, Status> {
                Err(Status::unimplemented("not asked for"))
            }

            async fn get_slot(
                &self,
                request: Request<message::GetSlotRequest>,
            ) -> Result<Response<message::Slot>, Status> {
                require_slot(&request, &request.get_ref().name)?;
                self.read_slot(&request.into_inner().name).map(Response::new).map_err(status)
            }

            $(
                async fn $method(
                    &self,
                    _: Request<message::$request>,
                ) -> Result<Response<message::$answer>, Status> {
                    Err(Status::unimplemented("not asked for"))
                }
            )+
        }
    };
}

not_asked_for! {
    create_hospital(CreateHospitalRequest) -> Hospital;
    list_hospitals(ListHospitalsRequest) -> ListHospitalsResponse;
    update_hospital(UpdateHospitalRequest) -> Hospital;
    delete_hospital(DeleteHospitalRequest) -> Hospital;
    create_slot(CreateSlotRequest) -> Slot;
    batch_create_slots(BatchCreateSlotsRequest) -> BatchCreateSlotsResponse;
    list_slots(ListSlotsRequest) -> ListSlotsResponse;
    set_slot_capacity(SetSlotCapacityRequest) -> Slot;
    close_slot(CloseSlotRequest) -> Slot;
    batch_close_slots(BatchCloseSlotsRequest) -> BatchCloseSlotsResponse;
    reopen_slot(ReopenSlotRequest) -> Slot;
    search_availability(SearchAvailabilityRequest) -> SearchAvailabilityResponse;
    create_capacity_request(CreateCapacityRequestRequest) -> CapacityRequest;
    get_capacity_request(GetCapacityRequestRequest) -> CapacityRequest;
    list_capacity_requests(ListCapacityRequestsRequest) -> ListCapacityRequestsResponse;
    approve_capacity_request(ApproveCapacityRequestRequest) -> CapacityRequest;
    reject_capacity_request(RejectCapacityRequestRequest) -> CapacityRequest;
}

impl FakeHospital {
    fn read_hospital(&self, name: &str) -> Result<message::Hospital, Fault> {
        let id = HospitalId::parse(name).unwrap();
        let state = self.state();
        let found = state.hospitals.get(&id).ok_or_else(|| hospital::hospital_not_found(&id))?;
        let duration = |duration: jiff::SignedDuration| {
            Some(prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() })
        };
        Ok(message::Hospital {
            name: id.to_string(),
            display_name: found.display_name.clone(),
            time_zone: domain::window::zone_name(&found.time_zone).to_owned(),
            state: found.state() as i32,
            booking_policy: Some(message::BookingPolicy {
                min_notice: duration(found.policy.min_notice),
                max_advance: duration(found.policy.max_advance),
                cancellation_cutoff: duration(found.policy.cancellation_cutoff),
                waitlist_limit: Some(found.policy.waitlist_limit),
                promotion_min_notice: duration(found.policy.promotion_min_notice),
                reschedule_limit: Some(found.policy.reschedule_limit),
                customer_limit: found.policy.customer_limit,
            }),
            ..message::Hospital::default()
        })
    }

    fn read_slot(&self, name: &str) -> Result<message::Slot, Fault> {
        let id = SlotId::parse(name).unwrap();
        let state = self.state();
        if !state.hospitals.contains_key(&id.hospital) {
            return Err(hospital::hospital_not_found(&id.hospital));
        }
        let found = state.slots.get(&id).ok_or_else(|| capacity::slot_not_found(&id))?;
        Ok(message::Slot {
            name: id.to_string(),
            date: Some(encode_date(id.date)),
            capacity: found.capacity,
            booked_count: found.booked,
            remaining_count: found.remaining(),
            waitlisted_count: found.waiting,
            state: found.state as i32,
            ..message::Slot::default()
        })
    }
}
