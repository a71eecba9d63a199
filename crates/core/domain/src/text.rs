//! Texts that people read: NFC, counted in characters, visible, and on one line in one direction.
//!
//! A character is a Unicode scalar value of the NFC form; no rule counts bytes. Resource names, etags, tokens and codes
//! are for machines and are not normalised.

use std::borrow::Cow;

use fault::{Reason, Violations};
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint, VariationSelector, WhiteSpace};

/// The longest name of a person or a hospital, in characters.
pub const NAME_MAX: usize = 100;
/// The longest reason, note or justification, in characters.
pub const REMARK_MAX: usize = 500;
/// The longest etag, filter or other machine-made text that is accepted, in characters.
pub const MACHINE_TEXT_MAX: usize = 2_000;

/// Brings a text to NFC, the form in which texts are stored and compared. Texts that look the same become equal,
/// however the caller's keyboard composes Hangul or accents.
#[must_use]
pub fn nfc(text: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// Brings a text for people into its stored form, and adds a violation unless it then has `min..=max` visible
/// characters. An empty text is valid if `min` is 0; a text that only looks empty is not.
pub fn check(violations: &mut Violations, field: &str, text: &mut String, min: usize, max: usize) {
    if let Cow::Owned(composed) = nfc(text) {
        *text = composed;
    }
    let length = text.chars().count();
    if length < min || length > max {
        let allowed = if min == 0 { format!("at most {max}") } else { format!("{min} to {max}") };
        violations.add(field, Reason::FieldInvalid, format!("must have {allowed} characters, has {length}"));
    } else if let Some(description) = unreadable(text) {
        violations.add(field, Reason::FieldInvalid, description);
    }
}

/// Adds a violation unless a machine-made text, for example an etag, has at most [`MACHINE_TEXT_MAX`] characters and no
/// control character.
pub fn check_machine(violations: &mut Violations, field: &str, text: &str) {
    let length = text.chars().count();
    if length > MACHINE_TEXT_MAX {
        let description = format!("must have at most {MACHINE_TEXT_MAX} characters, has {length}");
        violations.add(field, Reason::FieldInvalid, description);
    } else if text.chars().any(char::is_control) {
        violations.add(field, Reason::FieldInvalid, "must not contain control characters");
    }
}

/// Why people could not read the text as it was meant; `None` if they can.
fn unreadable(text: &str) -> Option<String> {
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let code = u32::from(character);
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            return Some(format!("must not contain control characters or line breaks, has U+{code:04X}"));
        }
        if CodePointSetData::new::<BidiControl>().contains(character) {
            return Some(format!("must not contain characters that turn the line around, has U+{code:04X}"));
        }
        if !is_visible(character) && !is_blank(character) {
            let fits = match role(character) {
                Role::Joins => is_part(before) && is_part(characters.peek().copied()),
                Role::Varies => is_part(before),
                Role::Hides => false,
            };
            if !fits {
                return Some(format!("must not contain invisible characters, has U+{code:04X}"));
            }
        }
        before = Some(character);
    }
    let blank = !text.is_empty() && !text.chars().any(is_visible);
    blank.then(|| "must have at least one character that people can see".to_owned())
}

/// What an invisible character does to the characters beside it.
enum Role {
    /// It joins the characters before and after it, as in emoji of several parts, or separates them, as in Persian.
    Joins,
    /// It selects the form of the character before it, for example emoji, plain text or a region's flag.
    Varies,
    /// It has no visible effect.
    Hides,
}

fn role(character: char) -> Role {
    match character {
        '\u{200C}' | '\u{200D}' | '\u{34F}' => Role::Joins,
        '\u{E0020}'..='\u{E007F}' => Role::Varies,
        _ if CodePointSetData::new::<VariationSelector>().contains(character) => Role::Varies,
        _ => Role::Hides,
    }
}

/// Whether a character is visible, or modifies a visible one.
fn is_part(character: Option<char>) -> bool {
    character.is_some_and(|character| is_visible(character) || matches!(role(character), Role::Varies))
}

/// Whether a character is a space of some width. The blank pattern of Braille counts as a letter in Unicode but looks
/// like a space.
fn is_blank(character: char) -> bool {
    character == '\u{2800}' || CodePointSetData::new::<WhiteSpace>().contains(character)
}

/// Whether a character is visible. The fillers of Hangul are ignorable: they stand for letters that are missing.
fn is_visible(character: char) -> bool {
    !character.is_control()
        && !is_blank(character)
        && !matches!(character, '\u{FFF9}'..='\u{FFFB}')
        && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
}

#[cfg(test)]
mod tests;
