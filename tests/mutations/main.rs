//! Files that people bring, changed as a hostile hand or a broken disk would, structure first: reading them may fail, but
//! does not panic or abort, allocates at most a stated multiple of the file's size, and reads nothing outside its folder.
//!
//! Each case follows from its number. `MUTATIONS` sets how many there are of each kind, `MUTATIONS_FROM` the first number
//! (`tests/nightly.sh` starts elsewhere every night); `MUTATIONS=1 MUTATIONS_FROM=n` repeats case n.

mod allocations;
mod bytes;
mod chance;
mod json;
mod kinds;
mod pictures;
mod weights;
mod yaml;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use allocations::{Allocated, measured};
use chance::Chance;

/// Cases of each kind.
const CASES: u64 = 10_000;
/// No file here takes a hundredth of this on an idle machine.
const SLOW: Duration = Duration::from_secs(10);

/// How much reading a file may allocate.
#[derive(Clone, Copy)]
pub(crate) struct Allowance {
    /// Times the size of the file, for the largest single allocation; for all together, four times as much.
    pub(crate) factor: usize,
    /// Bytes that do not depend on the file: buffers, tables, and what belongs to the largest shape that is accepted.
    pub(crate) floor: usize,
}

impl Allowance {
    fn exceeded(self, allocated: Allocated, size: usize) -> bool {
        let largest = self.factor * size + self.floor;
        allocated.largest > largest || allocated.peak > 4 * largest
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

/// Makes and reads every case of a kind.
pub(crate) fn survive(
    kind: &str,
    allowance: Allowance,
    make: impl Fn(&mut Chance) -> Vec<u8>,
    mut read: impl FnMut(&[u8]),
) {
    let first = setting("MUTATIONS_FROM", 0);
    for number in first..first + setting("MUTATIONS", CASES) {
        let file = make(&mut Chance::new(number));
        let begun = Instant::now();
        let (ended, allocated) = measured(|| catch_unwind(AssertUnwindSafe(|| read(&file))));
        let problem = match ended {
            Err(_) => "a panic".to_owned(),
            Ok(()) if allowance.exceeded(allocated, file.len()) => {
                format!("{allocated:?} for {} bytes", file.len())
            }
            Ok(()) if begun.elapsed() > SLOW => format!("{:?}", begun.elapsed()),
            Ok(()) => continue,
        };
        let path = std::env::temp_dir().join(format!("mutation-{kind}-{number}"));
        std::fs::write(&path, &file).expect("a writable folder");
        panic!("case {number} of {kind}: {problem}; the file is {}", path.display());
    }
}
