//! Whose tokens a process accepts, those of its own key and those of the issuers its configuration names; and what its services
//! show when they call others.

use std::path::{Path, PathBuf};

use runtime::identity::{IdentityError, Signer, TokenSource, Verifier};
use serde_json::Value;

use crate::config::IdentityOptions;
use crate::exit::{Failure, chain};
use crate::service::Service;

/// The key of a data directory, made where there is none.
///
/// # Errors
/// Where it cannot be used.
pub fn signer(dir: &Path) -> Result<Signer, Failure> {
    Signer::load_or_create(dir).map_err(|error| {
        let why = chain(&error);
        Failure::failed(match error {
            // it says itself what to do
            IdentityError::Exposed { .. } | IdentityError::TooLong { .. } => why,
            IdentityError::File { .. } => format!("{why}; choose another directory with --data-dir"),
            IdentityError::Key(_) => {
                let path = dir.join(Signer::FILE);
                format!("{why}: restore {} or remove it, and every token made so far is worthless", path.display())
            }
        })
    })
}

/// What services show when they call others.
#[derive(Debug, Clone)]
pub enum OwnTokens {
    /// Tokens made with this key.
    Made(Signer),
    /// The token in this file.
    File(PathBuf),
    /// Nothing: they call nobody, or the mesh answers for them.
    None,
}

impl OwnTokens {
    /// Those that the configuration names, for services that do not share a data directory.
    ///
    /// # Errors
    /// Where the key cannot be used.
    pub fn configured(options: &IdentityOptions) -> Result<Self, Failure> {
        if !options.key_dir.as_os_str().is_empty() {
            return signer(&options.key_dir).map(Self::Made);
        }
        let none = options.token_file.as_os_str().is_empty();
        Ok(if none { Self::None } else { Self::File(options.token_file.clone()) })
    }

    /// The tokens of one service.
    #[must_use]
    pub fn of(&self, service: Service) -> TokenSource {
        match self {
            Self::Made(signer) => TokenSource::minted(signer.clone(), service.name()),
            Self::File(path) => TokenSource::file(path.clone()),
            Self::None => TokenSource::anonymous(),
        }
    }
}

/// A verifier that knows the own key, where there is one, and the configured ones.
///
/// # Errors
/// Where the configured document cannot be used, or nobody's tokens would be accepted.
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
        // on its own, so that the own key does not hide that there is none
        Verifier::from_jwks(&text).map_err(|_| unusable())?;
        match own {
            Some(own) => joined(&own, &text).ok_or_else(unusable)?,
            None => text,
        }
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
