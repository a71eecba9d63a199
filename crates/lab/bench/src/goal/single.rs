//! P9: one caller makes one booking at a time without other load, alternating with syncs of the disk.

use std::sync::Arc;

use super::Bench;
use crate::caller::Token;
use crate::hot::{Book, Hot, PLACES};
use crate::section::{Bound, Figure, Section, Side};
use crate::series::Series;
use crate::testbed::Setup;
use crate::{Error, Item, fsync};

/// The number of commits that a booking waits for.
const COMMITS: f64 = 3.0;
/// How long everything else of a booking may take, in milliseconds.
const REST: f64 = 1.0;

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let testbed = bench.testbed(Item::P9, &Setup::default()).await?;
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let hot = Hot::open(&admin, "bench-quiet", PLACES, bench.plan.customers()).await?;
    let book = Arc::new(Book::new(testbed.caller("screening", Token::admin(&testbed.signer)?)?, hot));

    let mut booking = Side::new("CreateScreening", "closed, 1 caller");
    let mut disk = Series::default();
    bench.phase(Item::P9, bench.plan.pairs);
    for _ in 0..bench.plan.pairs {
        testbed.rest().await;
        disk.push(fsync::median(testbed.directory()).await?);
        booking.push(&bench.closed(&testbed, &book, 1).await?);
    }
    let allowed: Series = disk.values().iter().map(|sync| COMMITS * sync + REST).collect();
    let mut section = Section::new(Item::P9, bench.topology);
    let p50 = booking.latency[0].clone();
    section.figures = vec![
        Figure::new("p50 against three syncs of the disk and 1 ms", "×", p50.over(&allowed)).goal(Bound::AtMost(1.0)),
        Figure::new("p50", "ms", p50),
        Figure::new("one sync of the disk, p50", "ms", disk),
    ];
    section.sides = vec![booking];
    section
        .notes
        .push("a sync of the disk is fdatasync after 4 KiB at the end of a file beside the services' own".to_owned());
    testbed.stop().await?;
    Ok(section)
}
