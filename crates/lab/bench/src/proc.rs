//! What the system knows of a process: its CPU time, its memory, its writes.

use std::time::Duration;

/// Microseconds per tick of the system's accounting.
fn tick() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// The fields of /proc/PID/stat from the third on. The second is the name, which may contain any character.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The CPU time of a process, user and kernel, including children that have ended.
#[must_use]
pub(crate) fn cpu(pid: u32) -> Duration {
    let Some(fields) = stat(pid) else { return Duration::ZERO };
    // utime, stime, cutime and cstime are the fields 14 to 17 of the whole line.
    let ticks: u64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_micros(ticks * tick())
}

/// The number of bytes that a process caused to be written to storage.
#[must_use]
pub(crate) fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    value(&text, "write_bytes:").unwrap_or_default()
}

/// The resident memory of a process in bytes.
#[must_use]
pub(crate) fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    value(&text, "VmRSS:").unwrap_or_default() * 1024
}

/// The resident memory of a process that no file and no other process has too, in bytes. Without the memory that
/// PostgreSQL's processes share.
#[must_use]
pub(crate) fn anonymous(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    value(&text, "RssAnon:").unwrap_or_default() * 1024
}

/// The largest resident memory of a process so far, in bytes.
#[must_use]
pub(crate) fn most_resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    value(&text, "VmHWM:").unwrap_or_default() * 1024
}

fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// A process and its children. PostgreSQL has a child per session.
#[must_use]
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The parent is field 4 of the whole line.
    let is_child = |child: &u32| stat(*child).is_some_and(|fields| fields.get(1) == Some(&pid.to_string()));
    std::iter::once(pid).chain(numbers.filter(is_child)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_computes_and_has_memory() {
        let pid = std::process::id();
        let before = cpu(pid);
        let mut sum = 0_u64;
        while cpu(pid) == before {
            sum = (0..100_000).fold(sum, u64::wrapping_add);
        }
        assert!(sum > 0 && resident(pid) > 1024 * 1024);
        assert!(anonymous(pid) > 0 && anonymous(pid) < resident(pid));
        assert!(family(pid).contains(&pid));
        assert_eq!(value("a: 1\nVmRSS:\t  20 kB\n", "VmRSS:"), Some(20));
    }
}
