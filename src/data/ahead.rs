//! Work done ahead in several threads and handed over in order, with a bound on how far ahead it runs.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The finished pieces that nobody took yet.
struct State<T> {
    /// The next piece to begin.
    next: usize,
    /// How many pieces were taken.
    taken: usize,
    done: BTreeMap<usize, T>,
    /// No more pieces are wanted, or a thread panicked.
    stopped: bool,
}

struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Stops the others when it is dropped.
struct StopAtEnd<'a, T>(&'a Queue<T>);

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        let condition = |state: &mut State<T>| !state.stopped && condition(state);
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for StopAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

/// Runs `consume` with a function that gives the pieces 0, 1, ... below `count`. Each is begun by `begin`, in order and by
/// one thread at a time, and finished by `finish`, in `threads` threads, at most `window` pieces before it is taken.
pub(super) fn in_order<B, T: Send, R>(
    count: usize,
    threads: usize,
    window: usize,
    begin: impl FnMut(usize) -> B + Send,
    finish: impl Fn(usize, B) -> T + Sync,
    consume: impl FnOnce(&mut dyn FnMut() -> T) -> R,
) -> R {
    let state = State { next: 0, taken: 0, done: BTreeMap::new(), stopped: false };
    let queue = Queue { state: Mutex::new(state), changed: Condvar::new() };
    let begin = Mutex::new(begin);
    let work = || {
        let claim = || {
            // The pieces are begun in the order in which they are claimed.
            let mut begin = begin.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state =
                queue.wait_while(|state| state.next < count && state.next >= state.taken + window);
            if state.stopped || state.next >= count {
                return None;
            }
            let index = state.next;
            state.next += 1;
            drop(state);
            Some((index, begin(index)))
        };
        let panicked = StopAtEnd(&queue);
        while let Some((index, begun)) = claim() {
            let piece = finish(index, begun);
            queue.lock().done.insert(index, piece);
            queue.changed.notify_all();
        }
        // Only a panic skips this line.
        std::mem::forget(panicked);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
        let _stop = StopAtEnd(&queue);
        consume(&mut || {
            let mut state = queue.wait_while(|state| !state.done.contains_key(&state.taken));
            let taken = state.taken;
            let piece = state.done.remove(&taken).expect("BUG: a thread that works ahead panicked");
            state.taken += 1;
            queue.changed.notify_all();
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn pieces_come_in_order_and_not_too_far_ahead() {
        let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = |index| {
            assert_eq!(begun.fetch_add(1, Ordering::SeqCst), index, "in order");
            assert!(
                index < taken.load(Ordering::SeqCst) + 4,
                "at most three before the one that is waited for"
            );
            index * 10
        };
        let found = in_order(
            50,
            3,
            3,
            begin,
            |index, begun| index + begun,
            |next| {
                let take = |_| {
                    taken.fetch_add(1, Ordering::SeqCst);
                    next()
                };
                (0..50).map(take).collect::<Vec<_>>()
            },
        );
        assert_eq!(found, (0..50).map(|index| 11 * index).collect::<Vec<_>>());
    }

    #[test]
    fn a_consumer_may_stop_early() {
        let finished = AtomicUsize::new(0);
        let finish = |index, ()| {
            finished.fetch_add(1, Ordering::SeqCst);
            index
        };
        assert_eq!(in_order(1_000_000, 2, 5, |_| (), finish, |next| next() + next()), 1);
        assert!(finished.into_inner() < 10);
    }
}
