use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReleased, CapacityReserved, EventFrame, HospitalRegistered};
use proptest::prelude::*;

use super::*;
use crate::civil::encode_time;

fn envelope(number: u128, aggregate: &str, payload: Payload) -> EventEnvelope {
    let occurred = Timestamp::from_millisecond(i64::try_from(number).expect("small")).expect("a time");
    EventEnvelope {
        event_id: Uuid::from_u128(number | (7 << 76)).to_string(),
        aggregate: aggregate.to_owned(),
        occur_time: Some(encode_time(occurred)),
        producer: "hospital".to_owned(),
        payload: Some(payload),
        ..EventEnvelope::default()
    }
}

fn reserved(number: u128, aggregate: &str) -> EventEnvelope {
    envelope(number, aggregate, Payload::CapacityReserved(CapacityReserved::default()))
}

fn released(number: u128, aggregate: &str) -> EventEnvelope {
    envelope(number, aggregate, Payload::CapacityReleased(CapacityReleased::default()))
}

fn ids(frame: &Frame) -> Vec<String> {
    let events = Opened::new(&frame.payload).decode().expect("events");
    events.into_iter().map(|event| event.event_id).collect()
}

/// The event_ids of each frame of these events.
fn framed(events: &[EventEnvelope]) -> Vec<Vec<String>> {
    frames(events).expect("frames").iter().map(ids).collect()
}

fn of(events: &[&EventEnvelope]) -> Vec<String> {
    events.iter().map(|event| event.event_id.clone()).collect()
}

#[test]
fn events_of_one_subject_are_one_frame() {
    let [a, b, c, d] = [reserved(1, "a"), released(2, "b"), reserved(3, "c"), released(4, "d")];
    let all = [a.clone(), b.clone(), c.clone(), d.clone()];
    assert_eq!(framed(&all), [of(&[&a, &c]), of(&[&b, &d])]);
    let frames = frames(&all).expect("frames");
    assert_eq!(frames[0].subject, "checkup.v1.claim.capacity_reserved.hospital");
    assert_eq!(frames[1].subject, "checkup.v1.claim.capacity_released.hospital");
    assert_eq!(frames[0].occur_time.as_millisecond(), 3, "the newest");
}

#[test]
fn an_aggregate_keeps_the_order_of_its_events() {
    let (given, back, again) = (released(1, "a"), reserved(2, "a"), released(3, "a"));
    let (other, last) = (released(4, "b"), reserved(5, "b"));
    // `again` cannot join `given`, because `back` is between them. `other` joins `again`, which is still open.
    let all = [given.clone(), back.clone(), again.clone(), other.clone(), last.clone()];
    assert_eq!(framed(&all), [of(&[&given]), of(&[&back]), of(&[&again, &other]), of(&[&last])]);
    // Twice the same subject is no reason for another frame.
    assert_eq!(framed(&[given.clone(), other.clone(), again.clone()]), [of(&[&given, &other, &again])]);
}

#[test]
fn a_frame_has_a_limit_in_bytes_that_a_single_event_may_exceed() {
    let large = |number| {
        let registered = HospitalRegistered { display_name: "x".repeat(MAX_FRAME_BYTES / 3), ..Default::default() };
        envelope(number, "hospitals/a", Payload::HospitalRegistered(registered))
    };
    let all: Vec<_> = (1..=5).map(large).collect();
    let sizes: Vec<usize> = frames(&all).expect("frames").iter().map(|frame| frame.payload.len()).collect();
    assert!(sizes.iter().all(|size| *size <= MAX_FRAME_BYTES + 64), "{sizes:?}");
    assert_eq!(framed(&all).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    let registered = HospitalRegistered { display_name: "x".repeat(2 * MAX_FRAME_BYTES), ..Default::default() };
    let huge = envelope(9, "hospitals/b", Payload::HospitalRegistered(registered));
    assert_eq!(framed(&[huge.clone(), huge]).len(), 2);
}

#[test]
fn an_id_that_is_no_uuid_is_refused() {
    let event = EventEnvelope { event_id: "7".to_owned(), ..reserved(1, "a") };
    assert!(frames(&[event]).is_err());
}

#[test]
fn a_frame_is_read_as_the_contract_says() {
    let all = [reserved(1, "a"), reserved(2, "b")];
    let frames = frames(&all).expect("frames");
    let [frame] = &*frames else { panic!("{frames:?}") };
    assert_eq!(EventFrame::decode(frame.payload.as_slice()).expect("a frame").events, all);
    assert_eq!(frame.payload, EventFrame { events: all.to_vec(), repeat_time: None }.encode_to_vec());
    let opened = Opened::new(&frame.payload);
    assert_eq!(opened.decode().expect("events"), all);
    assert_eq!(opened.id(), Some(frame.id));
    assert_eq!(frame.id.get_version_num(), 8);
    assert_eq!(frame.id.to_string()[..14], all[0].event_id[..14]);
}

#[test]
fn an_envelope_of_an_earlier_version_is_one_event() {
    let event = reserved(1, "a");
    let payload = event.encode_to_vec();
    let opened = Opened::new(&payload);
    assert_eq!(opened.decode().expect("events"), std::slice::from_ref(&event));
    assert_eq!(opened.id().map(|id| id.to_string()), Some(event.event_id));
}

#[test]
fn fields_of_later_versions_are_skipped() {
    let event = reserved(1, "a");
    let mut payload = Vec::new();
    prost::encoding::string::encode(3, &"later".to_owned(), &mut payload);
    message::encode(EVENTS, &event, &mut payload);
    prost::encoding::uint64::encode(900, &7, &mut payload);
    assert_eq!(Opened::new(&payload).decode().expect("events"), [event]);
}

#[test]
fn a_broken_event_leaves_the_others_whole() {
    let (first, last) = (reserved(1, "a"), reserved(3, "c"));
    let mut payload = Vec::new();
    message::encode(EVENTS, &first, &mut payload);
    prost::encoding::bytes::encode(EVENTS, &vec![0xff_u8, 0xff], &mut payload);
    message::encode(EVENTS, &last, &mut payload);
    let opened = Opened::new(&payload);
    assert_eq!(opened.events.len(), 3);
    assert!(opened.decode().is_err());
    assert_eq!(EventEnvelope::decode(opened.events[2]).expect("an event"), last);
    assert!(opened.id().is_some());
}

proptest! {
    /// Any bytes can be opened, and a frame that was cut off is no frame.
    #[test]
    fn any_bytes_can_be_opened(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 1_usize..20) {
        prop_assert!(!Opened::new(&bytes).events.is_empty());
        let whole = &frames(&[reserved(1, "a"), reserved(2, "b")]).expect("frames")[0].payload;
        let part = &whole[..whole.len() - cut];
        prop_assert_eq!(Opened::new(part).events, [part]);
    }

    /// Whatever a transaction brings about, nothing is left out, and each aggregate's events keep their order.
    #[test]
    fn every_order_is_kept(kinds in proptest::collection::vec((0_usize..3, any::<bool>()), 0..40)) {
        let names = ["a", "b", "c"];
        let all: Vec<_> = (1..).zip(kinds).map(|(number, (name, take))| {
            if take { reserved(number, names[name]) } else { released(number, names[name]) }
        }).collect();
        let frames = frames(&all).expect("frames");
        let events: Vec<EventEnvelope> =
            frames.iter().flat_map(|frame| Opened::new(&frame.payload).decode().expect("events")).collect();
        prop_assert_eq!(events.len(), all.len());
        for name in names {
            let ids = |events: &[EventEnvelope]| -> Vec<String> {
                events.iter().filter(|event| event.aggregate == name).map(|event| event.event_id.clone()).collect()
            };
            prop_assert_eq!(ids(&events), ids(&all));
        }
        for frame in &frames {
            for event in Opened::new(&frame.payload).decode().expect("events") {
                prop_assert_eq!(&subject(&event), &frame.subject);
            }
        }
    }
}

#[test]
fn a_repeated_frame_has_the_old_bytes_and_another_id() {
    let fields = |envelope: &EventEnvelope| {
        let mut bytes = envelope.encode_to_vec();
        // a field and a fact of a newer version
        prost::encoding::string::encode(900, &"later".to_owned(), &mut bytes);
        bytes
    };
    let (known, other) = (reserved(1, "a"), reserved(2, "b"));
    let (known_bytes, other_bytes) = (fields(&known), other.encode_to_vec());
    let subject = "checkup.v1.claim.capacity_reserved.hospital";
    let unknown = EventEnvelope { payload: None, ..reserved(3, "c") };
    let unknown_bytes = fields(&unknown);
    let events = [
        Published { envelope: known.clone(), bytes: &known_bytes, subject: subject.into() },
        Published { envelope: other, bytes: &other_bytes, subject: subject.into() },
        Published { envelope: unknown, bytes: &unknown_bytes, subject: "checkup.v1.plan.made.hospital".into() },
    ];
    let now = Timestamp::from_millisecond(1_800_000_000_123).expect("a time");
    let frames = repeated(&events, now).expect("frames");
    let subjects: Vec<&str> = frames.iter().map(|frame| frame.subject.as_str()).collect();
    assert_eq!(subjects, [subject, "checkup.v1.plan.made.hospital"]);
    let opened = Opened::new(&frames[0].payload);
    assert_eq!(opened.events, [known_bytes.as_slice(), other_bytes.as_slice()]);
    assert_eq!((opened.repeat_time, opened.id()), (Some(now), Some(frames[0].id)));
    assert_eq!(frames[0].occur_time, now, "they are kept as long as new ones");

    let first = super::frames(&[known]).expect("frames");
    assert_ne!(first[0].id, frames[0].id);
    let later = repeated(&events, now + jiff::SignedDuration::from_millis(1)).expect("frames");
    assert_ne!(later[0].id, frames[0].id, "each repetition is remembered by itself");
    assert_ne!(frames[0].id, frames[1].id);
    let time = frames[0].id.into_bytes();
    assert_eq!(time[..6], now.as_millisecond().to_be_bytes()[2..], "like every id, it begins with its time");
    assert_eq!(frames[0].id.get_version_num(), 8);
}

#[test]
fn the_contract_reads_a_repeated_frame() {
    let event = reserved(1, "a");
    let bytes = event.encode_to_vec();
    let subject = "checkup.v1.claim.capacity_reserved.hospital";
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let frames = repeated(&[Published { envelope: event.clone(), bytes: &bytes, subject: subject.into() }], now)
        .expect("frames");
    let read = EventFrame::decode(frames[0].payload.as_slice()).expect("a frame");
    assert_eq!(read, EventFrame { events: vec![event], repeat_time: Some(encode_time(now)) });
}
