//! The process's part of a rebuild: it polls its data directory for requests, builds the view beside the one in use,
//! and replaces the old one.

use std::sync::Arc;
use std::time::Duration;

use bus::Subscribe;
use mypage::{View, Views};
use relay::{ConsumeOptions, Consumer};
use runtime::Process;
use runtime::lifecycle::Readiness;
use store::{Database, DbErr, Location, inbox};
use tokio::time::{Instant, sleep};

use super::feed::{Counted, Feed, Progress};
use crate::exit::chain;
use crate::view_files::{Report, State, ViewFiles};

/// How often the directory is checked for a request.
const REQUEST_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the progress is written.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How long the new view may take to apply the last events that the old one has applied.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);
const SWITCH_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long calls may go on using a view that was replaced.
const RETIRED_VIEW_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers requests for a rebuild as long as the process runs.
#[derive(Debug)]
pub struct Keeper {
    files: ViewFiles,
    // or the reason why no view can be rebuilt here
    builder: Result<Builder, String>,
}

/// Rebuilds a view.
pub struct Builder {
    /// The view in use, and how it is replaced.
    pub views: Views,
    /// The feed of the view in use. `None` while it is stopped.
    pub feed: Option<Feed>,
    /// The transport that the events come from.
    pub transport: Arc<dyn Subscribe>,
    /// The options of the consumer.
    pub options: ConsumeOptions,
    /// The process that owns the tasks.
    pub process: Process,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("views", &self.views).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Answers the requests in this directory, with a rebuild or with the reason why there is none.
    #[must_use]
    pub fn new(files: ViewFiles, builder: Result<Builder, String>) -> Self {
        Self { files, builder }
    }

    /// Runs until the task is aborted.
    pub async fn run(mut self) {
        loop {
            sleep(REQUEST_POLL_INTERVAL).await;
            match self.files.asked() {
                Ok(Some(request)) => self.answer(request).await,
                Ok(None) => {}
                Err(error) => tracing::warn!(error = chain(&error), "cannot look for requests to rebuild"),
            }
        }
    }

    async fn answer(&mut self, request: String) {
        let progress = Arc::new(Progress::default());
        let built = match &mut self.builder {
            Ok(builder) => builder.rebuild(&self.files, &request, &progress).await,
            Err(why) => Err(why.clone()),
        };
        let (applied, waiting) = progress.figures();
        let state = match built {
            Ok(()) => {
                tracing::info!(applied, "the view was built anew");
                State::Done
            }
            Err(why) => {
                tracing::warn!(why, "the view was not built anew; the old one stays in use");
                State::Failed(why)
            }
        };
        write_report(&self.files, &Report { request, state, applied, waiting });
        if let Err(error) = self.files.withdraw() {
            tracing::warn!(error = chain(&error), "cannot remove an answered request to rebuild");
        }
    }
}

fn write_report(files: &ViewFiles, report: &Report) {
    // the command that waits reads again, and gives up in the end
    if let Err(error) = files.write_report(report) {
        tracing::warn!(error = chain(&error), "cannot tell how far the rebuild is");
    }
}

impl Builder {
    /// Rebuilds the view and puts it in place.
    async fn rebuild(&mut self, files: &ViewFiles, request: &str, progress: &Arc<Progress>) -> Result<(), String> {
        let (old, next) = (files.current().map_err(cannot)?, files.next().map_err(cannot)?);
        let location = Location::Sqlite(files.path(next));
        let view = match self.views.open(&location).await {
            Ok(view) => view,
            Err(error) => return Err(give_up(files, next, chain(&error))),
        };

        let readiness = Readiness::new();
        let latch = readiness.latch("the new view");
        let transport: Arc<dyn Subscribe> = Arc::new(Counted::new(Arc::clone(&self.transport), Arc::clone(progress)));
        let feed = Feed::start(&self.process, view.consumer(), transport, self.options, Some(latch));
        catch_up(files, request, progress, &readiness).await;

        // The old view gets no events during the last step, so that no page goes back in time.
        self.feed = None;
        if let Err(why) = self.use_instead(files, (old, next), &view).await {
            self.feed = Some(self.feed(self.views.consumer()));
            drop(feed);
            view.close(RETIRED_VIEW_TIMEOUT).await;
            return Err(give_up(files, next, why));
        }
        self.feed = Some(feed);
        self.views.replace(view).close(RETIRED_VIEW_TIMEOUT).await;
        files.remove(old).map_err(|error| {
            format!("the new view is in use, but {} cannot be removed ({})", files.path(old).display(), chain(&error))
        })
    }

    /// Makes the new view the one in use on disk, after checking that it has all bookings of the old one.
    async fn use_instead(&self, files: &ViewFiles, (old, next): (u32, u32), view: &View) -> Result<(), String> {
        let unread = |error: DbErr| format!("the views cannot be compared ({})", chain(&error));
        let followed = follow(&self.views.database(), view).await.map_err(unread)?;
        let (had, has) = (self.views.bookings().await.map_err(unread)?, view.bookings().await.map_err(unread)?);
        // a limited stream, or one that was refilled after a loss, may lack events
        let lacks = if has < had {
            format!("the events there are make {has} bookings, and the old view shows {had}")
        } else if !followed {
            let limit = CATCH_UP_TIMEOUT.as_secs();
            format!(
                "the last events that the old view has applied did not come within {limit} s: they are gone or late"
            )
        } else {
            String::new()
        };
        if !lacks.is_empty() {
            return Err(format!(
                "{lacks}; to have it built from those all the same, stop the process, remove {} and start it",
                files.path(old).display()
            ));
        }
        // From here on, a restarted process uses the new view.
        files.put_in_use(next).map_err(|error| {
            // it may have been written but not synced
            let back = files.put_in_use(old).err().map(|error| format!("; {}", chain(&error))).unwrap_or_default();
            format!("{}{back}", cannot(error))
        })
    }

    fn feed(&self, consumer: Consumer) -> Feed {
        Feed::start(&self.process, consumer, Arc::clone(&self.transport), self.options, None)
    }
}

fn cannot(error: std::io::Error) -> String {
    format!("the data directory cannot be used ({})", chain(&error))
}

/// Removes the files of a view that was never used. Returns the reason.
fn give_up(files: &ViewFiles, generation: u32, why: String) -> String {
    if let Err(error) = files.remove(generation) {
        // the next start tries again
        tracing::warn!(error = chain(&error), "the new view cannot be removed");
    }
    why
}

/// Waits until the new view has no lag, and reports its progress meanwhile.
async fn catch_up(files: &ViewFiles, request: &str, progress: &Progress, readiness: &Readiness) {
    loop {
        let (applied, waiting) = progress.figures();
        write_report(files, &Report { request: request.to_owned(), state: State::Building, applied, waiting });
        tokio::select! {
            () = readiness.ready() => return,
            () = sleep(PROGRESS_INTERVAL) => {}
        }
    }
}

/// Waits until the new view has read as far as the old one, which gets no events meanwhile, so that no page goes back
/// in time. A source that only the old view knows does not exist any more and is not waited for.
///
/// Returns whether it has: events that were removed by age never come.
async fn follow(old: &Database, new: &View) -> Result<bool, DbErr> {
    let limit = Instant::now() + CATCH_UP_TIMEOUT;
    let consumer = new.consumer();
    let seen = inbox::cursors(old.reader(), consumer.name).await?;
    loop {
        let read = inbox::cursors(consumer.database.reader(), consumer.name).await?;
        if read.iter().all(|(source, position)| seen.get(source).is_none_or(|seen| position >= seen)) {
            return Ok(true);
        }
        if Instant::now() >= limit {
            return Ok(false);
        }
        sleep(SWITCH_POLL_INTERVAL).await;
    }
}
