//! Runs kernels on the CPU: the library that g++ builds from them.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{Result, bail};

use crate::nn::cuda::launch::{Argument, Launch, Launcher};

/// How a library is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    Plain,
    Address,
    Thread,
}

/// The sanitizer for which a test process has been started, if any: `address` or `thread`.
pub(super) const SANITIZER: &str = "LAPTOP_DIFF_TEST_SANITIZER";
/// The library with which a test process has been started, instead of the kernels as they are.
pub(super) const LIBRARY: &str = "LAPTOP_DIFF_TEST_CUDA_LIBRARY";

impl Build {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        match std::env::var(SANITIZER).as_deref() {
            Ok("address") => Self::Address,
            Ok("thread") => Self::Thread,
            _ => Self::Plain,
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["-O1"],
            Self::Address => &["-O0", "-g1", "-fsanitize=address,alignment", "-fno-sanitize-recover=all"],
            Self::Thread => &["-O1", "-g1", "-fsanitize=thread"],
        }
    }
}

/// The folder of the kernels.
pub(super) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nn/cuda")
}

/// Compiles the kernels in `folder` to a library at `to`.
pub(super) fn compile(folder: &Path, build: Build, to: &Path) {
    // Products and sums are not contracted, so that `optimiser.cu` gives the bits of the CPU.
    let run = Command::new("g++")
        .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"])
        // Hidden, or two libraries in one process would share what is `inline`, and with it their kernels.
        .args(["-shared", "-fPIC", "-fvisibility=hidden"])
        .args(build.flags())
        .arg(folder.join("emulation/library.cpp"))
        .arg("-o")
        .arg(to)
        .output();
    let run = run.unwrap_or_else(|error| {
        panic!("the tests of the CUDA kernels need g++: {error}; install it, for example `apt install g++`")
    });
    assert!(run.status.success(), "g++ {build:?}: {}", String::from_utf8_lossy(&run.stderr));
}

/// The library of the kernels as they are. It is kept beside the test program, under a name made from its sources.
fn library(build: Build) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for folder in [sources(), sources().join("emulation")] {
        let entries = fs::read_dir(folder).expect("a readable folder");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|e| e != "rs")) {
            hasher.update(&fs::read(file).expect("a readable file")).update(b"\0");
        }
    }
    hasher.update(build.flags().join(" ").as_bytes());
    let program = std::env::current_exe().expect("a test program has a path");
    let folder = program.parent().expect("a file has a folder");
    let name = format!("cuda-kernels-{build:?}-{}.so", &hasher.finalize().to_hex()[..16]);
    let (kept, new) = (folder.join(&name), folder.join(format!("{name}.{}", std::process::id())));
    if !kept.exists() {
        compile(&sources(), build, &new);
        fs::rename(&new, &kept).expect("a new file can be renamed");
    }
    kept
}

/// `emulation_launch` in `emulation/library.cpp`.
type LaunchFunction = unsafe extern "C" fn(
    *const c_char,
    *const c_uint,
    c_uint,
    c_uint,
    c_uint,
    *const c_char,
    *mut *mut c_void,
    *mut c_char,
    usize,
) -> c_int;

/// A library with one schedule: the order in which threads and copies advance.
#[derive(Clone, Copy)]
pub(in crate::nn) struct Emulator {
    function: LaunchFunction,
    seed: u32,
}

impl Emulator {
    /// Opens a library, which stays loaded.
    pub(super) fn open(library: &Path) -> Self {
        let path = CString::new(library.as_os_str().as_encoded_bytes()).expect("a path without NUL");
        // SAFETY: the library has no initialisers but the registration of its kernels.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "{} cannot be loaded", library.display());
        // SAFETY: the handle is open, and the name ends in NUL.
        let symbol = unsafe { libc::dlsym(handle, c"emulation_launch".as_ptr()) };
        assert!(!symbol.is_null(), "{} has no emulation_launch", library.display());
        // SAFETY: `emulation/library.cpp` defines the function with this signature.
        Self { function: unsafe { std::mem::transmute::<*mut c_void, LaunchFunction>(symbol) }, seed: 0 }
    }

    fn under(self, seeds: Range<u32>) -> Vec<Self> {
        seeds.map(|seed| Self { seed, ..self }).collect()
    }

    /// All kinds of schedule, one of them with two seeds.
    pub(super) fn under_five_schedules(self) -> Vec<Self> {
        self.under(0..5)
    }

    /// The kernels as they are, under each schedule. A sanitizer sees what it looks for under any, so one suffices.
    pub(super) fn schedules() -> Vec<Self> {
        static FIRST: OnceLock<Emulator> = OnceLock::new();
        let build = Build::of_process();
        let own = || std::env::var_os(LIBRARY).map_or_else(|| library(build), PathBuf::from);
        let first = FIRST.get_or_init(|| Self::open(&own()));
        if build == Build::Plain { first.under_five_schedules() } else { first.under(3..4) }
    }
}

thread_local! {
    /// Kernels and products that this thread has run.
    pub(super) static LAUNCHES: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn count_launch() {
    LAUNCHES.set(LAUNCHES.get() + 1);
}

impl Launcher for Emulator {
    fn launch(&self, launch: &Launch) -> Result<()> {
        count_launch();
        let mut values = launch.arguments.clone();
        let kinds: String = values.iter().map(kind).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(address).collect();
        let name = CString::new(launch.kernel.as_str()).expect("a name without NUL");
        let kinds = CString::new(kinds).expect("letters");
        let mut error = [0u8; 256];
        // SAFETY: the library checks the name and the kinds; the operands' sizes are what the tests are about.
        let failed = unsafe {
            (self.function)(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.threads,
                launch.shared_bytes,
                self.seed,
                kinds.as_ptr(),
                pointers.as_mut_ptr(),
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        if failed != 0 {
            let text = error.split(|byte| *byte == 0).next().unwrap_or_default();
            bail!("{}: {}", launch.kernel, String::from_utf8_lossy(text))
        }
        Ok(())
    }
}

/// The letter of an argument, as in `emulation/registry.h`.
fn kind(argument: &Argument) -> char {
    match argument {
        Argument::Pointer(_) => 'p',
        Argument::Int(_) => 'i',
        Argument::Float(_) => 'f',
    }
}

fn address(argument: &mut Argument) -> *mut c_void {
    match argument {
        Argument::Pointer(value) => std::ptr::from_mut(value).cast(),
        Argument::Int(value) => std::ptr::from_mut(value).cast(),
        Argument::Float(value) => std::ptr::from_mut(value).cast(),
    }
}
