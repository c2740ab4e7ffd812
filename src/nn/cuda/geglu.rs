//! Launches gated GELU and its gradient.

use candle_core::Result;

use super::channels::Numbers;
use super::launch::{Launch, Launcher, Pointer};

/// Gated GELU, x [rows, 2 half] -> y [rows, half].
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Geglu {
    pub(in crate::nn) numbers: Numbers,
    pub(in crate::nn) rows: usize,
    pub(in crate::nn) half: usize,
}

impl Geglu {
    /// Writes y.
    pub(in crate::nn) fn forward(&self, launcher: &dyn Launcher, x: Pointer, y: Pointer) -> Result<()> {
        self.launch("geglu_forward")
            .moving(3 * self.bytes())
            .pointers([x, y])
            .sizes([self.half])
            .run(launcher)
    }

    /// Writes the gradient of x.
    pub(in crate::nn) fn backward(
        &self,
        launcher: &dyn Launcher,
        [x, dy]: [Pointer; 2],
        dx: Pointer,
    ) -> Result<()> {
        self.launch("geglu_backward")
            .moving(5 * self.bytes())
            .pointers([x, dy, dx])
            .sizes([self.half])
            .run(launcher)
    }

    /// Bytes of y.
    fn bytes(&self) -> usize {
        self.rows * self.half * self.numbers.bytes()
    }

    /// A block per row.
    fn launch(&self, kernel: &str) -> Launch {
        Launch::new(self.numbers.variant(kernel, self.half), [self.rows, 1, 1], 256)
    }
}
