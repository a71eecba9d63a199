//! Strategies for messages of any type: extreme numbers, strange texts, and enough meaningful words that messages get
//! past the door.

use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use contract::screening::v1::Screening;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use testkit::{Checkup, Desk, in_days};

/// The deepest nesting of messages.
const DEPTH: usize = 4;

/// Names and tokens that exist in a process.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    hospitals: Vec<String>,
    slots: Vec<String>,
    screenings: Vec<String>,
    tokens: Vec<String>,
    increases: Vec<String>,
}

impl Vocabulary {
    /// Creates hospitals, slots and bookings to refer to.
    pub(super) async fn of(checkup: &Checkup) -> Self {
        let admin = Desk::of(&checkup.admin().await);
        let mut slots = admin.open("fuzzed-one", &[3, 4, 5, 6], 3).await;
        slots.extend(admin.open("fuzzed-two", &[3, 4, 5, 6], 3).await);
        let mut booked: Vec<Screening> = Vec::new();
        // The first slot is full, and one waits for it.
        for (customer, slot) in [("kim", 0), ("kim", 1), ("lee", 4), ("lee", 5), ("park", 0), ("choi", 0), ("han", 0)] {
            booked.push(admin.join(customer, &slots[slot], "").await.expect("a place, or one in the queue"));
        }
        let marketing = checkup.service("marketing").await;
        let mut increases = Vec::new();
        for slot in &slots[..3] {
            let increase = CapacityRequest { slot: slot.clone(), additional_capacity: 1, ..CapacityRequest::default() };
            let request = CreateCapacityRequestRequest {
                parent: "hospitals/fuzzed-one".to_owned(),
                capacity_request: Some(increase),
                request_id: String::new(),
            };
            let made = marketing.hospital().create_capacity_request(request).await.expect("a request");
            increases.push(made.into_inner().name);
        }
        Self {
            increases,
            hospitals: vec![
                "hospitals/fuzzed-one".to_owned(),
                "hospitals/fuzzed-two".to_owned(),
                "hospitals/none".to_owned(),
            ],
            slots,
            screenings: booked.iter().map(|one| one.name.clone()).collect(),
            tokens: booked.into_iter().map(|one| one.consistency_token).collect(),
        }
    }

    /// Words that make sense in this field of this message.
    fn fitting(&self, field: &FieldDescriptor) -> Vec<String> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let message = field.parent_message().name().to_owned();
        match field.name() {
            "name" if message.contains("CapacityRequest") => self.increases.clone(),
            "name" if message.contains("Hospital") => self.hospitals.clone(),
            "name" if message.contains("Slot") => self.slots.clone(),
            "name" if message.contains("MyPage") => owned(&["customers/kim/myPage", "customers/nobody/myPage"]),
            "name" if message.contains("Reservation") => self.reservations(),
            "name" => self.screenings.clone(),
            "parent" if message.contains("MyPage") => owned(&["customers/kim/myPage"]),
            "parent" if message.contains("Reservation") => self.reservations(),
            "parent" | "hospitals" => self.hospitals.clone(),
            "hospital_id" => owned(&["fuzzed-one", "new-clinic", "another-clinic"]),
            "slot" => self.slots.clone(),
            "customer" => owned(&["customers/kim", "customers/lee", "customers/somebody"]),
            // Never a claim of a booking: only a caller with the service's own key could release one.
            "claim_id" => owned(&["01890a5d-ac96-774b-bcce-b302099a8057.1", "01890a5d-ac96-774b-bcce-b302099a8058.1"]),
            "time_zone" => owned(&["Asia/Seoul", "Pacific/Kiritimati", "America/St_Johns", "UTC"]),
            "min_consistency_token" => [self.tokens.clone(), vec![String::new(); 3]].concat(),
            "etag" => owned(&["\"1\"", "\"2\"", "\"0\""]),
            "filter" => owned(&[
                "",
                "",
                "state=CONFIRMED",
                "state=WAITLISTED",
                "date>=2027-01-01",
                "display_name:\"a\"",
                "state=",
            ]),
            "order_by" => owned(&["", "", "date", "create_time desc", "fill_ratio", "nonsense"]),
            "paths" => owned(&[
                "display_name",
                "booking_policy",
                "booking_policy.min_notice",
                "booking_policy.waitlist_limit",
                "booking_policy.promotion_min_notice",
                "booking_policy.reschedule_limit",
                "booking_policy.customer_limit",
                "*",
                "nonsense",
            ]),
            "request_id" => {
                owned(&["7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30", "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f31", "7"])
            }
            _ => owned(&["", "a word", "검진"]),
        }
    }

    fn reservations(&self) -> Vec<String> {
        self.screenings.iter().map(|name| name.replace("screenings/", "reservations/")).collect()
    }
}

/// How often, in percent, a field is missing and a value is strange.
#[derive(Debug, Clone, Copy)]
struct Wildness {
    missing: u32,
    strange: u32,
}

/// Nearly valid: such messages often get past the door.
const TAME: Wildness = Wildness { missing: 4, strange: 3 };
/// Mostly invalid.
const WILD: Wildness = Wildness { missing: 30, strange: 40 };

/// Any message of a type.
pub(super) fn any_message(descriptor: &MessageDescriptor, vocabulary: &Vocabulary) -> BoxedStrategy<DynamicMessage> {
    let of = |wildness| Builder { vocabulary: vocabulary.clone(), wildness }.message(descriptor, DEPTH);
    prop_oneof![3 => of(TAME), 1 => of(WILD)].boxed()
}

/// Builds the strategies of one kind of message.
struct Builder {
    vocabulary: Vocabulary,
    wildness: Wildness,
}

impl Builder {
    fn message(&self, descriptor: &MessageDescriptor, depth: usize) -> BoxedStrategy<DynamicMessage> {
        let present = if depth == 0 { 0.0 } else { f64::from(100 - self.wildness.missing) / 100.0 };
        let fields: Vec<BoxedStrategy<Option<(FieldDescriptor, Value)>>> = descriptor
            .fields()
            .map(|field| {
                let value = if field.is_list() {
                    vec(self.value(&field, depth), 0..4).prop_map(Value::List).boxed()
                } else {
                    self.value(&field, depth)
                };
                proptest::option::weighted(present, value.prop_map(move |value| (field.clone(), value))).boxed()
            })
            .collect();
        let descriptor = descriptor.clone();
        fields
            .prop_map(move |fields| {
                let mut message = DynamicMessage::new(descriptor.clone());
                // The last field of a oneof wins.
                fields.into_iter().flatten().for_each(|(field, value)| message.set_field(&field, value));
                message
            })
            .boxed()
    }

    fn value(&self, field: &FieldDescriptor, depth: usize) -> BoxedStrategy<Value> {
        match field.kind() {
            Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => self.number(field).prop_map(Value::I32).boxed(),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                // sensible seconds: an hour or a year for a duration, a time far ahead for an instant
                let sensible = if field.parent_message().name() == "Timestamp" {
                    vec![4_000_000_000]
                } else {
                    vec![0, 3_600, 31_622_400]
                };
                let edges = select(vec![-1, 1, 31_622_401, i64::MAX, i64::MIN, 253_402_300_800]);
                let extreme = prop_oneof![any::<i64>(), edges];
                prop_oneof![self.sense() => select(sensible), self.wildness.strange => extreme]
                    .prop_map(Value::I64)
                    .boxed()
            }
            Kind::Uint32 | Kind::Fixed32 => any::<u32>().prop_map(Value::U32).boxed(),
            Kind::Uint64 | Kind::Fixed64 => any::<u64>().prop_map(Value::U64).boxed(),
            Kind::Float => any::<f32>().prop_map(Value::F32).boxed(),
            Kind::Double => any::<f64>().prop_map(Value::F64).boxed(),
            Kind::Bytes => vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())).boxed(),
            Kind::Enum(_) => prop_oneof![-2..12, Just(i32::MAX)].prop_map(Value::EnumNumber).boxed(),
            Kind::String => self.text(field).prop_map(Value::String).boxed(),
            Kind::Message(inner) => self.message(&inner, depth.saturating_sub(1)).prop_map(Value::Message).boxed(),
        }
    }

    /// Numbers at the edges of their range and, in dates, often numbers that exist.
    fn number(&self, field: &FieldDescriptor) -> BoxedStrategy<i32> {
        let sensible: Vec<i32> = match field.name() {
            "year" => (0..2).map(|years| i32::from(in_days(Desk::ZONE, years * 366).year())).collect(),
            "month" => (1..=12).collect(),
            "day" => (1..=29).collect(),
            "nanos" => vec![0],
            "page_size" => vec![0, 1, 50, 1000, 1001],
            _ => vec![1, 2, 3, 100, 100_000],
        };
        let edges = select(vec![i32::MIN, i32::MAX, 0, -1, 100_001, 1_000_000_000]);
        let extreme = prop_oneof![any::<i32>(), -2..40, edges];
        prop_oneof![self.sense() => select(sensible), self.wildness.strange => extreme].boxed()
    }

    fn text(&self, field: &FieldDescriptor) -> BoxedStrategy<String> {
        let noise = vec(any::<char>(), 0..40).prop_map(|characters| characters.into_iter().collect());
        let long = (1_usize..3_000).prop_map(|length| "나".repeat(length));
        let strange = prop_oneof![2 => noise, 1 => long, 1 => Just(String::new())];
        prop_oneof![self.sense() => select(self.vocabulary.fitting(field)), self.wildness.strange => strange].boxed()
    }

    /// How often, in percent, a value makes sense.
    fn sense(&self) -> u32 {
        100 - self.wildness.strange
    }
}
