//! Launches group norm with channels last, and its gradients.

use candle_core::Result;

use super::channels::{CHANNEL_THREADS, Numbers, Slabs, fold};
use super::launch::{Launch, Launcher, Pointer};

/// Group norm of x [batch, rows, channels], with weight and bias `[channels]` in f32.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct GroupNorm {
    pub(in crate::nn) numbers: Numbers,
    pub(in crate::nn) batch: usize,
    pub(in crate::nn) rows: usize,
    pub(in crate::nn) channels: usize,
    pub(in crate::nn) groups: usize,
    pub(in crate::nn) eps: f32,
    /// Whether SiLU follows.
    pub(in crate::nn) silu: bool,
}

/// The operands of backward.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Backward {
    pub(in crate::nn) x: Pointer,
    pub(in crate::nn) dy: Pointer,
    pub(in crate::nn) weight: Pointer,
    pub(in crate::nn) bias: Pointer,
    /// What forward has written.
    pub(in crate::nn) statistics: Pointer,
    /// Room for [`GroupNorm::backward_partial`] f32.
    pub(in crate::nn) partial: Pointer,
    /// Room for [`GroupNorm::sums`] f32.
    pub(in crate::nn) sums: Pointer,
}

impl GroupNorm {
    /// Elements of `statistics`, in f32.
    pub(in crate::nn) fn statistics(&self) -> usize {
        self.batch * self.groups * 2
    }

    /// Elements of `partial` in forward, in f32.
    pub(in crate::nn) fn forward_partial(&self) -> usize {
        self.slabs().count * self.statistics()
    }

    /// Elements of `partial` in backward, in f32.
    pub(in crate::nn) fn backward_partial(&self) -> usize {
        self.slabs().count * self.sums()
    }

    /// Elements of `sums` in backward, in f32.
    pub(in crate::nn) fn sums(&self) -> usize {
        self.batch * 2 * self.channels
    }

    /// Writes y, shaped as x, and what backward needs to `statistics`.
    pub(in crate::nn) fn forward(
        &self,
        launcher: &dyn Launcher,
        [x, weight, bias]: [Pointer; 3],
        [y, statistics, partial]: [Pointer; 3],
    ) -> Result<()> {
        let shared = self.groups * size_of::<f32>() + self.numbers.sums_bytes(1, self.channels);
        self.launch("statistics", shared)
            .moving(self.bytes())
            .pointers([x, partial])
            .sizes(self.sizes())
            .run(launcher)?;
        self.launch("forward", self.per_group_bytes())
            .moving(2 * self.bytes())
            .pointers([x, weight, bias, partial, y, statistics])
            .sizes(self.sizes())
            .numbers([self.eps])
            .sizes([usize::from(self.silu)])
            .run(launcher)
    }

    /// Writes the gradients that are wanted: of x, and of bias and weight, [2, channels] in f32.
    pub(in crate::nn) fn backward(
        &self,
        launcher: &dyn Launcher,
        operands: &Backward,
        dx: Option<Pointer>,
        d_bias_and_weight: Option<Pointer>,
    ) -> Result<()> {
        let Backward { x, dy, weight, bias, statistics, partial, sums } = *operands;
        let width = 2 * self.channels;
        self.launch("sums", self.numbers.sums_bytes(2, self.channels))
            .moving(2 * self.bytes())
            .pointers([x, dy, weight, bias, statistics, partial])
            .sizes(self.sizes())
            .sizes([usize::from(self.silu)])
            .run(launcher)?;
        fold(launcher, [self.batch, self.slabs().count, width], partial, sums)?;
        if let Some(dx) = dx {
            self.launch("backward", self.per_group_bytes())
                .moving(3 * self.bytes())
                .pointers([x, dy, weight, bias, statistics, sums, dx])
                .sizes(self.sizes())
                .sizes([usize::from(self.silu)])
                .run(launcher)?;
        }
        d_bias_and_weight.map_or(Ok(()), |to| fold(launcher, [1, self.batch, width], sums, to))
    }

    /// Bytes of x.
    fn bytes(&self) -> usize {
        self.batch * self.rows * self.channels * self.numbers.bytes()
    }

    fn slabs(&self) -> Slabs {
        Slabs::new(self.batch, self.rows)
    }

    fn sizes(&self) -> [usize; 4] {
        [self.rows, self.channels, self.groups, self.slabs().rows]
    }

    /// Room for two numbers per group.
    fn per_group_bytes(&self) -> usize {
        2 * self.groups * size_of::<f32>()
    }

    /// A block per slab of each sample.
    fn launch(&self, kernel: &str, shared_bytes: usize) -> Launch {
        let kernel = self.numbers.variant(&format!("group_norm_{kernel}"), self.channels);
        Launch::new(kernel, [self.slabs().count, self.batch, 1], CHANNEL_THREADS).shared(shared_bytes)
    }
}
