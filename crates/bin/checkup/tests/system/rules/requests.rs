//! Requests that are valid, and the fields in them that a test can set.

use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use jiff::civil;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use testkit::{Checkup, Desk, in_days};

use super::judge::{expressions, option};

/// Names of what exists in a process.
pub(super) struct Scene {
    hospital: String,
    slot: String,
    screening: String,
    increase: String,
    date: civil::Date,
}

impl Scene {
    /// Makes a hospital with a slot, a booking, and a request for more places.
    pub(super) async fn set(checkup: &Checkup) -> Self {
        let desk = Desk::of(&checkup.admin().await);
        let slot = desk.open("han-river", &[30], 100).await.remove(0);
        let screening = desk.book("kim", &slot, "").await.expect("a place").name;
        let hospital = "hospitals/han-river".to_owned();
        let increase = CapacityRequest { slot: slot.clone(), additional_capacity: 1, ..CapacityRequest::default() };
        let request = CreateCapacityRequestRequest {
            parent: hospital.clone(),
            capacity_request: Some(increase),
            request_id: String::new(),
        };
        let marketing = checkup.service("marketing").await;
        let made = marketing.hospital().create_capacity_request(request).await.expect("a request");
        let increase = made.into_inner().name;
        Self { hospital, slot, screening, increase, date: in_days(Desk::ZONE, 30) }
    }

    /// A valid value of a field that a valid request needs; `None` for every other field.
    fn value(&self, field: &FieldDescriptor) -> Option<Value> {
        let text = |text: &str| Some(Value::String(text.to_owned()));
        match (field.parent_message().name(), field.name()) {
            ("Hospital", "name") => return text(&self.hospital),
            ("Hospital", "display_name") => return text("Han River"),
            ("Hospital", "time_zone") => return text(Desk::ZONE),
            ("Screening", "name") => return text(&self.screening),
            ("SetSlotCapacityRequest", "etag") => return text("\"1\""),
            ("WatchAvailabilityRequest", "hospitals") => {
                return Some(Value::List(vec![Value::String(self.hospital.clone())]));
            }
            (_, "claim_id") => return text("01890a5d-ac96-774b-bcce-b302099a8057.1"),
            (_, "capacity" | "additional_capacity") => return Some(Value::I32(1)),
            ("Slot", "date") | (_, "start_date") => return Some(Value::Message(day(field, self.date))),
            (_, "end_date") => return Some(Value::Message(day(field, end_of(self.date)))),
            ("DateRange", "repeat") => {
                let Kind::Message(of) = field.kind() else { return None };
                return Some(Value::Message(base(&of, self)));
            }
            (_, "initial_slots" | "requests" | "calls" | "ranges") => {
                let Kind::Message(of) = field.kind() else { return None };
                return Some(Value::List(vec![Value::Message(base(&of, self))]));
            }
            _ => {}
        }
        if !says(field, "REQUIRED") {
            return None;
        }
        match field.kind() {
            Kind::Message(of) => Some(Value::Message(base(&of, self))),
            _ => text(self.name(field)?),
        }
    }

    /// The name of what a field refers to.
    fn name(&self, field: &FieldDescriptor) -> Option<&str> {
        let reference = option(field, "google.api.resource_reference")?;
        let of = |key: &str| reference.get_field_by_name(key).and_then(|kind| kind.as_str().map(str::to_owned));
        if of("child_type").is_some_and(|kind| !kind.is_empty()) {
            return Some(&self.hospital);
        }
        match of("type")?.strip_prefix("checkup.example/")? {
            "Hospital" => Some(&self.hospital),
            "Slot" => Some(&self.slot),
            "CapacityRequest" => Some(&self.increase),
            "Screening" => Some(&self.screening),
            "Reservation" => Some("reservations/01890a5d-ac96-774b-bcce-b302099a8057"),
            "Customer" => Some("customers/kim"),
            "MyPage" => Some("customers/kim/myPage"),
            other => panic!("no {other} in the scene"),
        }
    }
}

/// A request that breaks no rule.
pub(super) fn base(of: &MessageDescriptor, scene: &Scene) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if let Some(value) = scene.value(&field) {
            message.set_field(&field, value);
        }
    }
    message
}

/// A date as the message of a field.
pub(super) fn day(field: &FieldDescriptor, date: civil::Date) -> DynamicMessage {
    let Kind::Message(of) = field.kind() else { panic!("{} is no date", field.full_name()) };
    let mut message = DynamicMessage::new(of);
    let parts = [("year", i32::from(date.year())), ("month", date.month().into()), ("day", date.day().into())];
    for (name, number) in parts {
        message.set_field_by_name(name, Value::I32(number));
    }
    message
}

/// Whether a field has a behaviour of `google.api.field_behavior`.
fn says(field: &FieldDescriptor, behavior: &str) -> bool {
    let extension = field.parent_pool().get_extension_by_name("google.api.field_behavior").expect("the option");
    let Kind::Enum(of) = extension.kind() else { panic!("field_behavior is an enum") };
    let number = of.get_value_by_name(behavior).expect("a known behavior").number();
    let options = field.options();
    let said = options.get_extension(&extension);
    said.as_list().is_some_and(|list| list.iter().any(|value| value.as_enum_number() == Some(number)))
}

/// A field of a request, or of a message in it. Of a list it is the first element's.
#[derive(Clone)]
pub(super) struct Target {
    above: Vec<FieldDescriptor>,
    pub(super) field: FieldDescriptor,
}

impl Target {
    /// The path as a refusal names it.
    pub(super) fn path(&self) -> String {
        let above = self.above.iter().map(|field| {
            let index = if field.is_list() { "[0]" } else { "" };
            format!("{}{index}.", field.name())
        });
        above.chain([self.field.name().to_owned()]).collect()
    }

    /// Whether a rule of this field itself is looked at.
    pub(super) fn has_rules(&self) -> bool {
        let ignored = self.above.iter().any(is_ignored);
        let rules = rules(&self.field);
        let stated = rules.fields().any(|(rule, _)| rule.name() != "ignore");
        stated && !ignored && !is_ignored(&self.field)
    }

    /// The message in a request that has the field.
    fn within<'a>(&self, request: &'a mut DynamicMessage) -> &'a mut DynamicMessage {
        self.above.iter().fold(request, |message, field| match message.get_field_mut(field) {
            Value::Message(inner) => inner,
            Value::List(list) => list.first_mut().and_then(Value::as_message_mut).expect("a first element"),
            other => panic!("{} is {other:?}", field.full_name()),
        })
    }

    /// Sets the field, or clears it.
    pub(super) fn set(&self, request: &mut DynamicMessage, value: Option<Value>) {
        let within = self.within(request);
        match value {
            Some(value) => within.set_field(&self.field, value),
            None => within.clear_field(&self.field),
        }
    }

    /// What the field has in a request.
    pub(super) fn get(&self, request: &DynamicMessage) -> Value {
        self.within(&mut request.clone()).get_field(&self.field).into_owned()
    }
}

/// The rules of a field; empty if it has none.
pub(super) fn rules(field: &FieldDescriptor) -> DynamicMessage {
    option(field, "buf.validate.field").unwrap_or_else(|| {
        let of = field.parent_pool().get_message_by_name("buf.validate.FieldRules").expect("the rules are known");
        DynamicMessage::new(of)
    })
}

/// Whether the rules of a field and of all that is in it are switched off.
fn is_ignored(field: &FieldDescriptor) -> bool {
    const IGNORE_ALWAYS: i32 = 3;
    rules(field).get_field_by_name("ignore").and_then(|value| value.as_enum_number()) == Some(IGNORE_ALWAYS)
}

/// Every field of a request and of the contract's messages in it, but for flags, which have no wrong value.
pub(super) fn targets(of: &MessageDescriptor) -> Vec<Target> {
    fn add(found: &mut Vec<Target>, above: &[FieldDescriptor], of: &MessageDescriptor) {
        for field in of.fields().filter(|field| field.kind() != Kind::Bool) {
            found.push(Target { above: above.to_vec(), field: field.clone() });
            if let Kind::Message(inner) = field.kind()
                && inner.full_name().starts_with("checkup.")
            {
                add(found, &[above, std::slice::from_ref(&field)].concat(), &inner);
            }
        }
    }
    let mut found = Vec::new();
    add(&mut found, &[], of);
    found
}

/// The paths that CEL rules of a request name by their ids. No rule is in a message below a request.
pub(super) fn cel_paths(of: &MessageDescriptor) -> Vec<String> {
    let below = targets(of).into_iter().filter_map(|target| target.field.kind().as_message().cloned());
    for message in below {
        assert!(expressions(&message).is_empty(), "teach this test the CEL rules of {}", message.full_name());
    }
    expressions(of).into_iter().map(|(id, _)| id).collect()
}

/// The end of a range that begins with this date.
fn end_of(date: civil::Date) -> civil::Date {
    date.saturating_add(jiff::Span::new().days(9))
}

/// Sets the date of a slot, or of the slot in a request for one, so that a list has no date twice. A range of dates
/// begins with the date, and is as long as before.
pub(super) fn on(message: &mut DynamicMessage, date: civil::Date) {
    let descriptor = message.descriptor();
    for (name, date) in [("date", date), ("start_date", date), ("end_date", end_of(date))] {
        if let Some(field) = descriptor.get_field_by_name(name) {
            message.set_field(&field, Value::Message(day(&field, date)));
        }
    }
    let inner = ["slot", "repeat"].into_iter().filter_map(|name| descriptor.get_field_by_name(name));
    for field in inner {
        if message.has_field(&field)
            && let Value::Message(inner) = message.get_field_mut(&field)
        {
            on(inner, date);
        }
    }
}
