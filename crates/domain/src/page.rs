//! Pages of a list: sizes, orders, and opaque keyset tokens bound to the list's arguments.
//!
//! A token carries the keys of the last row seen, so a deep page costs what the first costs and rows that come or go
//! meanwhile neither repeat nor hide others. It does not carry a secret: a forged token reads what its caller may read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::{Reason, Violations};
use sha2::{Digest, Sha256};

/// Rows a page has when the caller names no size.
pub const DEFAULT_SIZE: u64 = 50;
/// Rows a page has at most.
pub const MAX_SIZE: u64 = 1_000;

const CHECK_LENGTH: usize = 12;

/// One part of a row's position in an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// A text column.
    Text(String),
    /// An integer column.
    Int(i64),
    /// A real column.
    Real(f64),
}

/// What a part of a position must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A text column.
    Text,
    /// An integer column.
    Int,
    /// A real column.
    Real,
}

/// A decoded request for a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// How many rows, 1..=1000.
    pub size: u64,
    /// The keys of the last row the caller has, in the order's columns; none for the first page.
    pub after: Option<Vec<Key>>,
    binding: Vec<u8>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The field's name in the contract.
    pub field: &'static str,
    /// Greatest first.
    pub descending: bool,
}

impl Order {
    /// Reads `field` or `field desc` (or `field asc`); empty is the default.
    pub fn decode(violations: &mut Violations, text: &str, allowed: &[&'static str], default: Self) -> Self {
        let mut words = text.split_whitespace();
        let (field, direction, rest) = (words.next(), words.next(), words.next());
        let Some(field) = field else { return default };
        let known = allowed.iter().find(|name| **name == field);
        match (known, direction, rest) {
            (Some(field), None | Some("asc"), None) => Self { field, descending: false },
            (Some(field), Some("desc"), None) => Self { field, descending: true },
            _ => {
                let description = format!("must be one of {}, each optionally followed by desc", allowed.join(", "));
                violations.add("order_by", Reason::FieldInvalid, description);
                default
            }
        }
    }
}

impl Page {
    /// Reads page_size and page_token. `binding` is everything the token is bound to (the list, filter, order, parent, the
    /// caller's scope); `shape` the kinds of the order's columns.
    pub fn decode(
        violations: &mut Violations,
        page_size: i32,
        page_token: &str,
        binding: &[&str],
        shape: &[KeyKind],
    ) -> Self {
        let size = match u64::try_from(page_size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(MAX_SIZE),
            Err(_) => {
                violations.add("page_size", Reason::FieldInvalid, "must not be negative; 0 asks for 50");
                DEFAULT_SIZE
            }
        };
        let mut hash = Sha256::new();
        for part in binding {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut page = Self { size, after: None, binding: hash.finalize().to_vec() };
        if !page_token.is_empty() {
            page.after = page.open(page_token, shape);
            if page.after.is_none() {
                let description = "must be a next_page_token of this list with the same filter, order and parent";
                violations.add("page_token", Reason::PageTokenInvalid, description);
            }
        }
        page
    }

    /// The token of the page after the row with these keys.
    #[must_use]
    pub fn next_token(&self, last: &[Key]) -> String {
        let mut bytes = Vec::new();
        for key in last {
            match key {
                Key::Text(text) => {
                    bytes.push(b't');
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
                Key::Int(number) => {
                    bytes.push(b'i');
                    bytes.extend(number.to_be_bytes());
                }
                Key::Real(number) => {
                    bytes.push(b'r');
                    bytes.extend(number.to_be_bytes());
                }
            }
        }
        let mut token = self.check(&bytes);
        token.extend(bytes);
        URL_SAFE_NO_PAD.encode(token)
    }

    fn check(&self, keys: &[u8]) -> Vec<u8> {
        let digest = Sha256::new().chain_update(&self.binding).chain_update(keys).finalize();
        digest[..CHECK_LENGTH].to_vec()
    }

    fn open(&self, token: &str, shape: &[KeyKind]) -> Option<Vec<Key>> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (check, mut rest) = bytes.split_at_checked(CHECK_LENGTH)?;
        if check != self.check(rest) {
            return None;
        }
        let mut keys = Vec::with_capacity(shape.len());
        for kind in shape {
            let (tag, after_tag) = rest.split_first()?;
            let (key, after_key) = match (tag, kind) {
                (b't', KeyKind::Text) => {
                    let (length, text) = after_tag.split_at_checked(4)?;
                    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
                    let (text, after) = text.split_at_checked(length)?;
                    (Key::Text(String::from_utf8(text.to_vec()).ok()?), after)
                }
                (b'i', KeyKind::Int) => {
                    let (number, after) = after_tag.split_at_checked(8)?;
                    (Key::Int(i64::from_be_bytes(number.try_into().ok()?)), after)
                }
                (b'r', KeyKind::Real) => {
                    let (number, after) = after_tag.split_at_checked(8)?;
                    (Key::Real(f64::from_be_bytes(number.try_into().ok()?)), after)
                }
                _ => return None,
            };
            keys.push(key);
            rest = after_key;
        }
        rest.is_empty().then_some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &[KeyKind] = &[KeyKind::Int, KeyKind::Text];

    fn page(token: &str, binding: &[&str]) -> (Page, bool) {
        let mut violations = Violations::new();
        let page = Page::decode(&mut violations, 0, token, binding, SHAPE);
        (page, violations.is_empty())
    }

    #[test]
    fn a_token_continues_only_the_list_it_came_from() {
        let keys = vec![Key::Int(-3), Key::Text("screenings/1".into())];
        let (first, _) = page("", &["ListScreenings", "state=CONFIRMED"]);
        let token = first.next_token(&keys);
        let (second, fine) = page(&token, &["ListScreenings", "state=CONFIRMED"]);
        assert!(fine);
        assert_eq!(second.after, Some(keys));
        assert!(!page(&token, &["ListScreenings", "state=PENDING"]).1);
        assert!(!page(&token, &["ListScreeningsstate=", "CONFIRMED"]).1);
        assert!(!page(&token[1..], &["ListScreenings", "state=CONFIRMED"]).1);
        assert!(!page("%%%", &["ListScreenings"]).1);
    }

    #[test]
    fn sizes_are_coerced_or_refused() {
        let mut violations = Violations::new();
        assert_eq!(Page::decode(&mut violations, 0, "", &[], SHAPE).size, 50);
        assert_eq!(Page::decode(&mut violations, 7, "", &[], SHAPE).size, 7);
        assert_eq!(Page::decode(&mut violations, 100_000, "", &[], SHAPE).size, 1_000);
        assert!(violations.is_empty());
        Page::decode(&mut violations, -1, "", &[], SHAPE);
        assert!(!violations.is_empty());
    }
}
