//! The peak memory of this process, and how much it may use.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Device, DeviceLocation};

use super::driver::{Driver, driver};

/// The memory limit; the largest number if there is none.
static ALLOWED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets the memory limit of this process in bytes, regardless of the system's memory. Call it while nothing computes.
pub fn allow(bytes: u64) {
    ALLOWED.store(bytes, Ordering::Relaxed);
}

/// The limit that was set.
pub fn limit() -> Option<u64> {
    Some(ALLOWED.load(Ordering::Relaxed)).filter(|&bytes| bytes < u64::MAX)
}

/// How many bytes of `device`'s memory may be used for something that can also be processed in pieces: half of what is
/// [`available`], because the computation needs room too.
pub fn budget(device: &Device) -> u64 {
    match available(device) {
        u64::MAX => u64::MAX,
        bytes => bytes / 2,
    }
}

/// How many bytes of `device`'s memory may be used: what the configured limit leaves, or, without one, what the system
/// has left. On a GPU no more than the card has free.
pub fn available(device: &Device) -> u64 {
    if let Some(index) = index(device) {
        let used = driver().and_then(|driver| driver.pool(index).map_err(|_| "")).map_or(0, |pool| pool.used);
        return of_card(limit(), used, free(device));
    }
    give_back();
    let left = |limit: u64| limit.saturating_sub(resident_bytes().unwrap_or(0));
    let free = || kibibytes("/proc/meminfo", "MemAvailable:");
    let system = || free().into_iter().chain(control_group_limit().map(left)).min();
    limit().map(left).or_else(system).unwrap_or(u64::MAX)
}

/// How many bytes can still be allocated, whatever the configured limit says: the memory that the system has left,
/// with swap, within the limits of this process's control groups. On a GPU what its driver has left; no bound if it does not
/// say.
pub fn free(device: &Device) -> u64 {
    if let Some(index) = index(device) {
        return driver().and_then(|driver| driver.free(index).map_err(|_| "")).unwrap_or(u64::MAX);
    }
    let swap = kibibytes("/proc/meminfo", "SwapFree:").unwrap_or(0);
    let system = kibibytes("/proc/meminfo", "MemAvailable:").map(|memory| memory.saturating_add(swap));
    let group = control_group_limit().map(|limit| limit.saturating_sub(resident_bytes().unwrap_or(0)));
    system.into_iter().chain(group).min().unwrap_or(u64::MAX)
}

/// What may be used of a card with `free` bytes, if `used` bytes of those that the limit allows are in tensors already.
fn of_card(allowed: Option<u64>, used: u64, free: u64) -> u64 {
    allowed.map_or(free, |allowed| allowed.saturating_sub(used).min(free))
}

/// The number of a GPU.
fn index(device: &Device) -> Option<usize> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => Some(gpu_id),
        DeviceLocation::Cpu | DeviceLocation::Metal { .. } => None,
    }
}

/// The bytes of a GPU that are in tensors; `None` on a CPU, and the driver's words if it does not say.
pub fn used_on_card(device: &Device) -> Option<Result<u64, String>> {
    let index = index(device)?;
    Some(driver().map_err(str::to_owned).and_then(|driver| Ok(driver.pool(index)?.used)))
}

/// The most bytes of a GPU that are in tensors while `act` runs, or the driver's words if it does not say.
pub fn peak_on_card<E>(
    device: &Device,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<Result<u64, String>, E> {
    let ready = || {
        let index = index(device).ok_or("the device is no GPU")?;
        let driver = driver()?;
        driver.reset_peak(index)?;
        Ok((driver, index))
    };
    let ready: Result<(&Driver, usize), String> = ready();
    act()?;
    Ok(ready.and_then(|(driver, index)| Ok(driver.pool(index)?.used_high)))
}

/// The strictest limit of this process's control groups, as set by a container or Slurm.
fn control_group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups.lines().flat_map(|line| {
        // cgroups(7): "5:memory:/a/b" in version 1, "0::/a/b" in version 2.
        let mut parts = line.splitn(3, ':').skip(1);
        let (root, file) = match parts.next() {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(controllers) if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let group = Path::new(root).join(parts.next().unwrap_or("/").trim_start_matches('/'));
        let folders = group.ancestors().take_while(|folder| folder.starts_with(root));
        folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).collect()
    });
    limits.min()
}

/// Bytes of the machine's memory; `None` if the system does not report it.
pub fn total() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemTotal:")
}

/// Peak resident set of this process in bytes; `None` if the system does not report it.
pub fn peak_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Resets [`peak_bytes`] to the current resident set; does nothing on systems that cannot.
pub fn reset_peak() {
    // proc(5): writing 5 to clear_refs resets the peak resident set.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Current resident set of this process in bytes; `None` if the system does not report it.
pub fn resident_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmRSS:")
}

/// The value of the line with this name in a file of the proc file system, in bytes.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns free memory to the system.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: glibc's `malloc_trim` takes its own locks and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps freed memory in the process. Tensors are allocated and freed at every step, and by default glibc returns each
/// one to the system and requests fresh, zeroed pages again: the plain operations around one convolution took 108 ms at
/// batch 200, and with the same settings as environment variables 3.6 ms at batch 100 (two cores of a busy EPYC,
/// 2026-11). Call it before the first thread starts.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
        // One arena: others consist of 64 MB heaps that are returned as soon as they are empty. With two arenas, SiLU's
        // forward and backward pass over 5 MB took 1.6 times torch's time, with one 0.84 (EPYC 9005, 2026-11).
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: mallopt only sets numbers inside the allocator, and no other thread runs yet.
        let _ = unsafe { libc::mallopt(option, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gives_what_it_has_and_the_limit_allows() {
        assert_eq!(of_card(None, 5, 20), 20);
        assert_eq!(of_card(Some(16), 5, 20), 11);
        assert_eq!(of_card(Some(30), 5, 20), 20);
        assert_eq!(of_card(Some(4), 5, 20), 0);
        assert_eq!(index(&Device::Cpu), None);
    }
}
