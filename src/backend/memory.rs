//! How much memory this process has used at most.

/// Peak resident set of this process, in bytes; `None` where the system does not say.
pub fn peak_bytes() -> Option<u64> {
    status_line("VmHWM:")
}

/// Lets [`peak_bytes`] count anew from what is resident now; where the system cannot, it goes on counting.
pub fn reset_peak() {
    // proc(5): writing 5 to clear_refs resets the peak resident set.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Resident set of this process now, in bytes; `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    status_line("VmRSS:")
}

fn status_line(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
