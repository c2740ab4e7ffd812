//! Launches layer norm and its gradients.

use candle_core::Result;

use super::channels::{CHANNEL_THREADS, Numbers, Slabs, fold};
use super::launch::{Launch, Launcher, Pointer};

/// Layer norm of x [rows, channels], with weight and bias `[channels]` in f32.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct LayerNorm {
    pub(in crate::nn) numbers: Numbers,
    pub(in crate::nn) rows: usize,
    pub(in crate::nn) channels: usize,
    pub(in crate::nn) eps: f32,
}

/// Each warp takes a row.
const THREADS: u32 = 128;

impl LayerNorm {
    /// Elements of `statistics`, in f32.
    pub(in crate::nn) fn statistics(&self) -> usize {
        2 * self.rows
    }

    /// Elements of `partial` in backward, in f32.
    pub(in crate::nn) fn partial(&self) -> usize {
        self.slabs().count * 2 * self.channels
    }

    /// Writes y, shaped as x, and what backward needs to `statistics`.
    pub(in crate::nn) fn forward(
        &self,
        launcher: &dyn Launcher,
        [x, weight, bias]: [Pointer; 3],
        [y, statistics]: [Pointer; 2],
    ) -> Result<()> {
        self.launch("forward")
            .moving(2 * self.bytes())
            .pointers([x, weight, bias, y, statistics])
            .sizes([self.rows, self.channels])
            .numbers([self.eps])
            .run(launcher)
    }

    /// Writes the gradient of x.
    pub(in crate::nn) fn backward(
        &self,
        launcher: &dyn Launcher,
        [x, dy, weight, statistics]: [Pointer; 4],
        dx: Pointer,
    ) -> Result<()> {
        self.launch("backward")
            .moving(3 * self.bytes())
            .pointers([x, dy, weight, statistics, dx])
            .sizes([self.rows, self.channels])
            .run(launcher)
    }

    /// Writes the gradients of bias and weight, [2, channels] in f32.
    pub(in crate::nn) fn parameters_backward(
        &self,
        launcher: &dyn Launcher,
        [x, dy, statistics, partial]: [Pointer; 4],
        d_bias_and_weight: Pointer,
    ) -> Result<()> {
        let Slabs { rows, count } = self.slabs();
        Launch::new(self.numbers.variant("layer_norm_sums", self.channels), [count, 1, 1], CHANNEL_THREADS)
            .shared(self.numbers.sums_bytes(2, self.channels))
            .moving(2 * self.bytes())
            .pointers([x, dy, statistics, partial])
            .sizes([self.rows, self.channels, rows])
            .run(launcher)?;
        fold(launcher, [1, count, 2 * self.channels], partial, d_bias_and_weight)
    }

    /// Bytes of x.
    fn bytes(&self) -> usize {
        self.rows * self.channels * self.numbers.bytes()
    }

    fn slabs(&self) -> Slabs {
        Slabs::new(1, self.rows)
    }

    fn launch(&self, kernel: &str) -> Launch {
        let kernel = self.numbers.variant(&format!("layer_norm_{kernel}"), self.channels);
        Launch::new(kernel, [self.rows.div_ceil(THREADS as usize / 32), 1, 1], THREADS)
    }
}
