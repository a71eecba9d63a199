//! How long the disk takes to make a write durable.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::Error;

/// The number of syncs that the median is taken of.
const SYNCS: usize = 200;
/// The number of bytes written before each sync.
const BYTES: usize = 4096;

/// The median time of a sync, in milliseconds.
pub(crate) async fn median(directory: &Path) -> Result<f64, Error> {
    let path = directory.join("sync-probe");
    let measured = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::create(&path)?;
        let mut taken = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            file.write_all(&[7; BYTES])?;
            let since = Instant::now();
            file.sync_data()?;
            taken.push(since.elapsed().as_secs_f64() * 1_000.0);
        }
        std::fs::remove_file(&path)?;
        taken.sort_by(f64::total_cmp);
        Ok(taken[SYNCS / 2])
    });
    let measured = measured.await.map_err(|error| Error::failed(format!("the disk was not measured: {error}")))?;
    measured.map_err(Error::system("measure the disk"))
}
