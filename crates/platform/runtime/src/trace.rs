//! W3C trace context, by which one booking can be followed through calls and events.
//!
//! It carries ids and exports nothing.

use crate::entropy;

/// The header, and the field of the event envelope, that carry a trace.
pub const TRACEPARENT: &str = "traceparent";

/// One span's position in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    /// The position that this one follows; `None` for the first of a trace, and for one that was read.
    parent: Option<[u8; 8]>,
    flags: u8,
}

/// Appends bytes as lower-case hexadecimal. Each call writes several ids, and formatting costs more than all else here.
fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}

/// Reads exactly `N` bytes of lower-case hexadecimal.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(lower_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

impl TraceContext {
    /// The start of a new trace, marked as sampled.
    #[must_use]
    pub fn generate() -> Self {
        Self { trace: entropy::bytes(), span: entropy::bytes(), parent: None, flags: 1 }
    }

    /// The start of a trace that nobody wants spans of: of work that no caller asked for.
    #[must_use]
    pub fn background() -> Self {
        Self { flags: 0, ..Self::generate() }
    }

    /// Reads a `traceparent`; `None` if it is malformed. Further fields of versions after `00` are ignored; ids of
    /// zeros are refused.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let [version] = unhex::<1>(parts.next()?)?;
        let trace = unhex::<16>(parts.next()?)?;
        let span = unhex::<8>(parts.next()?)?;
        let [flags] = unhex::<1>(parts.next()?)?;
        let surplus = parts.next().is_some();
        let valid = version != 0xff && !(version == 0 && surplus) && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, parent: None, flags })
    }

    /// The position that a `traceparent` names, for what an event of it causes. A new trace if the text is empty or
    /// malformed.
    #[must_use]
    pub fn parse_or_new(traceparent: &str) -> Self {
        Self::parse(traceparent).unwrap_or_else(Self::background)
    }

    /// A new position in the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: entropy::bytes(), parent: Some(self.span), ..*self }
    }

    /// Whether who began the trace wants its spans.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    pub(crate) fn trace_bytes(&self) -> [u8; 16] {
        self.trace
    }

    pub(crate) fn span_bytes(&self) -> [u8; 8] {
        self.span
    }

    pub(crate) fn parent_bytes(&self) -> Option<[u8; 8]> {
        self.parent
    }

    /// The value of the `traceparent` header.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity("00-".len() + 2 * (16 + 8 + 1) + "--".len());
        text.push_str("00-");
        push_hex(&mut text, &self.trace);
        text.push('-');
        push_hex(&mut text, &self.span);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }

    /// The id that all positions of the trace share, as logs write it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        let mut text = String::with_capacity(2 * 16);
        push_hex(&mut text, &self.trace);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_child_keeps_the_trace_and_moves_on() {
        let parent = TraceContext::parse(SAMPLE).unwrap();
        assert_eq!(parent.traceparent(), SAMPLE);
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.traceparent(), parent.traceparent());
        let read = TraceContext::parse(&child.traceparent()).unwrap();
        assert_eq!(read, TraceContext { parent: None, ..child });
        assert_eq!(child.parent_bytes(), Some(parent.span_bytes()));
    }

    #[test]
    fn malformed_parents_begin_a_new_trace() {
        let malformed = [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ];
        for text in malformed {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
        assert!(TraceContext::parse(&format!("01-{}-more", &SAMPLE[3..])).is_some());
        assert_ne!(TraceContext::parse_or_new("").trace_id(), TraceContext::generate().trace_id());
    }
}
