//! NVIDIA's driver: which GPUs there are and what they have. Its library is opened at run time.
//!
//! The calls are those of the CUDA driver API, <https://docs.nvidia.com/cuda/cuda-driver-api/>. They also work in a program that
//! was built without CUDA, which can then at least name the GPUs that it does not use.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::OnceLock;

use super::library::Library;
use super::nccl::Stream;

/// The library of the driver.
pub const LIBRARY: &str = "libcuda.so.1";

/// The driver, ready to answer.
#[derive(Debug)]
pub struct Driver {
    library: Library,
    /// The newest version of CUDA that it supports: 1000 times the major plus 10 times the minor version.
    pub cuda_version: i32,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number, as in `cuda:0`.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that nobody uses.
    pub free: u64,
    /// Compute capability, such as 8.0.
    pub capability: (i32, i32),
}

/// How much memory of a GPU this process has from the driver's pool, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Taken from the driver.
    pub reserved: u64,
    /// In tensors.
    pub used: u64,
    /// The most in tensors since the last reset.
    pub used_high: u64,
}

/// `CUmemPool_attribute`.
const RELEASE_THRESHOLD: c_uint = 4;
const RESERVED: c_uint = 5;
const USED: c_uint = 7;
const USED_HIGH: c_uint = 8;
/// `CUresult`: the stream has work left.
const NOT_READY: c_int = 600;
/// `CUdevice_attribute`.
const CAPABILITY_MAJOR: c_uint = 75;
const CAPABILITY_MINOR: c_uint = 76;

/// The driver of this machine, or why there is none.
pub fn driver() -> Result<&'static Driver, &'static str> {
    static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
    DRIVER.get_or_init(|| Driver::open(LIBRARY)).as_ref().map_err(String::as_str)
}

/// Whether the kernel knows a GPU of NVIDIA, on Linux or in WSL2. Takes no time, unlike asking the driver.
pub fn is_there() -> bool {
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|mut gpus| gpus.next().is_some());
    gpus || Path::new("/dev/dxg").exists()
}

impl Driver {
    /// Opens the library with this name and starts it.
    pub fn open(name: &str) -> Result<Self, String> {
        let mut driver = Self { library: Library::open(&[name])?, cuda_version: 0 };
        let init: unsafe extern "C" fn(c_uint) -> c_int = driver.function(c"cuInit")?;
        // SAFETY: `cuInit` takes flags, which must be 0.
        checked("cuInit", unsafe { init(0) })?;
        let version: unsafe extern "C" fn(*mut c_int) -> c_int = driver.function(c"cuDriverGetVersion")?;
        // SAFETY: it writes one number.
        checked("cuDriverGetVersion", unsafe { version(&mut driver.cuda_version) })?;
        Ok(driver)
    }

    /// Fails if the driver is older than `version` of CUDA: kernels that were compiled for that version do not load then.
    pub fn check_version(&self, version: i32) -> Result<(), String> {
        let shown = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        match self.cuda_version >= version {
            true => Ok(()),
            false => Err(format!(
                "the driver supports CUDA up to {}, and this program was built with {}; install a newer driver",
                shown(self.cuda_version),
                shown(version)
            )),
        }
    }

    /// All GPUs.
    pub fn cards(&self) -> Result<Vec<Card>, String> {
        let count: unsafe extern "C" fn(*mut c_int) -> c_int = self.function(c"cuDeviceGetCount")?;
        let mut number = 0;
        // SAFETY: it writes one number.
        checked("cuDeviceGetCount", unsafe { count(&mut number) })?;
        (0..usize::try_from(number).unwrap_or(0)).map(|index| self.card(index)).collect()
    }

    fn card(&self, index: usize) -> Result<Card, String> {
        let device = self.device(index)?;
        let name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int =
            self.function(c"cuDeviceGetName")?;
        let total: unsafe extern "C" fn(*mut usize, c_int) -> c_int =
            self.function(c"cuDeviceTotalMem_v2")?;
        let attribute: unsafe extern "C" fn(*mut c_int, c_uint, c_int) -> c_int =
            self.function(c"cuDeviceGetAttribute")?;
        let (mut text, mut memory) = ([0 as c_char; 256], 0usize);
        // SAFETY: it writes at most 256 bytes, with a null byte at the end.
        checked("cuDeviceGetName", unsafe { name(text.as_mut_ptr(), 255, device) })?;
        // SAFETY: the last byte of the buffer is null, whatever was written.
        let name = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        // SAFETY: it writes one number.
        checked("cuDeviceTotalMem", unsafe { total(&mut memory, device) })?;
        let number = |which| {
            let mut value = 0;
            // SAFETY: it writes one number.
            checked("cuDeviceGetAttribute", unsafe { attribute(&mut value, which, device) }).map(|()| value)
        };
        let capability = (number(CAPABILITY_MAJOR)?, number(CAPABILITY_MINOR)?);
        Ok(Card { index, name, memory: memory as u64, free: self.free(index)?, capability })
    }

    /// Bytes of a GPU that can be allocated: what nobody has, and what this process's pool holds unused.
    pub fn free(&self, index: usize) -> Result<u64, String> {
        let info: unsafe extern "C" fn(*mut usize, *mut usize) -> c_int =
            self.function(c"cuMemGetInfo_v2")?;
        let (mut free, mut total) = (0usize, 0usize);
        self.within(index, || {
            // SAFETY: a context is current, and it writes two numbers.
            checked("cuMemGetInfo", unsafe { info(&mut free, &mut total) })
        })?;
        let pool = self.pool(index).unwrap_or_default();
        Ok(free as u64 + pool.reserved.saturating_sub(pool.used))
    }

    /// What the pool of this process holds.
    pub fn pool(&self, index: usize) -> Result<Pool, String> {
        let get: unsafe extern "C" fn(*mut c_void, c_uint, *mut c_void) -> c_int =
            self.function(c"cuMemPoolGetAttribute")?;
        let pool = self.default_pool(index)?;
        let number = |which| {
            let mut value = 0u64;
            // SAFETY: these attributes are numbers of 64 bits.
            let status = unsafe { get(pool, which, (&raw mut value).cast()) };
            checked("cuMemPoolGetAttribute", status).map(|()| value)
        };
        Ok(Pool { reserved: number(RESERVED)?, used: number(USED)?, used_high: number(USED_HIGH)? })
    }

    /// Makes [`Pool::used_high`] begin at what is used now.
    pub fn reset_peak(&self, index: usize) -> Result<(), String> {
        self.set(index, USED_HIGH, 0)
    }

    /// Keeps freed memory in the pool. By default all of it goes back to the driver whenever the host waits for the GPU,
    /// and is mapped again for the next tensors.
    pub fn keep_freed(&self, index: usize) -> Result<(), String> {
        self.set(index, RELEASE_THRESHOLD, u64::MAX)
    }

    /// Whether everything that was asked of a stream of a GPU is done. Does not wait.
    ///
    /// # Safety
    ///
    /// `stream` is a stream of that GPU, of the context that tensors live in.
    pub unsafe fn is_done(&self, index: usize, Stream(stream): Stream) -> Result<bool, String> {
        let query: unsafe extern "C" fn(*mut c_void) -> c_int = self.function(c"cuStreamQuery")?;
        let mut is_done = true;
        self.within(index, || {
            // SAFETY: the caller's; a context is current.
            match unsafe { query(stream) } {
                NOT_READY => is_done = false,
                status => checked("cuStreamQuery", status)?,
            }
            Ok(())
        })?;
        Ok(is_done)
    }

    fn set(&self, index: usize, which: c_uint, mut value: u64) -> Result<(), String> {
        let set: unsafe extern "C" fn(*mut c_void, c_uint, *mut c_void) -> c_int =
            self.function(c"cuMemPoolSetAttribute")?;
        let pool = self.default_pool(index)?;
        // SAFETY: these attributes are numbers of 64 bits.
        checked("cuMemPoolSetAttribute", unsafe { set(pool, which, (&raw mut value).cast()) })
    }

    fn default_pool(&self, index: usize) -> Result<*mut c_void, String> {
        let get: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
            self.function(c"cuDeviceGetDefaultMemPool")?;
        let (device, mut pool) = (self.device(index)?, std::ptr::null_mut());
        // SAFETY: it writes one pointer.
        checked("cuDeviceGetDefaultMemPool", unsafe { get(&mut pool, device) })?;
        Ok(pool)
    }

    /// The driver's handle of a GPU.
    fn device(&self, index: usize) -> Result<c_int, String> {
        let get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int = self.function(c"cuDeviceGet")?;
        let (mut device, index) = (0, c_int::try_from(index).map_err(|error| error.to_string())?);
        // SAFETY: it writes one number.
        checked("cuDeviceGet", unsafe { get(&mut device, index) })?;
        Ok(device)
    }

    /// Calls `act` with the primary context of a GPU, the one that tensors live in, current in this thread.
    fn within(&self, index: usize, act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
            self.function(c"cuDevicePrimaryCtxRetain")?;
        let release: unsafe extern "C" fn(c_int) -> c_int = self.function(c"cuDevicePrimaryCtxRelease_v2")?;
        let push: unsafe extern "C" fn(*mut c_void) -> c_int = self.function(c"cuCtxPushCurrent_v2")?;
        let pop: unsafe extern "C" fn(*mut *mut c_void) -> c_int = self.function(c"cuCtxPopCurrent_v2")?;
        let (device, mut context) = (self.device(index)?, std::ptr::null_mut());
        // SAFETY: it writes one pointer.
        checked("cuDevicePrimaryCtxRetain", unsafe { retain(&mut context, device) })?;
        // SAFETY: the context was just retained.
        let result = checked("cuCtxPushCurrent", unsafe { push(context) }).and_then(|()| {
            let result = act();
            // SAFETY: what was pushed is popped in the same thread.
            checked("cuCtxPopCurrent", unsafe { pop(&mut context) }).and(result)
        });
        // SAFETY: the context was retained once here.
        checked("cuDevicePrimaryCtxRelease", unsafe { release(device) }).and(result)
    }

    /// A function of the driver, whose type the caller knows.
    fn function<F: Copy>(&self, name: &CStr) -> Result<F, String> {
        self.library.function(name).ok_or_else(|| format!("{LIBRARY} has no {}", name.to_string_lossy()))
    }
}

/// Fails with the driver's number if it is not 0.
fn checked(call: &str, status: c_int) -> Result<(), String> {
    match status {
        0 => Ok(()),
        100 => Err(format!("{call}: the driver finds no GPU")),
        803 => Err(format!(
            "{call}: the kernel's driver and {LIBRARY} have different versions; restart the machine"
        )),
        number => Err(format!("{call} failed with error {number} of the CUDA driver")),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// A driver with one card, whose pool was given 6000 bytes, of which 4000 are used.
    const FAKE: &str = include_str!("../../tests/fake_driver/driver.c");

    #[test]
    fn a_driver_says_what_its_cards_have() -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (source, library) = (folder.path().join("fake.c"), folder.path().join("libfake.so"));
        std::fs::write(&source, FAKE).map_err(|error| error.to_string())?;
        // Rust's linker needs the same compiler.
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .map_err(|error| error.to_string())?;
        assert!(compiled.success());
        let driver = Driver::open(library.to_str().expect("plain text"))?;
        assert_eq!(driver.cuda_version, 13000);
        let free = (20u64 << 30) + 2000;
        let (name, memory) = ("Card of a test".to_owned(), 24u64 << 30);
        assert_eq!(driver.cards()?, [Card { index: 0, name, memory, free, capability: (8, 6) }]);
        assert_eq!(driver.pool(0)?, Pool { reserved: 6000, used: 4000, used_high: 5000 });
        assert_eq!(driver.check_version(13000), Ok(()));
        let old = driver.check_version(13010).expect_err("it is older");
        assert!(
            old.starts_with("the driver supports CUDA up to 13.0, and this program was built with 13.1"),
            "{old}"
        );
        driver.reset_peak(0)?;
        assert_eq!(driver.pool(0)?.used_high, 4000);
        driver.keep_freed(0)?;
        let refused = driver.free(1).expect_err("there is one card");
        assert_eq!(refused, "cuDeviceGet failed with error 101 of the CUDA driver");
        Ok(())
    }
}
