//! The one pool of threads that computes.
//!
//! Work is run *inside* it: from outside, every kernel would put its caller to sleep and wake a worker, and the small
//! layers of a step take no longer than that. Its stacks are deep, because candle walks graphs by recursion.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// 20,000 operations in a row overflowed 2 MiB (candle 0.11.1, 2026-11); memory is only taken as it is touched.
const STACK_BYTES: usize = 256 << 20;

static POOL: OnceLock<ThreadPool> = OnceLock::new();

/// Starts so many threads, or one per core. To be called once, while the program still has one thread.
pub fn start(threads: Option<NonZeroUsize>) -> Result<(), ThreadPoolBuildError> {
    let threads = threads.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    // candle adds and multiplies large tensors on threads of its own. They are to be no more than ours, and not to spin
    // while they wait: they took a core from us for it, and a training step of the small model 1.2 times as long.
    let numbers = [
        ("RAYON_NUM_THREADS", threads),
        ("CANDLE_NUM_THREADS", threads),
        ("CANDLE_BARRIER_POOL_SPIN_LIMIT", 1),
    ];
    for (name, value) in numbers {
        // SAFETY: no other thread reads the environment, since there is none yet.
        unsafe { std::env::set_var(name, value.to_string()) };
    }
    let pool = builder().num_threads(threads).build()?;
    POOL.get_or_init(|| pool);
    Ok(())
}

/// Does `work` on one of the threads, and what it cuts up on all of them; starts one per core if none runs.
pub fn run<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    POOL.get_or_init(|| builder().build().expect("the system has threads to give")).install(work)
}

fn builder() -> ThreadPoolBuilder {
    ThreadPoolBuilder::new().stack_size(STACK_BYTES).thread_name(|index| format!("compute-{index}"))
}
