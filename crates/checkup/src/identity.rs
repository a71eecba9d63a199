//! Whose tokens a process accepts: those of its own key, and those of the issuers its configuration names.

use std::path::Path;

use runtime::identity::{IdentityError, Signer, Verifier};
use serde_json::Value;

use crate::config::IdentityOptions;
use crate::exit::{Failure, chain};

/// The key of a data directory, made where there is none.
///
/// # Errors
/// Where it cannot be used.
pub fn signer(dir: &Path) -> Result<Signer, Failure> {
    Signer::load_or_create(dir).map_err(|error| {
        let why = chain(&error);
        Failure::failed(match error {
            // it says itself what to do
            IdentityError::Exposed { .. } => why,
            IdentityError::File { .. } => format!("{why}; choose another directory with --data-dir"),
            IdentityError::Key(_) => {
                let path = dir.join(Signer::FILE);
                format!("{why}: restore {} or remove it, and every token made so far is worthless", path.display())
            }
        })
    })
}

/// A verifier that knows the directory's own key and the configured ones.
///
/// # Errors
/// Where the configured document cannot be used.
pub fn verifier(signer: &Signer, options: &IdentityOptions) -> Result<Verifier, Failure> {
    let own = signer.jwks();
    let document = if options.jwks_file.as_os_str().is_empty() {
        own
    } else {
        let path = options.jwks_file.display();
        let text = std::fs::read_to_string(&options.jwks_file)
            .map_err(|error| Failure::usage(format!("cannot read identity.jwks_file {path}: {}", chain(&error))))?;
        let unusable = || Failure::usage(format!("identity.jwks_file {path} holds no Ed25519 or P-256 key"));
        // on its own, so that the directory's key does not hide that there is none
        Verifier::from_jwks(&text).map_err(|_| unusable())?;
        joined(&own, &text).ok_or_else(unusable)?
    };
    Verifier::from_jwks(&document).map_err(|error| Failure::failed(chain(&error)))
}

/// The keys of two documents in one.
fn joined(own: &str, other: &str) -> Option<String> {
    let mut document: Value = serde_json::from_str(own).ok()?;
    let mut other: Value = serde_json::from_str(other).ok()?;
    let others = other.get_mut("keys")?.as_array_mut()?;
    document.get_mut("keys")?.as_array_mut()?.append(others);
    Some(document.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::identity::{Claims, Role};

    use super::*;

    #[test]
    fn tokens_of_a_configured_issuer_are_accepted_besides_our_own() {
        let dir = std::env::temp_dir().join(format!("checkup-jwks-{}", runtime::entropy::uuid_v4()));
        let own = Signer::load_or_create(&dir.join("own")).unwrap();
        let other = Signer::load_or_create(&dir.join("other")).unwrap();
        let options = IdentityOptions { jwks_file: dir.join("jwks.json") };
        std::fs::write(&options.jwks_file, other.jwks()).unwrap();
        let token =
            |signer: &Signer| signer.sign(&Claims::new(Role::Customer, "kim", None, Duration::from_secs(60))).unwrap();

        let both = verifier(&own, &options).unwrap();
        assert!(both.verify(&token(&own)).is_ok() && both.verify(&token(&other)).is_ok());
        let only_own = verifier(&own, &IdentityOptions { jwks_file: Default::default() }).unwrap();
        assert!(only_own.verify(&token(&own)).is_ok() && only_own.verify(&token(&other)).is_err());
        std::fs::write(&options.jwks_file, r#"{"keys":[]}"#).unwrap();
        assert!(verifier(&own, &options).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
