//! Verifies tokens against the public keys of their issuer.
//!
//! The library checks the signature and the algorithm; this module checks the claims, against the clock that its caller
//! gives. Only two algorithms are accepted, both with public keys. So neither `none` nor an HMAC made with a public key
//! can pass.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use domain::access::Caller;
use fault::{Fault, Reason};
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{Claims, ISSUER, IdentityError, MAX_TOKEN_BYTES};
use crate::clock::Clock;
use crate::lifecycle::lock;

/// How far the issuer's clock and this one may differ, in seconds.
const LEEWAY: i64 = 5;

/// Tokens per generation of the cache, which has two.
const CACHED_TOKENS: usize = 4096;

/// How many keys are tried at most, so that a large key set cannot make a refusal expensive.
const MAX_KEYS: usize = 16;

/// Verifies tokens and returns their callers. A cheap handle.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    keys: Vec<Key>,
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug, Clone)]
struct Verified {
    caller: Caller,
    not_before: i64,
    expires: i64,
}

/// A cache of two generations. When the young one is full, it becomes the old one, and tokens that were not used
/// meanwhile are forgotten. The keys are whole tokens, because a digest at every call would cost too much. So nothing
/// here may be printed.
#[derive(Default)]
struct Cache {
    young: HashMap<Box<str>, Verified>,
    old: HashMap<Box<str>, Verified>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("young", &self.young.len()).field("old", &self.old.len()).finish()
    }
}

impl Cache {
    fn get(&mut self, token: &str) -> Option<Verified> {
        if let Some(verified) = self.young.get(token) {
            return Some(verified.clone());
        }
        let (token, verified) = self.old.remove_entry(token)?;
        self.put(token, verified.clone());
        Some(verified)
    }

    fn put(&mut self, token: Box<str>, verified: Verified) {
        if self.young.len() >= CACHED_TOKENS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, verified);
    }
}

impl Verifier {
    /// A verifier with the keys of this JWKS document. Keys of other kinds than Ed25519 and P-256 are ignored.
    ///
    /// # Errors
    /// [`IdentityError::Key`] if the text is no such document or has no usable key.
    pub fn from_jwks(document: &str) -> Result<Self, IdentityError> {
        let unusable = |error: String| IdentityError::Key(error);
        let set: JwkSet = serde_json::from_str(document).map_err(|error| unusable(error.to_string()))?;
        let keys: Vec<Key> = set.keys.iter().filter_map(usable).take(MAX_KEYS).collect();
        if keys.is_empty() {
            return Err(unusable("the key set has no Ed25519 or P-256 key".to_owned()));
        }
        Ok(Self(Arc::new(Parts { keys, cache: Mutex::default() })))
    }

    /// The caller that the token describes, by the machine's clock.
    ///
    /// # Errors
    /// CREDENTIALS_INVALID if the token is not valid.
    pub fn verify(&self, token: &str) -> Result<Caller, Fault> {
        self.verify_at(token, Clock::system().now())
    }

    /// The caller that the token describes at `now`. A token seen before is not verified again, but it still expires.
    ///
    /// # Errors
    /// CREDENTIALS_INVALID if the token is not valid at `now`.
    pub fn verify_at(&self, token: &str, now: Timestamp) -> Result<Caller, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            let bytes = token.len();
            return Err(invalid(&format!("the token has {bytes} bytes; at most {MAX_TOKEN_BYTES} are accepted")));
        }
        let cached = lock(&self.0.cache).get(token);
        let verified = match cached {
            Some(verified) => verified,
            None => {
                let verified = self.decode(token)?;
                lock(&self.0.cache).put(token.into(), verified.clone());
                verified
            }
        };
        let now = now.as_second();
        if now >= verified.expires.saturating_add(LEEWAY) {
            return Err(invalid("the token has expired"));
        }
        if now.saturating_add(LEEWAY) < verified.not_before {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(verified.caller)
    }

    fn decode(&self, token: &str) -> Result<Verified, Fault> {
        let claims = self.claims(token)?;
        if claims.iss != ISSUER {
            return Err(invalid("the token was issued by somebody else than checkup"));
        }
        if !claims.aud.is_ours() {
            return Err(invalid("the token is meant for another audience than checkup"));
        }
        let caller = claims.caller().map_err(|why| invalid(&why))?;
        Ok(Verified { caller, not_before: claims.nbf.unwrap_or(i64::MIN), expires: claims.exp })
    }

    fn claims(&self, token: &str) -> Result<Claims, Fault> {
        // An unknown algorithm, such as `none`, fails here because the library does not know its name.
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("the token is not a signed JWT"))?;
        if header.crit.is_some() {
            return Err(invalid(
                "the token's header has crit: it asks to be understood in a way that this service does not know",
            ));
        }
        if !matches!(header.alg, Algorithm::EdDSA | Algorithm::ES256) {
            return Err(invalid("the token is signed with another algorithm than EdDSA and ES256"));
        }
        let named = |key: &&Key| match (&header.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let candidates = self.0.keys.iter().filter(|key| key.algorithm == header.alg).filter(named);
        for key in candidates {
            let mut validation = Validation::new(key.algorithm);
            // The claims are checked above, by the caller's clock.
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
            validation.validate_nbf = false;
            validation.validate_aud = false;
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => match error.kind() {
                    ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
                        return Err(invalid(
                            "the token lacks one of the claims sub, role, iss, aud, exp, or has a malformed one",
                        ));
                    }
                    _ => continue,
                },
            }
        }
        Err(invalid("the signature of the token does not match a key of its issuer"))
    }
}

/// The key, if its type and length are accepted; the library does not check lengths. A key that its issuer uses for
/// encryption is ignored.
fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 && is_32_bytes(&pair.x) => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::EllipticCurve(point)
            if point.curve == EllipticCurve::P256 && is_32_bytes(&point.x) && is_32_bytes(&point.y) =>
        {
            Algorithm::ES256
        }
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
}

fn is_32_bytes(base64: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(base64).is_ok_and(|bytes| bytes.len() == 32)
}

fn invalid(why: &str) -> Fault {
    Fault::new(Reason::CredentialsInvalid, why)
}
