//! Texts people write: counted in Unicode scalar values, without control characters.

use fault::{Reason, Violations};

/// Notes a violation unless `text` has `min..=max` characters and no control character.
pub fn check(violations: &mut Violations, field: &str, text: &str, min: usize, max: usize) {
    let length = text.chars().count();
    if length < min || length > max {
        let allowed = if min == 0 { format!("at most {max}") } else { format!("{min} to {max}") };
        violations.add(field, Reason::FieldInvalid, format!("must have {allowed} characters, has {length}"));
    } else if text.chars().any(char::is_control) {
        violations.add(field, Reason::FieldInvalid, "must not contain control characters");
    }
}

/// The longest name of a person or a hospital, in characters.
pub const NAME_MAX: usize = 100;
/// The longest reason, note or justification, in characters.
pub const REMARK_MAX: usize = 500;
/// The longest etag or filter or other machine-made text accepted, in characters.
pub const MACHINE_TEXT_MAX: usize = 2_000;
