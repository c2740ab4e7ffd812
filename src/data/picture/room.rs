//! How much memory pictures may take while they are decoded. Several threads decode at once, and one picture of 60
//! megapixels takes as much as a thousand small ones.

use std::sync::{Condvar, Mutex, PoisonError};

/// An amount of memory that threads share.
pub struct Room {
    total: u64,
    free: Mutex<u64>,
    returned: Condvar,
}

/// A part of a [`Room`], given back when it is dropped.
pub struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { total: bytes, free: Mutex::new(bytes), returned: Condvar::new() }
    }

    /// Waits until `bytes` are free. What is larger than the whole room waits until it is alone.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.total);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.returned.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Taken { room: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.room.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_at_once_than_there_is() {
        let (room, taken) = (Room::new(10), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for asked in [4, 7, 100, 3, 10, 6] {
                let (room, taken) = (&room, &taken);
                scope.spawn(move || {
                    let _part = room.take(asked);
                    let before = taken.fetch_add(asked.min(10), Ordering::SeqCst);
                    assert!(before + asked.min(10) <= 10);
                    std::thread::yield_now();
                    taken.fetch_sub(asked.min(10), Ordering::SeqCst);
                });
            }
        });
    }
}
