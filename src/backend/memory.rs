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

/// Lets freed memory stay with the process. Tensors come and go at every step, and by default glibc gives each one back
/// and asks for fresh, zeroed pages again: the plain operations around one convolution took 108 ms at batch 200, and with
/// the same settings as environment variables 3.6 ms at batch 100 (two cores of an EPYC, busy, 2026-11). Call it before the first thread starts.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
        // One arena: the others lie in heaps of 64 MB that are given back whole as soon as they are empty. With two, SiLU's
        // forward and backward pass over 5 MB took 1.6 times torch's time, with one 0.84 (EPYC 9005, 2026-11).
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt only sets numbers inside the allocator, and no other thread runs yet.
        let _ = unsafe { libc::mallopt(option, value) };
    }
}
