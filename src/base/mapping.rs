//! Files mapped into memory. If somebody makes a mapped file shorter, or its disk fails, the system sends SIGBUS to the
//! reader; the program then ends with a message that names the file.

use std::ops::Deref;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use std::{fs, io, mem, ptr};

use memmap2::{Mmap, UncheckedAdvice};

use super::shown;

/// A file that is mapped into memory, read only.
#[derive(Debug)]
pub struct Mapping {
    bytes: Mmap,
    row: &'static Row,
}

/// What the signal handler knows of one mapping. A handler may only use atomic values and memory that stays, so rows
/// form a list that only grows; the row of a mapping that is dropped is used again.
#[derive(Debug)]
struct Row {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    message: AtomicPtr<String>,
    next: AtomicPtr<Row>,
}

static ROWS: AtomicPtr<Row> = AtomicPtr::new(ptr::null_mut());
static EXIT_CODE: AtomicI32 = AtomicI32::new(1);
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Mapping {
    /// Maps a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        // SAFETY: the map is read only. We write to no file in place. Another program may: other bytes are wrong however
        // they are read, and if the file becomes shorter, reading it ends the program by `report_faults`.
        let bytes = unsafe { Mmap::map(&file) }?;
        let row = Row::take();
        let message = format!(
            "\n{}: became shorter while it was read, or its disk failed\n  help: restore the file, and leave it \
             unchanged while laptop-diff reads it\n",
            shown::line(&path.to_string_lossy())
        );
        row.message.store(Box::into_raw(Box::new(message)), Ordering::Release);
        row.start.store(bytes.as_ptr().addr(), Ordering::Release);
        row.end.store(bytes.as_ptr().addr() + bytes.len(), Ordering::Release);
        Ok(Self { bytes, row })
    }

    /// Lets the system reclaim the memory of bytes of this mapping that have been read; otherwise a model would be in
    /// memory twice.
    pub fn forget(&self, bytes: &[u8]) {
        let start = bytes.as_ptr().addr() - self.bytes.as_ptr().addr();
        // SAFETY: the map is read only and backed by a file, so reading these bytes again gives the same values.
        let advised =
            unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, start, bytes.len()) };
        // If the system declines, only memory is lost.
        drop(advised);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.row.end.store(0, Ordering::Release);
        self.row.start.store(0, Ordering::Release);
        let message = self.row.message.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: `open` made it of a box. The handler reads it only for a fault inside this mapping, which nobody reads
        // any more.
        drop(unsafe { Box::from_raw(message) });
        self.row.taken.store(false, Ordering::Release);
    }
}

impl Row {
    /// A row for one mapping.
    fn take() -> &'static Self {
        let mut rows = Self::all();
        if let Some(free) = rows.find(|row| !row.taken.swap(true, Ordering::AcqRel)) {
            return free;
        }
        let row: &'static Self = Box::leak(Box::new(Self {
            taken: AtomicBool::new(true),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            message: AtomicPtr::new(ptr::null_mut()),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let put = |first: *mut Self| {
            row.next.store(first, Ordering::Release);
            Some(ptr::from_ref(row).cast_mut())
        };
        ROWS.fetch_update(Ordering::AcqRel, Ordering::Acquire, put).expect("`put` always gives a row");
        row
    }

    fn all() -> impl Iterator<Item = &'static Self> {
        // SAFETY: rows are never freed, so a pointer to one is valid for ever.
        let at = |row: *mut Self| unsafe { row.as_ref() };
        std::iter::successors(at(ROWS.load(Ordering::Acquire)), move |row| {
            at(row.next.load(Ordering::Acquire))
        })
    }
}

/// From now on, a fault in a mapped file ends the program with a message and this exit code.
pub fn report_faults(exit_code: u8) {
    EXIT_CODE.store(i32::from(exit_code), Ordering::Release);
    // SAFETY: both structs are plain numbers that the calls fill, and `on_fault` has the signature of SA_SIGINFO.
    unsafe {
        let mut before: libc::sigaction = mem::zeroed();
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &action, &mut before) == 0 {
            // The first is the one that was there before this program's own.
            let _ = BEFORE.set(before);
        }
    }
}

/// Runs inside the signal: atomic reads, `write` and `_exit` are allowed there.
extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid `info`.
    let address = unsafe { (*info).si_addr() }.addr();
    let holds =
        |row: &&Row| (row.start.load(Ordering::Acquire)..row.end.load(Ordering::Acquire)).contains(&address);
    // SAFETY: the message of a mapping that is being read is there until it is dropped, and all calls are
    // async-signal-safe.
    unsafe {
        if let Some(message) =
            Row::all().find(holds).and_then(|row| row.message.load(Ordering::Acquire).as_ref())
        {
            libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
            libc::_exit(EXIT_CODE.load(Ordering::Acquire));
        }
        // Not ours: the read is tried again, and the fault goes to who handled it before.
        if let Some(before) = BEFORE.get() {
            libc::sigaction(libc::SIGBUS, before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_used_again() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights");
        fs::write(&path, b"bytes")?;
        let both = [Mapping::open(&path)?, Mapping::open(&path)?];
        assert!(!ptr::eq(both[0].row, both[1].row));
        assert_eq!(&*both[0], b"bytes");
        drop(both);
        let before = Row::all().count();
        for _ in 0..50 {
            Mapping::open(&path)?;
        }
        // Other tests map files at the same time.
        assert!(Row::all().count() < before + 50);
        Ok(())
    }
    const FOLDER: &str = "LAPTOP_DIFF_TEST_FOLDER";

    #[test]
    #[ignore = "needs to be started by `a_file_that_becomes_shorter_ends_the_program_with_its_name`"]
    fn reads_a_file_that_becomes_shorter() -> io::Result<()> {
        let folder = std::env::var_os(FOLDER).expect("only the test below runs this");
        let path = Path::new(&folder).join("weights\u{1b}");
        fs::write(&path, vec![1; 1 << 20])?;
        report_faults(4);
        let other = Mapping::open(&std::env::current_exe()?)?;
        let mapping = Mapping::open(&path)?;
        assert_eq!(mapping[1 << 19], 1);
        fs::File::options().write(true).open(&path)?.set_len(10)?;
        panic!("BUG: the end of the file was read: {} of {} bytes", mapping[1 << 19], other.len());
    }

    #[test]
    fn a_file_that_becomes_shorter_ends_the_program_with_its_name() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let name = "base::mapping::tests::reads_a_file_that_becomes_shorter";
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", "--ignored", name])
            .env(FOLDER, folder.path())
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains("weights\\u{1b}: became shorter while it was read"), "{text}");
        Ok(())
    }
}
