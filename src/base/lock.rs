//! Locks between processes of all machines that share a folder: leases. The file of a lock says who holds it, and is there
//! as long as it is held.
//!
//! A lock of the system (`flock`) would be given back when its holder dies, but on network file systems it often holds on one machine
//! only, or not at all. A lease asks of the file system only that one of several processes can create a file of a name.
//!
//! - A file is created with its contents: written beside, then linked to its name. Where the file system has no hard links,
//!   it is created and then written.
//! - A holder on this system that is dead loses its lease at once; one on another system when its heartbeat
//!   (`heartbeat`) was not seen for 30 seconds. No clocks are compared.
//! - Only one process may take a dead lease away: the one that creates a file named after that very lease, its grave, which is a lease too.
//!
//! A process that was suspended for longer than that wakes up without its lease ([`FileLock::is_ours`]). So a lease saves work, but
//! no bytes may depend on it: artefacts are put in place atomically, by content.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::heartbeat::{self, Pulse};
use super::holder::Life;
use super::lease::{Found, Lease, grave};
use super::silence::Silence;
use super::{Interrupt, files};

/// How long a waiting process sleeps between attempts: short compared with any stage, long compared with a system call.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// How long a holder on another system may be silent: six of its heartbeats.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    lease: Lease,
    _pulse: Arc<Pulse>,
}

impl FileLock {
    /// Takes the lock if nobody holds it, or a process of this system that is dead.
    pub fn attempt(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let found = match Self::create_or_find(path)? {
                Ok(lock) => return Ok(Some(lock)),
                Err(found) => found,
            };
            if found.life() != Life::Dead {
                return Ok(None);
            }
            let Some(digger) = Self::attempt(&grave(path, &found))? else { return Ok(None) };
            bury(path, &found, digger)?;
        }
    }

    /// Whether a process holds the lock, as far as that can be said at once: one of another system does. Writes nothing.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        Ok(Found::read(path)?.is_some_and(|found| found.life() != Life::Dead))
    }

    /// Takes the lock, waiting for the process that holds it; `waiting` is called once with its name. An interrupt while
    /// waiting is an error of kind [`io::ErrorKind::Interrupted`].
    pub fn acquire(path: &Path, interrupt: &Interrupt, waiting: &mut dyn FnMut(&str)) -> io::Result<Self> {
        Self::acquire_with(path, interrupt, waiting, PATIENCE)
    }

    fn acquire_with(
        path: &Path,
        interrupt: &Interrupt,
        waiting: &mut dyn FnMut(&str),
        patience: Duration,
    ) -> io::Result<Self> {
        let mut told = false;
        let mut seen: Option<Silence> = None;
        loop {
            let found = match Self::create_or_find(path)? {
                Ok(lock) => return Ok(lock),
                Err(found) => found,
            };
            let silence = seen.get_or_insert_with(|| Silence::new(found.clone()));
            let silent = silence.look(&found, Instant::now());
            let is_dead = match found.life() {
                Life::Lives => false,
                Life::Dead => true,
                Life::Elsewhere => silent >= patience,
            };
            if is_dead {
                let digger = Self::acquire_with(&grave(path, &found), interrupt, &mut |_| {}, patience)?;
                bury(path, &found, digger)?;
                continue;
            }
            if !told {
                waiting(&found.name());
                told = true;
            }
            if interrupt.asked() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the lock is still held by this process, which may have been suspended for long.
    pub fn is_ours(&self) -> bool {
        match Found::read(&self.path) {
            Ok(found) => found.and_then(|found| found.lease).is_some_and(|lease| lease == self.lease),
            // Nobody else says that it is theirs.
            Err(_) => true,
        }
    }

    /// Takes a lock that nobody has; otherwise says what stands there. Waiting processes look often, so they read and do not
    /// write.
    fn create_or_find(path: &Path) -> io::Result<Result<Self, Found>> {
        loop {
            if let Some(found) = Found::read(path)? {
                return Ok(Err(found));
            }
            if let Some(lock) = Self::create(path, hard_link)? {
                return Ok(Ok(lock));
            }
        }
    }

    /// Creates the file; `None` if there is one.
    fn create(path: &Path, link: fn(&Path, &Path) -> io::Result<()>) -> io::Result<Option<Self>> {
        let lease = Lease::new();
        let text = serde_json::to_string(&lease)?;
        let contents = Pulse::contents(&text, 0);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = folder.join(files::temporary_name(&lease.id));
        let create = |path: &Path| {
            let mut file = File::options().write(true).create_new(true).open(path)?;
            file.write_all(contents.as_bytes()).map(|()| file)
        };
        let file = match create(&beside) {
            Ok(file) => link(&beside, path).map(|()| file),
            Err(error) => Err(error),
        };
        let _ = fs::remove_file(&beside);
        let file = match file {
            // Over a network, an answer can get lost and the call be repeated.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match Found::read(path)? {
                Some(Found { lease: Some(found), .. }) if found == lease => {
                    File::options().write(true).open(path)
                }
                _ => return Ok(None),
            },
            Err(error) if has_no_links(&error) => match create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                created => created,
            },
            other => other,
        };
        let pulse = Arc::new(Pulse::new(file?, text));
        heartbeat::keep(&pulse);
        Ok(Some(Self { path: path.to_owned(), lease, _pulse: pulse }))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_ours() {
            // If it stays, it is one of a dead process soon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file of a dead lease, if it still stands there and shows no sign of life.
pub(super) fn bury(path: &Path, dead: &Found, _digger: FileLock) -> io::Result<()> {
    match Found::read(path)? {
        Some(found) if found == *dead => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)
}

/// Whether the error says that the file system has no hard links: EPERM on FAT, others elsewhere.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks
    ) || matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP | libc::EMLINK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    fn quietly(path: &Path) -> io::Result<FileLock> {
        FileLock::acquire(path, &Interrupt::default(), &mut |holder| panic!("{holder} has it"))
    }

    /// Puts a lease of another process in place.
    fn put(path: &Path, change: impl FnOnce(&mut serde_json::Value)) -> io::Result<()> {
        let mut lease = serde_json::to_value(Lease::new())?;
        change(&mut lease["holder"]);
        fs::write(path, Pulse::contents(&lease.to_string(), 0))
    }

    #[test]
    fn a_second_holder_waits_and_learns_the_name_of_the_first() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("locks/key");
        let first = quietly(&path)?;
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
        assert!(FileLock::is_held(&path)? && FileLock::attempt(&path)?.is_none() && first.is_ours());
        drop(first);
        waiter.join().expect("the waiter does not panic")?;
        assert!(!FileLock::is_held(&path)? && !FileLock::is_held(&folder.path().join("locks/other"))?);
        assert_eq!(fs::read_dir(folder.path().join("locks"))?.count(), 0, "nothing is left");
        Ok(())
    }

    #[test]
    fn waiting_ends_on_an_interrupt() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        let _first = quietly(&path)?;
        let interrupt = Interrupt::default();
        interrupt.ask();
        let second = FileLock::acquire(&path, &interrupt, &mut |_| {});
        assert_eq!(second.expect_err("the lock is taken").kind(), io::ErrorKind::Interrupted);
        Ok(())
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_dead_process_of_this_system_loses_its_lease_at_once() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        // Its number is ours, as if it had been used again.
        put(&path, |holder| holder["started"] = 1.into())?;
        assert!(!FileLock::is_held(&path)?);
        drop(quietly(&path)?);
        put(&path, |holder| holder["started"] = 1.into())?;
        assert!(FileLock::attempt(&path)?.is_some_and(|lock| lock.is_ours()));
        Ok(())
    }

    #[test]
    fn a_holder_elsewhere_is_waited_for_as_long_as_its_heart_beats() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        put(&path, |holder| holder["system"] = "another".into())?;
        assert!(FileLock::is_held(&path)? && FileLock::attempt(&path)?.is_none());
        let text = fs::read_to_string(&path)?.lines().next().map(str::to_owned).expect("a line");
        // Long compared with the pause of a busy machine between two beats.
        let patience = Duration::from_secs(1);
        let begun = Instant::now();
        let beats = std::thread::spawn(move || {
            for beats in 1..=5 {
                std::thread::sleep(Duration::from_millis(100));
                fs::write(folder.path().join("key"), Pulse::contents(&text, beats)).expect("writable");
            }
            folder
        });
        let mut told = 0;
        let taken = FileLock::acquire_with(&path, &Interrupt::default(), &mut |_| told += 1, patience)?;
        assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert!(taken.is_ours() && told == 1);
        beats.join().expect("it does not panic");
        Ok(())
    }

    #[test]
    fn of_many_that_find_a_dead_lease_one_has_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        for _ in 0..20 {
            put(&path, |holder| holder["started"] = 1.into())?;
            let inside = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let lock =
                            FileLock::acquire(&path, &Interrupt::default(), &mut |_| {}).expect("writable");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        std::thread::sleep(Duration::from_micros(300));
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    });
                }
            });
        }
        Ok(())
    }

    #[test]
    fn hard_links_are_not_needed() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("key");
        let refused: fn(&Path, &Path) -> io::Result<()> =
            |_, _| Err(io::Error::from_raw_os_error(libc::EPERM));
        let lock = FileLock::create(&path, refused)?.expect("nobody has it");
        assert!(FileLock::create(&path, refused)?.is_none() && FileLock::create(&path, hard_link)?.is_none());
        assert!(lock.is_ours());
        drop(lock);
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
