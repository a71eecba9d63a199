//! Who calls: signing tokens, verifying them, and presenting our own.
//!
//! It decides that a token is genuine and whose it is. What its owner may do is decided where data is fetched
//! ([`domain::access::Caller`]).

/// Longest token, in bytes: what a verifier looks at and what a signer makes. Ours have about 300; what makes one long is a list of
/// hospitals, and an admin of so many is better made one of all.
pub const MAX_TOKEN_BYTES: usize = 4096;

mod claims;
mod signer;
mod source;
mod verifier;

pub use claims::{Claims, Hospitals, ISSUER, Role};
pub use signer::{IdentityError, Signer};
pub use source::TokenSource;
pub use verifier::Verifier;
