//! Counts what one thread allocates: the largest piece, and the most that it holds at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// What was allocated while something ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allocated {
    /// The largest single allocation, in bytes.
    pub(crate) largest: usize,
    /// The most bytes held at once.
    pub(crate) peak: usize,
}

/// Runs `work` and measures what this thread allocates for it.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let before = HELD.get();
    PEAK.set(before);
    LARGEST.set(0);
    let result = work();
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    (result, Allocated { largest: LARGEST.get(), peak })
}

fn count(change: isize) {
    // A thread that ends frees after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
        LARGEST.with(|largest| largest.set(largest.get().max(change.max(0).cast_unsigned())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // Zeroed memory is not touched until it is used, so a huge request would succeed unseen.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
