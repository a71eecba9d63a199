//! Identity: signing tokens, verifying them, and presenting this process's own.
//!
//! It decides whether a token is genuine and whom it describes. What its owner may do is decided where data is fetched
//! ([`domain::access::Caller`]).

/// The longest token that a verifier accepts and a signer makes, in bytes. A usual token has about 300. Only a list of
/// hospitals makes it long, and an admin of so many hospitals can be given all of them instead.
pub const MAX_TOKEN_BYTES: usize = 4096;

mod claims;
mod signer;
mod source;
mod verifier;

pub use claims::{Claims, Hospitals, ISSUER, Role};
pub use signer::{IdentityError, Signer};
pub use source::TokenSource;
pub use verifier::Verifier;
