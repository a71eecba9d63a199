//! `checkup jwks`: prints the public keys of a data directory.

use crate::cli::JwksArgs;
use crate::exit::{Exit, Failure};
use crate::identity;
use crate::terminal;

/// Prints the JWKS document and nothing else.
///
/// # Errors
/// Fails if the key cannot be used.
pub fn run(args: JwksArgs) -> Result<Exit, Failure> {
    let signer = identity::signer(&args.data_dir)?;
    terminal::print(&format!("{}\n", signer.jwks()))?;
    Ok(Exit::Ok)
}
