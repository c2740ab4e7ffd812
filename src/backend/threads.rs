//! The single thread pool for computation.
//!
//! Work runs *inside* the pool: called from outside, every kernel would put its caller to sleep and wake a worker,
//! which takes about as long as the small layers of a step. The stacks are large because candle traverses graphs
//! recursively.

use std::sync::OnceLock;
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A chain of 20,000 operations overflowed a 2 MiB stack (candle 0.11.1, 2026-11); stack memory is only committed when
/// touched.
const STACK_BYTES: usize = 256 << 20;

/// More threads only wait for each other: on two cores, 1000 threads took 300 times as long as 2 (2026-11).
const PER_CORE: usize = 4;

static POOL: OnceLock<ThreadPool> = OnceLock::new();

/// Starts this many threads, at most four per core, or one per core. Returns the number. Call it once, while the program
/// has only one thread.
pub fn start(threads: Option<usize>) -> Result<usize, ThreadPoolBuildError> {
    let cores = available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or(cores, |threads| threads.clamp(1, PER_CORE * cores));
    // candle adds and multiplies large tensors on its own threads. They must not outnumber ours, nor spin while they
    // wait: spinning took a core from us and made a training step of the small model 1.2 times as long.
    let numbers = [
        ("RAYON_NUM_THREADS", threads),
        ("CANDLE_NUM_THREADS", threads),
        ("CANDLE_BARRIER_POOL_SPIN_LIMIT", 1),
    ];
    for (name, value) in numbers {
        // SAFETY: no other thread reads the environment, because none exists yet.
        unsafe { std::env::set_var(name, value.to_string()) };
    }
    let pool = builder().num_threads(threads).build()?;
    POOL.get_or_init(|| pool);
    Ok(threads)
}

/// Runs `work` on one thread of the pool, and its parallel parts on all of them; starts one thread per core if no pool
/// exists.
pub fn run<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    POOL.get_or_init(|| builder().build().expect("the system can start threads")).install(work)
}

/// The number of threads of the pool.
pub fn count() -> usize {
    run(rayon::current_num_threads)
}

fn builder() -> ThreadPoolBuilder {
    ThreadPoolBuilder::new().stack_size(STACK_BYTES).thread_name(|index| format!("compute-{index}"))
}
