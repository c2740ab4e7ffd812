//! The tests of this folder once more, with kernels built for a sanitizer.
//!
//! A sanitizer must be there from the start of a process, so the test program runs itself with its library preloaded.
//! The program itself is not instrumented, but its memory comes from the sanitizer's allocator: a kernel that reads
//! past the end of a buffer is found. ThreadSanitizer takes each fiber for a thread, so it finds races between threads
//! of a block.

use std::path::Path;
use std::process::Command;

use super::emulator::{Build, LIBRARY, SANITIZER};

/// Runs tests of this folder, whose names begin with one of these, under a sanitizer, with the kernels as they are or with another
/// library. Whether they passed, and all that was printed.
pub(super) fn run(build: Build, names: &[&str], library: Option<&Path>) -> (bool, String) {
    let (sanitizer, preload) = match build {
        Build::Plain => panic!("BUG: this build has no sanitizer"),
        Build::Address => ("address", "libasan.so"),
        Build::Thread => ("thread", "libtsan.so"),
    };
    let found = Command::new("g++").arg(format!("-print-file-name={preload}")).output();
    let found = String::from_utf8(found.expect("the other tests need g++ as well").stdout).expect("a path");
    assert!(found.contains('/'), "g++ has no {preload}; install the sanitizers of your g++");
    let here = module_path!().trim_start_matches("laptop_diff::").trim_end_matches("sanitizers");
    let mut command = Command::new(std::env::current_exe().expect("a test program has a path"));
    command.args(names.iter().map(|name| format!("{here}{name}"))).args(["--test-threads", "1"]);
    command.env("LD_PRELOAD", found.trim()).env(SANITIZER, sanitizer).env("RAYON_NUM_THREADS", "1");
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command.env("TSAN_OPTIONS", "ignore_noninstrumented_modules=1 halt_on_error=1");
    if let Some(library) = library {
        command.env(LIBRARY, library);
    }
    let output = command.output().expect("the test program can be started");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("running 0 tests"), "{text}");
    (output.status.success(), text.into_owned())
}

fn kernels(build: Build, names: &[&str]) {
    let (passed, text) = run(build, names, None);
    assert!(passed, "{build:?}: {text}");
}

#[test]
fn no_kernel_leaves_its_operands() {
    kernels(Build::Address, &["attention::", "columns::", "f16::", "geglu::", "norms::", "optimiser::"]);
}

#[test]
fn no_kernel_has_a_race() {
    // Those whose threads share memory; the shapes of causal attention have tiles of all kinds.
    kernels(
        Build::Thread,
        &["attention::causal", "attention::wide_heads_agree", "norms::", "optimiser::a_step"],
    );
}
