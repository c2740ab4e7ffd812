//! What this machine has: processors, memory and disks.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use serde::Serialize;

use super::{amx, memory};

/// Processors and their memory.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// The processor's name, if the system tells it.
    pub processor: Option<String>,
    /// Instruction sets that kernels use.
    pub features: Vec<&'static str>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory, if the system tells it.
    pub memory: Option<u64>,
    /// Bytes of memory that this process may use now.
    pub available: u64,
}

impl Host {
    /// Asks the system.
    pub fn ask() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            processor: line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())),
            features: features(),
            cores: available_parallelism().map_or(1, usize::from),
            memory: memory::total(),
            available: memory::available(&candle_core::Device::Cpu),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("amx-bf16", amx::available()),
    ];
    known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Kernels for ARM need nothing beyond what every such processor has.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}

/// Bytes that an ordinary user can still write in a folder, or in the nearest folder above it that exists.
#[cfg(unix)]
pub fn free_disk(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let folder = std::path::absolute(folder).ok()?;
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let path = std::ffi::CString::new(there.as_os_str().as_bytes()).ok()?;
    // SAFETY: all fields of the struct are numbers, for which zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a null byte, and the struct is writable.
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut found) };
    (status == 0).then(|| number(found.f_bavail).saturating_mul(number(found.f_frsize)))
}

/// The fields have other types on other systems.
#[cfg(unix)]
fn number(field: impl Into<u64>) -> u64 {
    field.into()
}

/// Unknown on other systems.
#[cfg(not(unix))]
pub fn free_disk(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn the_machine_of_a_test_has_memory_and_a_disk() {
        let host = Host::ask();
        assert!(
            host.cores > 0 && host.memory > Some(1 << 28) && Some(host.available) <= host.memory,
            "{host:?}"
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        let free = free_disk(folder.path());
        assert!(free > Some(0));
        assert!(free_disk(&folder.path().join("not/yet")) > Some(0));
    }
}
