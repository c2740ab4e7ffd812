//! Locks between processes, on files. The system releases them when their holder exits for any reason.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use super::Interrupt;

/// How long a waiting process sleeps between attempts: short compared with any stage, long compared with a system call.
const PAUSE: Duration = Duration::from_millis(50);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock if nobody holds it.
    pub fn attempt(path: &Path) -> io::Result<Option<Self>> {
        let file = Self::open(path)?;
        match file.try_lock() {
            Ok(()) => {
                sign(path);
                Ok(Some(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a process holds the lock. Writes nothing.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            file => match file?.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
        }
    }

    /// Takes the lock, waiting for the process that holds it; `waiting` is called once with its name. An interrupt
    /// while waiting is an error of kind [`io::ErrorKind::Interrupted`].
    ///
    /// The file stays when the lock is dropped: if it were removed, two processes could hold locks on two files of
    /// one name.
    pub fn acquire(path: &Path, interrupt: &Interrupt, waiting: &mut dyn FnMut(&str)) -> io::Result<Self> {
        let mut file = Self::open(path)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if !told {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                waiting(if holder.is_empty() { "another process" } else { &holder });
                told = true;
            }
            if interrupt.asked() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            std::thread::sleep(PAUSE);
        }
        sign(path);
        Ok(Self { _file: file })
    }

    fn open(path: &Path) -> io::Result<File> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        File::options().read(true).write(true).create(true).truncate(false).open(path)
    }
}

/// Writes who holds the lock. This is only information for people, so a full disk must not make the lock fail.
fn sign(path: &Path) {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("process {} on {}", std::process::id(), host.trim());
    let _ =
        File::options().write(true).truncate(true).open(path).and_then(|mut f| f.write_all(name.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_second_holder_waits_and_learns_the_name_of_the_first() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("locks/key");
        let first = FileLock::acquire(&path, &Interrupt::default(), &mut |_| panic!("nobody has it"))?;
        let (told, holder) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            FileLock::acquire(&path, &Interrupt::default(), &mut |holder| {
                told.send(holder.to_owned()).expect("the test listens");
            })
            .map(drop)
        });
        let holder = holder.recv().expect("the waiter tells");
        assert!(holder.starts_with(&format!("process {} on ", std::process::id())), "{holder}");
        let path = folder.path().join("locks/key");
        assert!(FileLock::is_held(&path)?);
        drop(first);
        waiter.join().expect("the waiter does not panic")?;
        assert!(!FileLock::is_held(&path)? && !FileLock::is_held(&folder.path().join("locks/other"))?);
        Ok(())
    }

    #[test]
    fn waiting_ends_on_an_interrupt() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        let _first = FileLock::acquire(&path, &Interrupt::default(), &mut |_| {})?;
        let interrupt = Interrupt::default();
        interrupt.ask();
        let second = FileLock::acquire(&path, &interrupt, &mut |_| {});
        assert_eq!(second.expect_err("the lock is taken").kind(), io::ErrorKind::Interrupted);
        Ok(())
    }
}
