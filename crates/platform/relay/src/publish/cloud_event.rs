//! The context of a CloudEvent in the headers of a message, in binary mode: `ce-` and the attribute's name.
//!
//! A message is one frame, so the event of the context is the frame: its id is the frame's, the same however often the
//! frame is published, and its type is the fact that all its events report.

use domain::frame::Opened;
use store::{outbox, timestamp};

/// The headers of a row's message. An attribute that the frame does not have, or that no header can hold, is left out.
pub(super) fn headers(row: &outbox::Model) -> Vec<(&'static str, String)> {
    // Subjects of earlier versions end with the name of the aggregate.
    let tokens: Vec<&str> = row.subject.splitn(5, '.').collect();
    let [root, version, aggregate_type, fact, producer] = tokens[..] else { return Vec::new() };
    let mut headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", row.event_id.to_string()),
        ("ce-type", format!("{root}.{version}.{aggregate_type}.{fact}")),
        ("ce-source", format!("/checkup/{producer}")),
        ("ce-time", timestamp(row.occur_time).to_string()),
        ("ce-datacontenttype", "application/protobuf".to_owned()),
    ];
    headers.extend(aggregate(&row.payload).map(|aggregate| ("ce-subject", aggregate)));
    headers.retain(|(_, value)| is_plain(value));
    headers
}

/// The aggregate that all events of the frame are about; `None` if they are about several.
fn aggregate(payload: &[u8]) -> Option<String> {
    let mut events = Opened::new(payload).decode().ok()?.into_iter().map(|event| event.aggregate);
    let first = events.next()?;
    events.all(|other| other == first).then_some(first)
}

/// Whether a header can hold the text as it is.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'%')
}

#[cfg(test)]
mod tests {
    use contract::event::v1::event_envelope::Payload;
    use contract::event::v1::{EventEnvelope, ScreeningConfirmed};
    use domain::frame;
    use uuid::Uuid;

    use super::*;

    fn row(aggregates: &[&str]) -> outbox::Model {
        let event = |(number, aggregate): (u128, &&str)| EventEnvelope {
            event_id: Uuid::from_u128(number).to_string(),
            aggregate: (*aggregate).to_owned(),
            producer: "screening".to_owned(),
            payload: Some(Payload::ScreeningConfirmed(ScreeningConfirmed::default())),
            ..EventEnvelope::default()
        };
        let events: Vec<_> = (1..).zip(aggregates).map(event).collect();
        let frame = frame::frames(&events).expect("ids").remove(0);
        let (event_id, subject, payload) = (frame.id, frame.subject, frame.payload);
        outbox::Model { position: 1, event_id, subject, payload, occur_time: 1_500_000, stream_sequence: None }
    }

    #[test]
    fn the_event_of_the_context_is_the_frame() {
        let row = row(&["screenings/a", "screenings/b"]);
        let expected = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", row.event_id.to_string()),
            ("ce-type", "checkup.v1.screening.screening_confirmed".to_owned()),
            ("ce-source", "/checkup/screening".to_owned()),
            ("ce-time", "1970-01-01T00:00:01.5Z".to_owned()),
            ("ce-datacontenttype", "application/protobuf".to_owned()),
        ];
        assert_eq!(headers(&row), expected, "it is about two aggregates, so it names none");
    }

    #[test]
    fn a_frame_about_one_aggregate_names_it() {
        let subject = |aggregates: &[&str]| {
            headers(&row(aggregates)).into_iter().find(|(name, _)| *name == "ce-subject").map(|(_, value)| value)
        };
        assert_eq!(subject(&["screenings/a"]).as_deref(), Some("screenings/a"));
        assert_eq!(subject(&["screenings/a b"]), None, "no header holds a space as it is");
    }
}
