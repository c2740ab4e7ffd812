//! A machine that runs nothing and counts: launches, bytes moved, and the most memory in use at one time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Result, Shape};

use super::array::Array;
use super::launch::{Launch, Launcher};
use super::machine::Machine;
use super::product::Gemm;

const NO_PANIC: &str = "nothing panics while it holds the lock";

/// Launches and bytes by layer and kernel.
pub(in crate::nn) type ByKernel = BTreeMap<(&'static str, String), (u64, u64)>;

/// Counts what it is asked to run.
#[derive(Debug, Default)]
pub(in crate::nn) struct Counter {
    launches: AtomicU64,
    /// Those of our kernels and of products.
    own: AtomicU64,
    bytes: AtomicU64,
    /// The layer that is counted.
    layer: Mutex<&'static str>,
    /// By layer and kernel; products are `product`.
    by_kernel: Mutex<ByKernel>,
    memory: Arc<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    used: AtomicU64,
    peak: AtomicU64,
}

/// Memory in use until this is dropped.
#[derive(Debug)]
struct Counted {
    bytes: u64,
    memory: Arc<Memory>,
}

impl Counter {
    /// Launches of all kinds.
    pub(in crate::nn) fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    /// Launches of our kernels and products alone.
    pub(in crate::nn) fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Bytes read and written.
    pub(in crate::nn) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Launches, and bytes read and written, by each of our kernels and by `product`, for each layer.
    pub(in crate::nn) fn by_kernel(&self) -> ByKernel {
        self.by_kernel.lock().expect(NO_PANIC).clone()
    }

    /// From now on, counts for this layer.
    pub(in crate::nn) fn enter(&self, layer: &'static str) {
        *self.layer.lock().expect(NO_PANIC) = layer;
    }

    /// The layer that is counted.
    pub(in crate::nn) fn layer(&self) -> &'static str {
        *self.layer.lock().expect(NO_PANIC)
    }

    /// The most bytes in use so far.
    pub(in crate::nn) fn peak(&self) -> u64 {
        self.memory.peak.load(Ordering::Relaxed)
    }

    /// Counts launches of somebody else's.
    pub(in crate::nn) fn charge(&self, launches: u64, bytes: u64) {
        self.launches.fetch_add(launches, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count(&self, kernel: &str, bytes: u64) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.charge(1, bytes);
        let mut by_kernel = self.by_kernel.lock().expect(NO_PANIC);
        let (launches, moved) = by_kernel.entry((self.layer(), kernel.to_owned())).or_default();
        (*launches, *moved) = (*launches + 1, *moved + bytes);
    }
}

impl Launcher for Counter {
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.count(&launch.kernel, launch.bytes);
        Ok(())
    }
}

impl Machine for Counter {
    fn allocate(&self, shape: Shape, dtype: DType) -> Result<Array> {
        let bytes = (shape.elem_count() * dtype.size_in_bytes()) as u64;
        let used = self.memory.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.memory.peak.fetch_max(used, Ordering::Relaxed);
        let counted = Counted { bytes, memory: self.memory.clone() };
        Ok(Array::counted(shape, dtype, Box::new(counted)))
    }

    fn multiply(&self, product: &Gemm) -> Result<()> {
        self.count("product", product.bytes);
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
