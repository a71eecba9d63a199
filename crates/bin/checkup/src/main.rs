//! The binary: which allocator it has, and the command that it runs. All else is in the library, where it is compiled once.

use std::process::ExitCode;
use std::time::Instant;

use mimalloc::MiMalloc;

/// Calls allocate on one thread and free on another, which this allocator is made for. An image on an empty base would otherwise
/// have that of musl, which serialises all threads. SQLite gets it too (its feature `override`): glibc's has an arena for each of
/// SQLite's threads, and what is free in one is of no use to another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    use_small_pages();
    checkup::command::main(started)
}

/// The allocator asks the kernel for pages of 2 MB, and whoever uses a few kilobytes here and there has all of them: four fifths of the
/// anonymous memory of a service at rest. A kernel that knows no such pages is no reason to stop.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
