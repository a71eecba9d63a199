//! Pages of a list: sizes, orders, and opaque keyset tokens bound to the list's arguments.
//!
//! A token carries the keys of the last row that was returned. So a deep page costs as much as the first one, and rows
//! that are added or removed meanwhile neither repeat nor hide others. A token is no secret: a forged one reads only
//! what its caller may read.
//!
//! A page is limited by bytes as well as by rows; [`Page::fill`] alone applies both limits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::{Reason, Violations};
use prost::Message;
use prost::encoding::encoded_len_varint;
use sha2::{Digest, Sha256};

use crate::text;

/// Rows per page if the caller names no size.
pub const DEFAULT_SIZE: u64 = 50;
/// The most rows per page.
pub const MAX_SIZE: u64 = 1_000;

/// The most bytes of one answer, rows and token together. It is a quarter of the 4 MiB that clients accept by default,
/// because gateways write the same rows as JSON, which takes two to four times as much. A page of [`MAX_SIZE`] rows
/// without long texts takes less than half of it and is never cut.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Bytes that are reserved for the token, whose keys are names, dates and numbers.
const TOKEN_BYTES: usize = 1024;
/// Bytes of the tag before each row: in every list the field of the rows has a number below 16.
const TAG_BYTES: usize = 1;

const CHECK_LENGTH: usize = 12;

/// One part of a row's position in an order.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// The value of a text column.
    Text(String),
    /// The value of an integer column.
    Int(i64),
    /// The value of a real column.
    Real(f64),
}

/// The type of one part of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The key of a text column.
    Text,
    /// The key of an integer column.
    Int,
    /// The key of a real column.
    Real,
}

/// A decoded request for a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// How many rows, 1 to [`MAX_SIZE`].
    pub size: u64,
    /// The keys of the last row that the caller has, in the columns of the order; `None` for the first page.
    pub after: Option<Vec<Key>>,
    binding: Vec<u8>,
}

/// Rows in the order of their list, each with its position, and whether more rows follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    rows: Vec<(Vec<Key>, T)>,
    more: bool,
}

impl<T> Rows<T> {
    /// Takes rows with the keys of each. `more` says whether further rows follow.
    #[must_use]
    pub fn new(rows: Vec<(Vec<Key>, T)>, more: bool) -> Self {
        Self { rows, more }
    }

    /// The page that follows these rows of `page`; `None` if they are the last.
    #[must_use]
    pub fn following(&self, page: &Page) -> Option<Page> {
        let last = self.rows.last().filter(|_| self.more);
        last.map(|(keys, _)| Page { after: Some(keys.clone()), ..page.clone() })
    }

    /// The rows without their positions.
    #[must_use]
    pub fn into_rows(self) -> Vec<T> {
        self.rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Iterates over the rows without their positions.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().map(|(_, row)| row)
    }

    /// Converts each row and keeps its position.
    #[must_use]
    pub fn map<U>(self, mut make: impl FnMut(T) -> U) -> Rows<U> {
        let rows = self.rows.into_iter().map(|(keys, row)| (keys, make(row))).collect();
        Rows { rows, more: self.more }
    }

    /// [`Rows::map`] with a conversion that may fail.
    ///
    /// # Errors
    /// The first failure of the conversion.
    pub fn try_map<U, E>(self, mut make: impl FnMut(T) -> Result<U, E>) -> Result<Rows<U>, E> {
        let rows = self.rows.into_iter().map(|(keys, row)| Ok((keys, make(row)?))).collect::<Result<_, E>>()?;
        Ok(Rows { rows, more: self.more })
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The field's name in the contract.
    pub field: &'static str,
    /// Whether the greatest value comes first.
    pub descending: bool,
}

impl Order {
    /// Reads `field`, `field asc` or `field desc`, with ASCII white space around each word; an empty text is `default`.
    /// Adds a violation for anything else.
    pub fn decode(violations: &mut Violations, text: &str, allowed: &[&'static str], default: Self) -> Self {
        let mut words = text.split_ascii_whitespace();
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
    /// Reads page_size and page_token. `binding` is everything that the token is bound to (list, filter, order, parent,
    /// the caller's scope); `shape` is the types of the order's columns.
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
        let mut page = Self::bound(size, binding);
        let description = "must be a next_page_token of this list with the same filter, order and parent";
        page.go_on(violations, ("page_token", description), page_token, shape);
        page
    }

    /// Reads the token of a stream, which is bound and opened as that of a list. A stream has no page_size.
    pub fn of_stream(violations: &mut Violations, resume_token: &str, binding: &[&str], shape: &[KeyKind]) -> Self {
        let mut page = Self::bound(DEFAULT_SIZE, binding);
        let description = "must be a resume_token of this method with the same other fields";
        page.go_on(violations, ("resume_token", description), resume_token, shape);
        page
    }

    /// The first page of the same list, with this size.
    #[must_use]
    pub fn first(&self, size: u64) -> Self {
        Self { size, after: None, binding: self.binding.clone() }
    }

    fn bound(size: u64, binding: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in binding {
            let part = text::nfc(part);
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self { size, after: None, binding: hash.finalize().to_vec() }
    }

    /// Begins after the position of a token, unless that is empty.
    fn go_on(&mut self, violations: &mut Violations, field: (&str, &str), token: &str, shape: &[KeyKind]) {
        if !token.is_empty() {
            self.after = self.open(token, shape);
            if self.after.is_none() {
                let (field, description) = field;
                violations.add(field, Reason::PageTokenInvalid, description);
            }
        }
    }

    /// Encodes as many rows as fit into one answer, and returns them with the token of the next page. The token is
    /// empty if no row is left. The first row always fits, because the length of its texts is limited.
    pub fn fill<T, M: Message>(&self, rows: Rows<T>, mut encode: impl FnMut(T) -> M) -> (Vec<M>, String) {
        let Rows { rows, mut more } = rows;
        let mut messages = Vec::with_capacity(rows.len());
        let (mut bytes, mut last) = (TOKEN_BYTES, None);
        for (keys, row) in rows {
            let message = encode(row);
            let length = message.encoded_len();
            bytes += TAG_BYTES + encoded_len_varint(length as u64) + length;
            if bytes > MAX_BYTES && last.is_some() {
                more = true;
                break;
            }
            messages.push(message);
            last = Some(keys);
        }
        let token = last.filter(|_| more).map(|keys| self.next_token(&keys));
        (messages, token.unwrap_or_default())
    }

    /// The token of the page that follows the row with these keys.
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
mod tests;
