//! The commands for recovery: backups, and databases that came back older than the others.

use std::path::PathBuf;

use clap::Args;

use super::{DATA_DIR, StoresArgs};
use crate::service::Service;

const BACKUP_EXAMPLES: &str = "\
Examples:
  checkup backup --to checkup.tar
  checkup backup --data-dir /var/lib/checkup --to /backup/checkup-$(date +%F).tar

Works while a process serves from the directory, and when none does. All databases are copied as they are at one instant, which \
`verify` finds in agreement once they are restored; writers wait for some milliseconds. The signing key is in the archive, so only its \
owner can read it. It is written beside its final name and gets that name once it is whole and synced: on a full disk there is none. \
What to back up of a mesh is said in docs/operations/backup.md.

Exit status: 0; 1 where it cannot be read or written, nothing is left behind then; 64 for a wrong command line.";

/// `checkup backup`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct BackupArgs {
    /// The data directory to copy; its services may run meanwhile
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// The archive to write, which must not be there
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  checkup restore --from checkup.tar --data-dir data
  checkup restore --from /backup/checkup-2027-03-02.tar --data-dir /var/lib/checkup

The directory must be empty or not there. Every file is checked against the archive's manifest before the directory gets its name, so an \
archive that was cut off or altered leaves nothing behind. All services come back at one instant; for one database alone see \
`checkup recover --help`.

Exit status: 0; 1 where the archive is not whole or the directory is not free; 64 for a wrong command line.";

/// `checkup restore`.
#[derive(Debug, Clone, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub struct RestoreArgs {
    /// The archive, as `checkup backup` writes it
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The directory to make, which must be empty or not there
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

const RECOVER_EXAMPLES: &str = "\
Examples:
  checkup recover --data-dir data --dry-run
  checkup recover --data-dir data
  checkup recover --config mesh.toml
  checkup recover --config mesh.toml --service screening

For a database that was put back to an earlier time than the others. Its service has lost its own past, notices that at its start, and \
serves nothing until this was run. Bookings, claims, counts and capacities are made again from what the other services know; what nobody \
knows any more is listed with what to do about it. Run again it changes nothing. A process that uses --data-dir has to be \
stopped first; services on PostgreSQL may run. More in docs/operations/backup.md.

Exit status: 0 where nothing is lost any more; 1 where something cannot be mended, or with --dry-run would be; 64 for a wrong command \
line or configuration.";

/// `checkup recover`.
#[derive(Debug, Clone, Args)]
#[command(after_help = RECOVER_EXAMPLES)]
pub struct RecoverArgs {
    /// `--data-dir`, `--config` and `--set`, by which the databases of the services are found.
    #[command(flatten)]
    pub stores: StoresArgs,
    /// Holds this service to what the others know although nothing shows that it lost its past: hospital or screening
    #[arg(long, value_name = "NAME")]
    pub service: Option<Service>,
    /// Says what it would do, and changes nothing
    #[arg(long)]
    pub dry_run: bool,
}
