//! NVIDIA's library for exchanges between GPUs, opened at run time. What the cards of one machine exchange does not pass
//! through the host; between machines it takes the fastest network that the library finds.
//!
//! The calls are those of <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html>. They are put on a stream and
//! return at once.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::library::Library;

/// The library.
pub const LIBRARY: &str = "libnccl.so.2";

/// `ncclResult_t`: no error. `ncclInProgress` is the state of a group whose calls do not block, which ours do.
const SUCCESS: c_int = 0;
/// `ncclDataType_t`.
const F32: c_int = 7;

/// The name of a group, which its rank 0 makes and tells the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupName(pub [u8; 128]);

/// Numbers in the memory of this rank's GPU, of type f32.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The address of the first.
    pub address: u64,
    /// How many.
    pub count: usize,
}

/// A stream of this rank's GPU.
#[derive(Clone, Copy, Debug)]
pub struct Stream(pub *mut c_void);

// SAFETY: it is a handle, which the driver allows in any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// Whether all work of a stream is done.
pub type IsDone = Box<dyn Fn() -> Result<bool, String> + Send + Sync>;

/// The library's calls, as its header declares them.
#[derive(Clone, Copy, Debug)]
struct Calls {
    words: unsafe extern "C" fn(c_int) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    name: unsafe extern "C" fn(*mut GroupName) -> c_int,
    join: unsafe extern "C" fn(*mut *mut c_void, c_int, GroupName, c_int) -> c_int,
    send: Exchange,
    receive: Exchange,
    broadcast: Broadcast,
    failure: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(*mut c_void) -> c_int,
}

type Exchange = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;
type Broadcast =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;

/// The open library.
#[derive(Clone, Copy, Debug)]
pub struct Nccl {
    calls: Calls,
}

impl Nccl {
    /// Opens the library of this name.
    pub fn open(name: &str) -> Result<Self, String> {
        let library = Library::open(&[name])?;
        let calls = Calls {
            words: find(library, c"ncclGetErrorString")?,
            version: find(library, c"ncclGetVersion")?,
            name: find(library, c"ncclGetUniqueId")?,
            join: find(library, c"ncclCommInitRank")?,
            send: find(library, c"ncclSend")?,
            receive: find(library, c"ncclRecv")?,
            broadcast: find(library, c"ncclBroadcast")?,
            failure: find(library, c"ncclCommGetAsyncError")?,
            abort: find(library, c"ncclCommAbort")?,
        };
        let (nccl, mut found) = (Self { calls }, 0);
        // SAFETY: it writes one number.
        nccl.checked("ncclGetVersion", unsafe { (calls.version)(&mut found) })?;
        Ok(nccl)
    }

    /// A new name for a group. Other ranks reach this process by it over the network.
    pub fn name_group(&self) -> Result<GroupName, String> {
        let mut name = GroupName([0; 128]);
        // SAFETY: it writes 128 bytes.
        self.checked("ncclGetUniqueId", unsafe { (self.calls.name)(&mut name) })?;
        Ok(name)
    }

    /// Joins a group as one of `size` ranks with the GPU that is current in this thread. Returns when all have joined.
    pub fn join(self, name: GroupName, rank: usize, size: usize) -> Result<Group, String> {
        let mut handle = null_mut();
        // SAFETY: it writes one handle; the name is passed by value, as a C struct of 128 bytes.
        let status = unsafe { (self.calls.join)(&mut handle, size as c_int, name, rank as c_int) };
        self.checked("ncclCommInitRank", status)?;
        Ok(Group { nccl: self, handle })
    }

    /// Fails with the library's own words.
    fn checked(&self, call: &str, status: c_int) -> Result<(), String> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: it gives a constant text.
        let words = unsafe { CStr::from_ptr((self.calls.words)(status)) }.to_string_lossy();
        Err(format!("{call}: {words}"))
    }
}

/// A call of the library. Versions before 2.7 lack some.
fn find<F: Copy>(library: Library, name: &CStr) -> Result<F, String> {
    let missing = || format!("{LIBRARY} has no {}; install a newer one", name.to_string_lossy());
    library.function(name).ok_or_else(missing)
}

/// The ranks of a group. All of them put matching exchanges on their streams, in the same order.
#[derive(Debug)]
pub struct Group {
    nccl: Nccl,
    handle: *mut c_void,
}

// SAFETY: NCCL allows a group in any thread, one at a time; the methods are called by the thread that trains.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Group {
    /// Sends numbers to another rank.
    ///
    /// # Safety
    ///
    /// The numbers are there, written or being written on the same stream, and are freed on it.
    pub unsafe fn send(&self, numbers: Numbers, to: usize, stream: Stream) -> Result<(), String> {
        // SAFETY: the caller's.
        let status = unsafe { self.exchange(self.nccl.calls.send, numbers, to, stream) };
        self.nccl.checked("ncclSend", status)
    }

    /// Receives numbers from another rank.
    ///
    /// # Safety
    ///
    /// As [`Group::send`]; nobody else writes or reads them but later on the same stream.
    pub unsafe fn receive(&self, numbers: Numbers, from: usize, stream: Stream) -> Result<(), String> {
        // SAFETY: the caller's.
        let status = unsafe { self.exchange(self.nccl.calls.receive, numbers, from, stream) };
        self.nccl.checked("ncclRecv", status)
    }

    /// Copies the numbers of one rank to all.
    ///
    /// # Safety
    ///
    /// As [`Group::receive`].
    pub unsafe fn broadcast(&self, numbers: Numbers, from: usize, stream: Stream) -> Result<(), String> {
        let (place, Numbers { count, .. }) = (numbers.address as *mut c_void, numbers);
        // SAFETY: the caller's. Both addresses may be the same.
        let status = unsafe {
            (self.nccl.calls.broadcast)(place, place, count, F32, from as c_int, self.handle, stream.0)
        };
        self.nccl.checked("ncclBroadcast", status)
    }

    unsafe fn exchange(&self, call: Exchange, numbers: Numbers, peer: usize, stream: Stream) -> c_int {
        let Numbers { address, count } = numbers;
        // SAFETY: the caller's.
        unsafe { call(address as *mut c_void, count, F32, peer as c_int, self.handle, stream.0) }
    }

    /// What went wrong on the network or on a card since, if anything did.
    pub fn failure(&self) -> Option<String> {
        let mut status = SUCCESS;
        // SAFETY: it writes one number.
        let asked = unsafe { (self.nccl.calls.failure)(self.handle, &mut status) };
        let asked = self.nccl.checked("ncclCommGetAsyncError", asked);
        asked.and_then(|()| self.nccl.checked("an exchange between GPUs", status)).err()
    }
}

/// Leaves the group without waiting for the others, who may be gone: exchanges that are not done are given up.
impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle is not used afterwards.
        let _ = unsafe { (self.nccl.calls.abort)(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs NCCL: put the folder of libnccl.so.2 into LD_LIBRARY_PATH"]
    fn the_real_library_has_all_calls_and_names_groups() -> Result<(), String> {
        let nccl = Nccl::open(LIBRARY)?;
        let names = [nccl.name_group()?, nccl.name_group()?];
        assert_ne!(names[0], names[1]);
        assert_eq!(
            nccl.checked("a call", 4),
            Err("a call: invalid argument (run with NCCL_DEBUG=WARN for details)".to_owned())
        );
        Ok(())
    }
}
