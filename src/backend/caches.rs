//! The sizes of the processor's caches, from which kernels choose how much they work on at a time.

use std::fs;
use std::sync::OnceLock;

/// Where Linux describes the caches of the first core.
const FOLDER: &str = "/sys/devices/system/cpu/cpu0/cache";
/// Of servers with AVX-512 since 2017, and the smallest of today's desktops; taken where the system does not tell.
const SECOND_LEVEL: usize = 1 << 20;

/// Bytes of a core's second-level cache.
pub fn second_level() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| ask(FOLDER, 2).unwrap_or(SECOND_LEVEL))
}

/// Bytes of the cache for data at this level.
fn ask(folder: &str, level: usize) -> Option<usize> {
    fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let read = |name: &str| fs::read_to_string(entry.as_ref().ok()?.path().join(name)).ok();
            let holds_data = read("type")?.trim() != "Instruction";
            (holds_data && read("level")?.trim().parse() == Ok(level)).then(|| bytes(read("size")?.trim()))?
        })
        .max()
}

/// `48K` or `2M`
fn bytes(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_linux_writes_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (index, level, kind, size) in [
            (0, "1", "Data", "48K"),
            (1, "1", "Instruction", "32K"),
            (2, "2", "Unified", "2048K"),
            (3, "3", "Unified", "32M"),
        ] {
            let folder = folder.path().join(format!("index{index}"));
            fs::create_dir(&folder).expect("a folder");
            for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                fs::write(folder.join(name), format!("{text}\n")).expect("a file");
            }
        }
        let folder = folder.path().to_str().expect("a path in UTF-8");
        assert_eq!(
            [1, 2, 3, 4].map(|level| ask(folder, level)),
            [Some(48 << 10), Some(2 << 20), Some(32 << 20), None]
        );
        assert_eq!(["12", "x", "", "0K", "3G"].map(bytes), [Some(12), None, None, None, None]);
        assert_eq!(ask("/nowhere", 2), None);
    }

    #[test]
    fn a_core_has_a_second_level_cache() {
        assert!((1 << 16..1 << 30).contains(&second_level()), "{}", second_level());
    }
}
