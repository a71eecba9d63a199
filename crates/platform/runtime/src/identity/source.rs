//! The token that a process presents when it calls other services.
//!
//! Getting the current token never waits. A token file is rotated by another program.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;

use super::{Claims, MAX_TOKEN_BYTES, Role, Signer};
use crate::lifecycle::lock;

/// How long a minted token is valid.
const TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
/// A minted token is replaced at half its life, so that a call that waits long still arrives with a valid one.
const RENEWAL_AGE: Duration = Duration::from_secs(5 * 60);
/// How often a token file is checked for changes.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Hands out the bearer token of outgoing calls. A cheap handle.
#[derive(Clone)]
pub struct TokenSource(Arc<Origin>);

enum Origin {
    Minted { signer: Signer, name: String, current: Mutex<Option<(AsciiMetadataValue, Instant)>> },
    File { path: PathBuf, current: Mutex<FileToken> },
    Fixed(Option<AsciiMetadataValue>),
}

#[derive(Default)]
struct FileToken {
    bearer: Option<AsciiMetadataValue>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &*self.0 {
            Origin::Minted { .. } => "TokenSource::Minted",
            Origin::File { .. } => "TokenSource::File",
            Origin::Fixed(_) => "TokenSource::Fixed",
        })
    }
}

fn bearer(token: &str) -> Option<AsciiMetadataValue> {
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl TokenSource {
    /// A source that mints tokens for the service with this name and renews them in time.
    #[must_use]
    pub fn minted(signer: Signer, service: impl Into<String>) -> Self {
        Self(Arc::new(Origin::Minted { signer, name: service.into(), current: Mutex::default() }))
    }

    /// A source that reads a token from a file that another program rotates.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Origin::File { path: path.into(), current: Mutex::default() }))
    }

    /// A source that always returns this token, for example from a command line.
    #[must_use]
    pub fn fixed(token: &str) -> Self {
        Self(Arc::new(Origin::Fixed(bearer(token))))
    }

    /// A source without a token; calls are anonymous.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Arc::new(Origin::Fixed(None)))
    }

    /// The current value of the `authorization` metadata. `None` if no token is available, which is logged.
    #[must_use]
    pub fn bearer(&self) -> Option<AsciiMetadataValue> {
        match &*self.0 {
            Origin::Fixed(bearer) => bearer.clone(),
            Origin::Minted { signer, name, current } => {
                let mut current = lock(current);
                let due = current.as_ref().is_none_or(|(_, minted)| minted.elapsed() >= RENEWAL_AGE);
                if due && let Some(minted) = mint(signer, name) {
                    *current = Some((minted, Instant::now()));
                }
                current.as_ref().map(|(bearer, _)| bearer.clone())
            }
            Origin::File { path, current } => {
                let mut current = lock(current);
                if current.looked.is_none_or(|looked| looked.elapsed() >= FILE_CHECK_INTERVAL) {
                    current.looked = Some(Instant::now());
                    reread(path, &mut current);
                }
                current.bearer.clone()
            }
        }
    }
}

fn mint(signer: &Signer, name: &str) -> Option<AsciiMetadataValue> {
    match signer.sign(&Claims::new(Role::Service, name, None, TOKEN_TTL)) {
        Ok(token) => bearer(&token),
        Err(error) => {
            tracing::error!(%error, service = name, "cannot mint a token");
            None
        }
    }
}

/// Reads the file's token if the file has changed; keeps the last valid token if the file cannot be read.
fn reread(path: &PathBuf, current: &mut FileToken) {
    let read = fs::metadata(path).and_then(|metadata| metadata.modified()).and_then(|modified| {
        let changed = current.modified != Some(modified);
        let token = if changed { Some(fs::read_to_string(path)?) } else { None };
        Ok((token, modified))
    });
    match read {
        Ok((None, _)) => {}
        Ok((Some(token), _)) if token.trim().len() > MAX_TOKEN_BYTES => {
            let bytes = token.trim().len();
            tracing::warn!(path = %path.display(), bytes, most = MAX_TOKEN_BYTES, "the token file holds a token that nobody would accept");
        }
        Ok((Some(token), modified)) => match bearer(&token).filter(|_| !token.trim().is_empty()) {
            Some(bearer) => (current.bearer, current.modified) = (Some(bearer), Some(modified)),
            None => tracing::warn!(path = %path.display(), "the token file holds no token"),
        },
        Err(error) => tracing::warn!(%error, path = %path.display(), "cannot read the token file"),
    }
}

#[cfg(test)]
mod tests {
    use domain::access::Caller;

    use super::*;
    use crate::identity::Verifier;

    fn token(source: &TokenSource) -> String {
        source.bearer().unwrap().to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_minted_token_is_renewed_before_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_create(dir.path()).unwrap();
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let source = TokenSource::minted(signer, "screening");
        assert_eq!(verifier.verify(&token(&source)).unwrap(), Caller::Service("screening".into()));
        let minted_at = |source: &TokenSource| match &*source.0 {
            Origin::Minted { current, .. } => lock(current).as_ref().unwrap().1,
            _ => unreachable!("it was minted"),
        };
        let first = minted_at(&source);
        tokio::time::advance(RENEWAL_AGE / 2).await;
        token(&source);
        assert_eq!(minted_at(&source), first);
        tokio::time::advance(RENEWAL_AGE).await;
        token(&source);
        assert!(minted_at(&source) > first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_file_is_read_again_and_a_lost_one_keeps_the_last_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenSource::file(&path);
        assert!(source.bearer().is_none());

        let write = |text: &str, at: u64| {
            fs::write(&path, text).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        };
        write("first\n", 1);
        tokio::time::advance(FILE_CHECK_INTERVAL).await;
        assert_eq!(token(&source), "first");
        write("second", 2);
        tokio::time::advance(FILE_CHECK_INTERVAL).await;
        assert_eq!(token(&source), "second");
        fs::remove_file(&path).unwrap();
        tokio::time::advance(FILE_CHECK_INTERVAL).await;
        assert_eq!(token(&source), "second");
    }
}
