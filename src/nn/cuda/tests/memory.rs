//! The emulation as a machine: the host's memory, which starts as NaN, and products by definition.

use std::cell::{Cell, RefCell};

use candle_core::{CpuStorage, DType, Result, Shape, Storage, Tensor, bail};
use half::{bf16, f16};

use super::emulator::{Emulator, LAUNCHES, count_launch};
use crate::nn::cuda::array::Array;
use crate::nn::cuda::channels::Numbers;
use crate::nn::cuda::launch::Pointer;
use crate::nn::cuda::machine::{Arriving, Machine};
use crate::nn::cuda::product::Gemm;

thread_local! {
    /// The emulator that the layers of this thread use for tensors on the CPU.
    static EMULATOR: Cell<Option<Emulator>> = const { Cell::new(None) };
}

/// Lets the layers of this thread compute as on a GPU while `act` runs. Gives its result and the number of launches.
pub(crate) fn emulating<R>(act: impl FnOnce() -> R) -> (R, u64) {
    let before = LAUNCHES.get();
    let result = Emulator::schedules()[0].emulating(act);
    (result, LAUNCHES.get() - before)
}

thread_local! {
    /// The copies to the host of this thread, in order.
    static TRAFFIC: RefCell<Vec<Traffic>> = const { RefCell::new(Vec::new()) };
}

/// A copy to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// It was queued after so many launches of this thread.
    Sent(u64),
    /// It was waited for after so many launches of this thread.
    Read(u64),
}

fn note(traffic: Traffic) {
    TRAFFIC.with_borrow_mut(|all| all.push(traffic));
}

/// The copies to the host while `act` runs.
pub(crate) fn copies_to_host<R>(act: impl FnOnce() -> R) -> (R, Vec<Traffic>) {
    let before = TRAFFIC.take();
    let result = act();
    (result, TRAFFIC.replace(before))
}

/// Sends numbers to the host as they are now.
pub(in crate::nn) fn copy_to_host(tensor: &Tensor) -> Result<Box<dyn Arriving>> {
    note(Traffic::Sent(LAUNCHES.get()));
    Ok(Box::new(Copied(tensor.flatten_all()?.to_vec1()?)))
}

struct Copied(Vec<f32>);

impl Arriving for Copied {
    fn wait(self: Box<Self>) -> Result<Vec<f32>> {
        note(Traffic::Read(LAUNCHES.get()));
        Ok(self.0)
    }
}

impl Emulator {
    /// That of this thread.
    pub(in crate::nn) fn of_thread() -> Result<Self> {
        match EMULATOR.get() {
            Some(emulator) => Ok(emulator),
            None => bail!("this thread emulates no GPU"),
        }
    }

    /// Lets the layers of this thread compute on tensors of the CPU as on a GPU while `act` runs.
    pub(in crate::nn) fn emulating<R>(self, act: impl FnOnce() -> R) -> R {
        let before = EMULATOR.replace(Some(self));
        let result = act();
        EMULATOR.set(before);
        result
    }
}

impl Machine for Emulator {
    fn allocate(&self, shape: Shape, dtype: DType) -> Result<Array> {
        let count = shape.elem_count();
        let storage = match dtype {
            DType::BF16 => CpuStorage::BF16(vec![bf16::NAN; count]),
            DType::F16 => CpuStorage::F16(vec![f16::NAN; count]),
            DType::F32 => CpuStorage::F32(vec![f32::NAN; count]),
            DType::F64 => CpuStorage::F64(vec![f64::NAN; count]),
            DType::U8 => CpuStorage::U8(vec![255; count]),
            other => bail!("the kernels write no {other:?}"),
        };
        Array::owned(Storage::Cpu(storage), shape, dtype)
    }

    /// `gemm` as BLAS defines it, with column-major matrices.
    fn multiply(&self, product: &Gemm) -> Result<()> {
        count_launch();
        let &Gemm { transposed, m, n, k, a, lda, b, ldb, beta, c, ldc, operands, result, .. } = product;
        let [m, n, k, lda, ldb, ldc] = [m, n, k, lda, ldb, ldc].map(|size| size as usize);
        let of_a = if transposed[0] { m } else { k };
        let of_b = if transposed[1] { k } else { n };
        let (a, b) = (read(a, operands, lda * of_a), read(b, operands, ldb * of_b));
        let mut sums = if beta == 0.0 { vec![0.0; ldc * n] } else { read(c, result, ldc * n) };
        for column in 0..n {
            for row in 0..m {
                let terms = (0..k).map(|i| {
                    let a = if transposed[0] { a[row * lda + i] } else { a[i * lda + row] };
                    let b = if transposed[1] { b[i * ldb + column] } else { b[column * ldb + i] };
                    f64::from(a) * f64::from(b)
                });
                sums[column * ldc + row] += terms.sum::<f64>() as f32;
            }
        }
        write(c, result, &sums);
        Ok(())
    }
}

fn read(from: Pointer, numbers: Numbers, count: usize) -> Vec<f32> {
    // SAFETY: the layers give the addresses of arrays of this type with so many elements, which is what the tests are about.
    unsafe {
        match numbers {
            Numbers::F32 => std::slice::from_raw_parts(from.0 as *const f32, count).to_vec(),
            Numbers::Bf16 => {
                std::slice::from_raw_parts(from.0 as *const bf16, count).iter().map(|x| x.to_f32()).collect()
            }
            Numbers::F16 => {
                std::slice::from_raw_parts(from.0 as *const f16, count).iter().map(|x| x.to_f32()).collect()
            }
        }
    }
}

fn write(to: Pointer, numbers: Numbers, sums: &[f32]) {
    for (i, sum) in sums.iter().enumerate() {
        // SAFETY: as for reading; nobody else uses memory that a product writes.
        unsafe {
            match numbers {
                Numbers::F32 => (to.0 as *mut f32).add(i).write(*sum),
                Numbers::Bf16 => (to.0 as *mut bf16).add(i).write(bf16::from_f32(*sum)),
                Numbers::F16 => (to.0 as *mut f16).add(i).write(f16::from_f32(*sum)),
            }
        }
    }
}
