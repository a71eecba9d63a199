//! Who calls: signing tokens, verifying them, and presenting our own.
//!
//! It decides that a token is genuine and whose it is. What its owner may do is decided where data is fetched
//! ([`domain::access::Caller`]).

mod claims;
mod signer;
mod source;
mod verifier;

pub use claims::{Claims, Hospitals, ISSUER, Role};
pub use signer::{IdentityError, Signer};
pub use source::TokenSource;
pub use verifier::Verifier;
