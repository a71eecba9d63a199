//! Small opaque texts for clients: etags and consistency tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::{Fault, Reason, Violations};
use uuid::Uuid;

use crate::ids::ScreeningId;

/// The etag of a resource at a version, which counts everything the etag covers.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// Compares the etag that a caller sent with the current one; an empty etag always matches.
///
/// # Errors
/// ETAG_MISMATCH, with the current etag, if they differ.
pub fn check_etag(sent: &str, version: i64) -> Result<(), Fault> {
    let current = etag(version);
    if sent.is_empty() || sent == current {
        Ok(())
    } else {
        let message = format!("the resource has changed: its etag is {current}; read it again, then decide");
        Err(Fault::new(Reason::EtagMismatch, message).with("currentEtag", current))
    }
}

/// A point in one screening's history that a read must not be older than.
///
/// It names the screening and its version, not a position in a log, so it means the same in every topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsistencyToken {
    /// The screening that was written.
    pub screening: ScreeningId,
    /// The smallest version that the read may answer.
    pub version: i64,
}

const TOKEN_FORM: u8 = 1;

impl ConsistencyToken {
    /// Writes the token for a client.
    #[must_use]
    pub fn encode(self) -> String {
        let mut bytes = vec![TOKEN_FORM];
        bytes.extend(self.screening.0.as_bytes());
        bytes.extend(self.version.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads an optional token; adds a violation if it is malformed.
    pub fn decode(violations: &mut Violations, field: &str, text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let parsed = Self::parse(text);
        if parsed.is_none() {
            violations.add(field, Reason::FieldInvalid, "must be the consistency_token of a screening");
        }
        parsed
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (form, rest) = bytes.split_first()?;
        let (uid, version) = rest.split_at_checked(16)?;
        let version = i64::from_be_bytes(version.try_into().ok()?);
        let screening = ScreeningId(Uuid::from_slice(uid).ok()?);
        (*form == TOKEN_FORM && version >= 1).then_some(Self { screening, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consistency_token_reads_back() {
        let token = ConsistencyToken { screening: ScreeningId(Uuid::from_u128(7)), version: 3 };
        let mut violations = Violations::new();
        assert_eq!(ConsistencyToken::decode(&mut violations, "t", &token.encode()), Some(token));
        assert!(violations.is_empty());
        assert_eq!(ConsistencyToken::decode(&mut violations, "t", "AAAA"), None);
        assert!(!violations.is_empty());
    }

    #[test]
    fn only_a_stale_etag_is_refused() {
        assert!(check_etag("", 4).is_ok());
        assert!(check_etag("\"4\"", 4).is_ok());
        assert_eq!(check_etag("\"3\"", 4).unwrap_err().reason(), Reason::EtagMismatch);
    }
}
