//! The signing key of a data directory.
//!
//! One process makes the key, all processes that share the directory use it, and no other user may read it. Deployments
//! with an issuer of their own do not need it: they give the verifier that issuer's keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::{Claims, MAX_TOKEN_BYTES};
use crate::entropy;

/// Why there is no key or no token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file cannot be read or made.
    #[error("cannot use the signing key {}", path.display())]
    File {
        /// The path of the key file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Other users than the file's owner may read the key file.
    #[error("the signing key {} is readable by others than its owner; run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The path of the key file.
        path: PathBuf,
    },
    /// The token would be too long for every service.
    #[error(
        "the token would have {bytes} bytes, and services accept {MAX_TOKEN_BYTES} at most; give it fewer hospitals, or all of them with *"
    )]
    TooLong {
        /// The length that the token would have, in bytes.
        bytes: usize,
    },
    /// The file holds no Ed25519 key, or the document no usable public keys.
    #[error("not a usable key: {0}")]
    Key(String),
}

/// Signs tokens with the Ed25519 key of a data directory. A cheap handle.
#[derive(Clone)]
pub struct Signer(Arc<Parts>);

struct Parts {
    key: EncodingKey,
    header: Header,
    jwk: Jwk,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.0.header.kid).finish()
    }
}

impl Signer {
    /// The name of the key file in its directory: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    pub const FILE: &'static str = "signing-key.pem";

    /// Reads the key of `dir`, or makes one. If several processes do so at once, one of them makes the key and all use
    /// it.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be used, or other users may read it.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(Self::FILE);
        let failed = |source| IdentityError::File { path: path.clone(), source };
        let pem = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(dir, &path).map_err(failed)?;
                fs::read(&path).map_err(failed)?
            }
            read => read.map_err(failed)?,
        };
        let found = fs::metadata(&path).map_err(failed)?;
        if is_exposed(found.mode(), found.uid(), rustix::process::geteuid().as_raw()) {
            return Err(IdentityError::Exposed { path });
        }
        Self::from_pem(&pem)
    }

    fn from_pem(pem: &[u8]) -> Result<Self, IdentityError> {
        let unusable = |error: jsonwebtoken::errors::Error| IdentityError::Key(error.to_string());
        let key = EncodingKey::from_ed_pem(pem).map_err(unusable)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(unusable)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(unusable)?;
        jwk.common.key_id = Some(kid.clone());
        let header = Header { kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
        Ok(Self(Arc::new(Parts { key, header, jwk })))
    }

    /// Signs a token with these claims.
    ///
    /// # Errors
    /// [`IdentityError::TooLong`] if no verifier would accept the token; [`IdentityError::Key`] if the claims cannot be
    /// written as JSON or the key refuses to sign, which are both defects.
    pub fn sign(&self, claims: &Claims) -> Result<String, IdentityError> {
        let signed = jsonwebtoken::encode(&self.0.header, claims, &self.0.key);
        let token = signed.map_err(|error| IdentityError::Key(error.to_string()))?;
        let bytes = token.len();
        if bytes > MAX_TOKEN_BYTES { Err(IdentityError::TooLong { bytes }) } else { Ok(token) }
    }

    /// The public half as a JWKS document, for [`super::Verifier`] and for a mesh.
    #[must_use]
    pub fn jwks(&self) -> String {
        let set = JwkSet { keys: vec![self.0.jwk.clone()] };
        serde_json::to_string(&set).unwrap_or_default()
    }
}

/// Whether other users than intended may read a key file. Intended is its owner and, if root owns the file, its group:
/// Kubernetes passes a Secret to a process that is not root in this way.
fn is_exposed(mode: u32, owner: u32, process: u32) -> bool {
    let permitted = if owner == 0 && process != 0 { 0o640 } else { 0o700 };
    mode & 0o777 & !permitted != 0
}

/// Makes the key file whole or not at all: writes a temporary file, forces it to disk, then links it to its name.
/// Linking fails if another process was faster.
fn create(dir: &Path, path: &Path) -> io::Result<()> {
    /// PKCS#8 version 1 of an Ed25519 key (RFC 8410), up to the 32 bytes of the seed.
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let mut der = PKCS8.to_vec();
    der.extend(entropy::bytes::<32>());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));

    fs::create_dir_all(dir)?;
    let beside = dir.join(format!(".{}.{}", Signer::FILE, entropy::uuid_v4()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&beside, path));
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.and_then(|()| File::open(dir)?.sync_all()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_of_roots_may_be_read_by_the_group_and_nobody_else() {
        let (root, us) = (0, 65_532);
        for (mode, owner, process) in
            [(0o600, us, us), (0o400, us, us), (0o440, root, us), (0o640, root, us), (0o600, root, root)]
        {
            assert!(!is_exposed(0o100_000 | mode, owner, process), "{mode:o} of {owner} for {process}");
        }
        for (mode, owner, process) in [
            (0o440, us, us),
            (0o644, root, us),
            (0o460, root, us),
            (0o444, root, us),
            (0o440, root, root),
            (0o440, 1_000, us),
        ] {
            assert!(is_exposed(0o100_000 | mode, owner, process), "{mode:o} of {owner} for {process}");
        }
    }

    #[test]
    fn all_who_start_at_once_share_one_key_that_only_the_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<String> = std::thread::scope(|scope| {
            let load = || Signer::load_or_create(&dir.path().join("identity")).unwrap().jwks();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        let path = dir.path().join("identity").join(Signer::FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Signer::load_or_create(path.parent().unwrap());
        assert!(matches!(refused, Err(IdentityError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Signer::FILE);
        fs::write(&path, "not a key").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Signer::load_or_create(dir.path()), Err(IdentityError::Key(_))));
    }
}
