//! Event frames: the events of one transaction that have the same subject are one row of the outbox and one message.
//!
//! A transaction of a busy service commits dozens of bookings. One row, one message and one inbox mark for all their
//! events cost a fraction of one for each. The form is `checkup.event.v1.EventFrame`. A message of an earlier version
//! is one envelope, and is read as a frame of one event.

use std::collections::HashMap;

use contract::event::v1::EventEnvelope;
use jiff::Timestamp;
use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, message, skip_field,
};
use uuid::Uuid;

use crate::civil::{decode_time, encode_time};
use crate::event::subject;
use crate::ids::Malformed;

/// The number of `EventFrame.events`. No field of an envelope has it, which tells the two apart.
const EVENTS: u32 = 16;
/// The number of `EventFrame.repeat_time`.
const REPEAT_TIME: u32 = 17;

/// How many bytes of events a frame holds at most, unless its first event is larger. A broker takes messages up to 1
/// MiB.
const MAX_FRAME_BYTES: usize = 128 * 1024;

/// Events of one transaction and one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The frame's id: see [`Opened::id`].
    pub id: Uuid,
    /// The subject of all its events.
    pub subject: String,
    /// When the newest of its events occurred; where they are repeated, when they were.
    pub occur_time: Timestamp,
    /// The encoded `EventFrame`.
    pub payload: Vec<u8>,
}

impl Frame {
    fn new(id: Uuid, subject: String) -> Self {
        Self { id: frame_id(id), subject, occur_time: Timestamp::MIN, payload: Vec::new() }
    }
}

/// An event that was published before, with the bytes that were published then. They may hold a fact or a field that
/// this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct Published<'a> {
    /// The event, as far as this version knows it.
    pub envelope: EventEnvelope,
    /// Its encoded envelope.
    pub bytes: &'a [u8],
    /// The subject to publish it under.
    pub subject: String,
}

/// An event on its way into a frame.
trait Content {
    fn envelope(&self) -> &EventEnvelope;
    fn subject(&self) -> String;
    fn encoded_len(&self) -> usize;
    /// Appends the event as a field of the frame.
    fn encode(&self, payload: &mut Vec<u8>);
}

impl Content for EventEnvelope {
    fn envelope(&self) -> &EventEnvelope {
        self
    }

    fn subject(&self) -> String {
        subject(self)
    }

    fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    fn encode(&self, payload: &mut Vec<u8>) {
        message::encode(EVENTS, self, payload);
    }
}

impl Content for Published<'_> {
    fn envelope(&self) -> &EventEnvelope {
        &self.envelope
    }

    fn subject(&self) -> String {
        self.subject.clone()
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn encode(&self, payload: &mut Vec<u8>) {
        encode_key(EVENTS, WireType::LengthDelimited, payload);
        encode_varint(self.bytes.len() as u64, payload);
        payload.extend_from_slice(self.bytes);
    }
}

/// The frames of a transaction's events. Two events of one aggregate are in the same frame, or the earlier one is in
/// the earlier frame.
///
/// # Errors
/// [`Malformed`] if an event_id is no UUID.
pub fn frames(envelopes: &[EventEnvelope]) -> Result<Vec<Frame>, Malformed> {
    gather(envelopes)
}

/// The frames that repeat events: see [`crate::retention`]. `now` becomes their `repeat_time`.
///
/// # Errors
/// [`Malformed`] if an event_id is no UUID.
pub fn repeated(events: &[Published<'_>], now: Timestamp) -> Result<Vec<Frame>, Malformed> {
    let mut frames = gather(events)?;
    for frame in &mut frames {
        frame.id = repeated_id(frame.id, now);
        frame.occur_time = now;
        message::encode(REPEAT_TIME, &encode_time(now), &mut frame.payload);
    }
    Ok(frames)
}

fn gather<C: Content>(events: &[C]) -> Result<Vec<Frame>, Malformed> {
    let mut frames: Vec<Frame> = Vec::new();
    // The frames before this one get no more events.
    let mut open = 0;
    // The frame of each aggregate's newest event.
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for event in events {
        let envelope = event.envelope();
        let id = Uuid::try_parse(&envelope.event_id)
            .map_err(|error| Malformed(format!("must have a UUID as its event_id: {error}")))?;
        let (aggregate, subject) = (envelope.aggregate.as_str(), event.subject());
        let room = |frame: &Frame| frame.payload.len() + event.encoded_len() <= MAX_FRAME_BYTES;
        let fits = |frame: &Frame| frame.subject == subject && room(frame);
        // The last one, because a full frame of this subject may be among them.
        let found = frames[open..].iter().rposition(fits).map(|index| index + open);
        let before = newest.get(aggregate).copied();
        let index = match found {
            Some(index) if before.is_none_or(|before| before <= index) => index,
            found => {
                if found.is_some() {
                    // A later frame has an event of this aggregate, so this event needs a new frame behind it.
                    open = frames.len();
                    newest.clear();
                }
                frames.push(Frame::new(id, subject));
                frames.len() - 1
            }
        };
        let occurred = envelope.occur_time.as_ref().and_then(decode_time).unwrap_or_default();
        frames[index].occur_time = frames[index].occur_time.max(occurred);
        event.encode(&mut frames[index].payload);
        newest.insert(aggregate, index);
    }
    Ok(frames)
}

/// The id of a frame whose first event has this id. It begins with the same time, and is the id of no event: events
/// have version 7.
#[must_use]
pub fn frame_id(first: Uuid) -> Uuid {
    const VERSION: u8 = 0x80;
    let mut bytes = first.into_bytes();
    bytes[6] = VERSION | (bytes[6] & 0x0f);
    Uuid::from_bytes(bytes)
}

/// The id of a frame that repeats events at this time, from the id that it would have otherwise: whoever remembers the
/// frames of before does not take it for one of them.
fn repeated_id(frame_id: Uuid, time: Timestamp) -> Uuid {
    let mut bytes = frame_id.into_bytes();
    bytes[..6].copy_from_slice(&time.as_millisecond().to_be_bytes()[2..]);
    Uuid::from_bytes(bytes)
}

/// A message, opened: the bytes of each of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The encoded envelopes, in order; at least one.
    pub events: Vec<&'a [u8]>,
    /// When the events were repeated; `None` where they are news.
    pub repeat_time: Option<Timestamp>,
    is_frame: bool,
}

impl<'a> Opened<'a> {
    /// Opens a message. Anything but a frame is taken for one envelope of an earlier version, also if it cannot be
    /// decoded.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        match fields(payload) {
            Some((events, repeat_time)) if !events.is_empty() => Self { events, repeat_time, is_frame: true },
            _ => Self { events: vec![payload], repeat_time: None, is_frame: false },
        }
    }

    /// The id under which the message is published and remembered: [`frame_id`] of the first event or, for an envelope
    /// of an earlier version, the event's own. The id of a frame that repeats events begins with the time at which it
    /// does. `None` if that id cannot be read.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        let first = EventEnvelope::decode(*self.events.first()?).ok()?;
        let id = Uuid::try_parse(&first.event_id).ok()?;
        Some(match self.repeat_time {
            Some(time) => repeated_id(frame_id(id), time),
            None if self.is_frame => frame_id(id),
            None => id,
        })
    }

    /// The decoded events.
    ///
    /// # Errors
    /// The error of the first event that cannot be decoded.
    pub fn decode(&self) -> Result<Vec<EventEnvelope>, prost::DecodeError> {
        self.events.iter().map(|event| EventEnvelope::decode(*event)).collect()
    }
}

/// The bytes of each field that holds an event, and the time at which the events were repeated; `None` if this is no
/// protobuf message.
fn fields(mut rest: &[u8]) -> Option<(Vec<&[u8]>, Option<Timestamp>)> {
    let (mut events, mut repeat_time) = (Vec::new(), None);
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if !matches!((number, wire_type), (EVENTS | REPEAT_TIME, WireType::LengthDelimited)) {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let (content, after) = rest.split_at_checked(length)?;
        if number == EVENTS {
            events.push(content);
        } else {
            repeat_time = decode_time(&prost_types::Timestamp::decode(content).ok()?);
        }
        rest = after;
    }
    Some((events, repeat_time))
}

#[cfg(test)]
mod tests;
