//! What is wrong with a request, field by field, so that a caller fixes everything at once.

use crate::{Fault, Reason, Violation};

/// Collects violations while a request is decoded.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Starts without violations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a violation. Callers add them in the order of the fields.
    pub fn add(&mut self, field: impl Into<String>, reason: Reason, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), reason, description: description.into() });
    }

    /// Parses a required name. If it does not parse, adds a violation with the parser's error, which says what was
    /// expected, and returns `None`: the refusal comes when all fields have been looked at.
    pub fn name<T, E: Into<String>>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(name) => Some(name),
            Err(expected) => {
                self.add(field, Reason::FieldInvalid, expected);
                None
            }
        }
    }

    /// Whether no violation was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `Ok` without violations; otherwise one fault that names every field and carries the first one's reason.
    ///
    /// # Errors
    /// The fault that refuses the request.
    pub fn finish(self) -> Result<(), Fault> {
        match self.0.first() {
            None => Ok(()),
            Some(first) => {
                let mut message = format!("{}: {}", first.field, first.description);
                if self.0.len() > 1 {
                    message = format!("{message} (and {} more)", self.0.len() - 1);
                }
                Err(Fault::new(first.reason, message).with("field", &first.field).violating(self.0))
            }
        }
    }

    /// Ends the decoding of a request. `decoded` must be `Some` exactly when no violation was added.
    ///
    /// # Errors
    /// The fault that refuses the request, or an internal fault if a part is missing although no violation was added.
    pub fn finish_with<T>(self, decoded: Option<T>) -> Result<T, Fault> {
        self.finish()?;
        decoded.ok_or_else(|| Fault::internal("a decoder dropped a field without naming a violation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_or_its_pattern_is_named() {
        let parse = |text: &str| text.parse::<u8>().map_err(|_| "must be a number");
        let mut violations = Violations::new();
        assert_eq!(violations.name("one", "1", parse), Some(1));
        assert!(violations.is_empty());
        assert_eq!(violations.name("other", "x", parse), None);
        let refused = violations.finish().unwrap_err();
        let expected =
            Violation { field: "other".into(), reason: Reason::FieldInvalid, description: "must be a number".into() };
        assert_eq!(refused.violations(), [expected]);
    }

    #[test]
    fn violations_name_every_field_and_lead_with_the_first() {
        let mut violations = Violations::new();
        violations.add("slot.date", Reason::DateInvalid, "31 February does not exist");
        violations.add("slot.capacity", Reason::FieldInvalid, "must be 0..100000");
        let fault = violations.finish().expect_err("two violations");
        assert_eq!(fault.reason(), Reason::DateInvalid);
        assert_eq!(fault.violations().len(), 2);
        assert_eq!(fault.metadata()["field"], "slot.date");
    }
}
