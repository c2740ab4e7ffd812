//! Several objects at a time: an artefact may have hundreds of small files, and each takes a round trip.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How many at a time. More would help little, and a slow line would be shared by too many.
const WORKERS: usize = 8;

/// Does the work for each item. After the first error no other item is begun; it is returned.
pub(super) fn each<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let locked = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while locked().is_none()
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = work(item) {
                        locked().get_or_insert(error);
                    }
                }
            });
        }
    });
    let ended = locked().take();
    ended.map_or(Ok(()), Err)
}
