//! The binary: it chooses the allocator and runs the command. Everything else is in the library.

use std::process::ExitCode;
use std::time::Instant;

use mimalloc::MiMalloc;

/// Calls allocate on one thread and free on another, and this allocator is made for that. A static image without glibc
/// would otherwise use the allocator of musl, which serialises all threads. SQLite uses this allocator too (its feature
/// `override`): glibc has an arena per thread, and memory that is free in one arena is not used by another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    use_small_pages();
    checkup::command::main(started)
}

/// Turns transparent huge pages off. With them the kernel gives 2 MB pages, of which a thread may use a few kilobytes:
/// they were four fifths of a resting service's anonymous memory. A kernel without such pages is no error.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
