//! What this process has used so far and what it may use, from the operating system's own accounting.

use std::path::Path;

/// CPU seconds (user and system) and the largest resident set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
}

pub fn usage() -> Usage {
    // SAFETY: getrusage fills the struct it is given, for which all-zero is a valid value.
    let (result, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
    };
    if result != 0 {
        return Usage::default();
    }
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    // Linux counts ru_maxrss in KiB.
    Usage {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
    }
}

/// Resident set now, in bytes; 0 where it cannot be read.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    // SAFETY: sysconf reads a constant.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * page.max(0) as u64
}

/// Memory that this process can have: the machine's, or the limit of its control group if that is lower. 0 where it
/// cannot be read.
pub fn machine_memory_bytes() -> u64 {
    // SAFETY: sysconf reads constants.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    let physical = pages.max(0) as u64 * page.max(0) as u64;
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match group_memory_bytes(Path::new("/sys/fs/cgroup"), &membership) {
        Some(limit) => physical.min(limit),
        None => physical,
    }
}

/// Whether this process was started with a signal ignored.
pub fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The lowest memory limit of a process's control group and the groups above it; None: without a limit. `membership`
/// is the content of /proc/self/cgroup.
fn group_memory_bytes(mounted: &Path, membership: &str) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in membership.lines() {
        // `0::/path` (version 2), `9:memory:/path` (version 1).
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mounted.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's, which is not there: then the root stands for the group.
        let group = root.join(path.trim_start_matches('/'));
        for directory in group.ancestors().take_while(|directory| directory.starts_with(&root)) {
            // `max`, and version 1's huge number, are no limits.
            let limit = std::fs::read_to_string(directory.join(file)).ok().and_then(|text| text.trim().parse().ok());
            lowest = limit.into_iter().chain(lowest).min();
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_limit_on_the_way_to_the_root_counts() {
        let mounted = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = mounted.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
            std::fs::write(path, text).expect("writable");
        };
        put("a/memory.max", "max\n");
        assert_eq!(group_memory_bytes(mounted.path(), "0::/a/b\n"), None, "no limit anywhere");
        put("a/b/memory.max", "2000\n");
        put("memory.max", "3000\n");
        assert_eq!(group_memory_bytes(mounted.path(), "0::/a/b\n"), Some(2000));
        assert_eq!(group_memory_bytes(mounted.path(), "0::/elsewhere\n"), Some(3000), "the root stands for it");
        put("memory/c/memory.limit_in_bytes", "1000\n");
        assert_eq!(group_memory_bytes(mounted.path(), "5:cpu,cpuacct:/c\n9:memory:/c\n"), Some(1000));
        assert_eq!(group_memory_bytes(mounted.path(), "5:cpu:/c\nnot a line\n"), None);
    }
}
