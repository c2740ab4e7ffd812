//! Shared libraries that are opened at run time, so that the program starts where they are missing.

use std::ffi::{CStr, c_void};
use std::mem::transmute_copy;

/// An open library. It stays open until the process ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Library {
    handle: *mut c_void,
}

// SAFETY: a handle of `dlopen` may be used from any thread, and it is never closed.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Where WSL2 keeps the driver's libraries, which is not on every distribution's search path.
const WSL: &str = "/usr/lib/wsl/lib";

impl Library {
    /// Opens the first library that exists, by its name on the search path of the system or in WSL2's folder; the error
    /// says what was not found.
    #[cfg(unix)]
    pub(super) fn open(names: &[&str]) -> Result<Self, String> {
        use std::ffi::CString;
        let mut why = String::new();
        for name in names.iter().flat_map(|name| [(*name).to_owned(), format!("{WSL}/{name}")]) {
            let path = CString::new(name.as_str()).map_err(|error| error.to_string())?;
            // SAFETY: the path ends in a null byte. NVIDIA's libraries may be loaded at any time.
            let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if !handle.is_null() {
                return Ok(Self { handle });
            }
            // A library that is there and cannot be loaded has a reason of its own; one that is missing has none.
            let reason = last_error();
            if !reason.contains("No such file") && !reason.contains("image not found") {
                why = format!(" ({reason})");
            }
        }
        match why.is_empty() {
            true => Err(format!("{} not found", names[0])),
            false => Err(format!("{} cannot be loaded{why}", names[0])),
        }
    }

    /// Opens nothing on other systems.
    #[cfg(not(unix))]
    pub(super) fn open(names: &[&str]) -> Result<Self, String> {
        Err(format!("{} not found: libraries are not loaded on this system", names[0]))
    }

    /// A function, whose type the caller knows, or `None` if the library lacks it.
    pub(super) fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "BUG: {name:?} is asked for as no function");
        // SAFETY: all callers give the type that NVIDIA documents for this name, and pointers have one size.
        self.address(name).map(|address| unsafe { transmute_copy::<*mut c_void, F>(&address) })
    }

    /// The address of a function, or `None` if the library lacks it.
    #[cfg(unix)]
    pub(super) fn address(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is open, and the name ends in a null byte.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }

    /// Nothing can be open on other systems.
    #[cfg(not(unix))]
    pub(super) fn address(&self, _: &CStr) -> Option<*mut c_void> {
        None
    }
}

/// The words of the system for the last failure.
#[cfg(unix)]
fn last_error() -> String {
    // SAFETY: `dlerror` gives null or a text that lives until the next call of this thread.
    unsafe {
        let text = libc::dlerror();
        match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let missing = Library::open(&["libno-such-thing.so.7"]).expect_err("nobody has it");
        assert_eq!(missing, "libno-such-thing.so.7 not found");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("libbroken.so");
        std::fs::write(&path, "not a library").expect("writable");
        let broken = Library::open(&[path.to_str().expect("plain text")]).expect_err("it is no library");
        assert!(broken.contains("cannot be loaded ("), "{broken}");
    }
}
