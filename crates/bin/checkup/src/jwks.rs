//! `checkup jwks`: prints the public half of a data directory's key.

use crate::cli::JwksArgs;
use crate::exit::{Exit, Failure};
use crate::identity;
use crate::terminal;

/// Prints the document and nothing else.
///
/// # Errors
/// Where the key cannot be used.
pub fn run(args: JwksArgs) -> Result<Exit, Failure> {
    let signer = identity::signer(&args.data_dir)?;
    terminal::print(&format!("{}\n", signer.jwks()))?;
    Ok(Exit::Ok)
}
