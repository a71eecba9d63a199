//! The keys whose tokens a process accepts: its own key and the configured ones. And the tokens that its services use
//! when they call each other.

use std::path::{Path, PathBuf};

use runtime::identity::{IdentityError, Signer, TokenSource, Verifier};
use serde_json::Value;

use crate::config::IdentityOptions;
use crate::exit::{Failure, chain};
use crate::service::Service;

/// Reads the signing key of a directory, or creates it.
///
/// # Errors
/// Fails if the key cannot be used.
pub fn signer(dir: &Path) -> Result<Signer, Failure> {
    Signer::load_or_create(dir).map_err(|error| {
        let why = chain(&error);
        Failure::failed(match error {
            // the error itself says what to do
            IdentityError::Exposed { .. } | IdentityError::TooLong { .. } => why,
            IdentityError::File { .. } => format!("{why}; choose another directory with --data-dir"),
            IdentityError::Key(_) => {
                let path = dir.join(Signer::FILE);
                format!("{why}: restore {} or remove it, and every token made so far is worthless", path.display())
            }
        })
    })
}

/// The tokens that services identify themselves with when they call each other.
#[derive(Debug, Clone)]
pub enum OwnTokens {
    /// Tokens signed with this key.
    Made(Signer),
    /// The token in this file, made elsewhere.
    File(PathBuf),
    /// No tokens: the services call nobody, or the mesh authenticates them.
    None,
}

impl OwnTokens {
    /// The tokens that the configuration names, for services that do not share a data directory.
    ///
    /// # Errors
    /// Fails if the key cannot be used.
    pub fn configured(options: &IdentityOptions) -> Result<Self, Failure> {
        if !options.key_dir.as_os_str().is_empty() {
            return signer(&options.key_dir).map(Self::Made);
        }
        let none = options.token_file.as_os_str().is_empty();
        Ok(if none { Self::None } else { Self::File(options.token_file.clone()) })
    }

    /// The source of tokens for one service.
    #[must_use]
    pub fn of(&self, service: Service) -> TokenSource {
        match self {
            Self::Made(signer) => TokenSource::minted(signer.clone(), service.name()),
            Self::File(path) => TokenSource::file(path.clone()),
            Self::None => TokenSource::anonymous(),
        }
    }
}

/// A verifier for the own key, if there is one, and the configured keys.
///
/// # Errors
/// Fails if the configured document cannot be used, or if there is no key at all.
pub fn verifier(tokens: &OwnTokens, options: &IdentityOptions) -> Result<Verifier, Failure> {
    let own = match tokens {
        OwnTokens::Made(signer) => Some(signer.jwks()),
        OwnTokens::File(_) | OwnTokens::None => None,
    };
    let document = if options.jwks_file.as_os_str().is_empty() {
        own.ok_or_else(|| Failure::usage("no token would be accepted: set identity.jwks_file or identity.key_dir"))?
    } else {
        let path = options.jwks_file.display();
        let text = std::fs::read_to_string(&options.jwks_file)
            .map_err(|error| Failure::usage(format!("cannot read identity.jwks_file {path}: {}", chain(&error))))?;
        let unusable = || Failure::usage(format!("identity.jwks_file {path} holds no Ed25519 or P-256 key"));
        // checked by itself, because the own key would hide that the document has none
        Verifier::from_jwks(&text).map_err(|_| unusable())?;
        match own {
            Some(own) => joined(&own, &text).ok_or_else(unusable)?,
            None => text,
        }
    };
    Verifier::from_jwks(&document).map_err(|error| Failure::failed(chain(&error)))
}

/// One document with the keys of both.
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

    fn nothing() -> IdentityOptions {
        IdentityOptions { jwks_file: PathBuf::new(), key_dir: PathBuf::new(), token_file: PathBuf::new() }
    }

    #[test]
    fn tokens_of_a_configured_issuer_are_accepted_besides_our_own() {
        let dir = std::env::temp_dir().join(format!("checkup-jwks-{}", runtime::entropy::uuid_v4()));
        let own = Signer::load_or_create(&dir.join("own")).unwrap();
        let other = Signer::load_or_create(&dir.join("other")).unwrap();
        let options = IdentityOptions { jwks_file: dir.join("jwks.json"), ..nothing() };
        std::fs::write(&options.jwks_file, other.jwks()).unwrap();
        let token =
            |signer: &Signer| signer.sign(&Claims::new(Role::Customer, "kim", None, Duration::from_secs(60))).unwrap();

        let made = OwnTokens::Made(own.clone());
        let both = verifier(&made, &options).unwrap();
        assert!(both.verify(&token(&own)).is_ok() && both.verify(&token(&other)).is_ok());
        let only_own = verifier(&made, &nothing()).unwrap();
        assert!(only_own.verify(&token(&own)).is_ok() && only_own.verify(&token(&other)).is_err());
        let only_other = verifier(&OwnTokens::None, &options).unwrap();
        assert!(only_other.verify(&token(&own)).is_err() && only_other.verify(&token(&other)).is_ok());
        assert!(verifier(&OwnTokens::None, &nothing()).is_err());
        std::fs::write(&options.jwks_file, r#"{"keys":[]}"#).unwrap();
        assert!(verifier(&made, &options).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
