//! The two inner loops, written with explicit vectors: the outputs of a tile, and the sums over all pixels for the
//! weights' gradient.

use pulp::{Simd, WithSimd};

use super::line::Line;

/// Output channels per tile, or per half tile if there are enough registers for two blocks.
pub(super) const CHANNELS: usize = 4;

/// Number of vectors in one tile of outputs.
const VECTORS: usize = 3;

/// The inputs for the outputs at one position.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// Padded channels.
    pub(super) source: &'a [f32],
    /// Elements per channel.
    pub(super) channel: usize,
    pub(super) taps: [usize; 9],
    pub(super) inputs: usize,
    /// [block][input][tap][channel of the block]
    pub(super) kernels: &'a [[[f32; CHANNELS]; 9]],
}

impl Tile<'_> {
    /// The sums of the first `BLOCKS` blocks of channels, for the outputs starting at `at`.
    #[inline(always)]
    fn sums<S: Simd, const BLOCKS: usize, const WIDTH: usize>(
        &self,
        simd: S,
        at: usize,
    ) -> [[[S::f32s; WIDTH]; CHANNELS]; BLOCKS] {
        let mut sums = [[[simd.splat_f32s(0.0); WIDTH]; CHANNELS]; BLOCKS];
        for (input, source) in self.source.chunks_exact(self.channel).enumerate() {
            for tap in 0..9 {
                let from = &source[at + self.taps[tap]..];
                let mut vectors = [simd.splat_f32s(0.0); WIDTH];
                for (v, vector) in vectors.iter_mut().enumerate() {
                    *vector = load::<S>(&from[v * S::F32_LANES..]);
                }
                for (block, sums) in sums.iter_mut().enumerate() {
                    let weights = self.kernels[block * self.inputs + input][tap];
                    for (sums, weight) in sums.iter_mut().zip(weights) {
                        let weight = simd.splat_f32s(weight);
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = simd.mul_add_f32s(weight, vector, *sum);
                        }
                    }
                }
            }
        }
        sums
    }
}

/// Writes the sums of a complete line to [channel][tiles] and returns the number of channels.
pub(super) struct Run<'a> {
    pub(super) tile: Tile<'a>,
    /// Elements of a channel of `sums`.
    pub(super) tiles: usize,
    /// Whether there are enough channels for two blocks.
    pub(super) pair: bool,
    pub(super) sums: &'a mut [f32],
}

impl Run<'_> {
    #[inline(always)]
    fn run<S: Simd, const BLOCKS: usize>(mut self, simd: S) -> usize {
        let mut at = 0;
        while at + VECTORS * S::F32_LANES <= self.tiles {
            self.write::<S, BLOCKS, VECTORS>(simd, at);
            at += VECTORS * S::F32_LANES;
        }
        while at < self.tiles {
            self.write::<S, BLOCKS, 1>(simd, at);
            at += S::F32_LANES;
        }
        BLOCKS * CHANNELS
    }

    #[inline(always)]
    fn write<S: Simd, const BLOCKS: usize, const WIDTH: usize>(&mut self, simd: S, at: usize) {
        let sums = self.tile.sums::<S, BLOCKS, WIDTH>(simd, at);
        for (channel, sums) in sums.as_flattened().iter().enumerate() {
            let to = &mut self.sums[channel * self.tiles + at..][..WIDTH * S::F32_LANES];
            S::as_mut_simd_f32s(to).0.copy_from_slice(sums);
        }
    }
}

impl WithSimd for Run<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // Two blocks need 24 registers for their sums and a few more.
        if self.pair && S::REGISTER_COUNT >= 32 { self.run::<S, 2>(simd) } else { self.run::<S, 1>(simd) }
    }
}

/// `sum over pixels of g_output x_input` for each tap, for one input channel and a few output channels, both padded.
pub(super) struct Correlation<'a> {
    pub(super) line: &'a Line,
    pub(super) source: &'a [f32],
    pub(super) gradients: &'a [f32],
}

impl Correlation<'_> {
    /// Maximum number of output channels: nine taps each in 32 registers.
    pub(super) const OUTPUTS: usize = 3;

    #[inline(always)]
    fn run<S: Simd, const OUTPUTS: usize>(
        &self,
        simd: S,
        first: usize,
        result: &mut [[f32; 9]; Correlation::OUTPUTS],
    ) {
        let (channel, taps) = (self.source.len(), self.line.taps());
        // There are zeros between rows and after the last one, so these products add nothing.
        let centre = taps[4];
        let gradients = &self.gradients[first * channel..];
        let mut sums = [[simd.splat_f32s(0.0); 9]; OUTPUTS];
        for at in (0..self.line.length()).step_by(S::F32_LANES) {
            let mut g = [simd.splat_f32s(0.0); OUTPUTS];
            for (output, g) in g.iter_mut().enumerate() {
                *g = load::<S>(&gradients[output * channel + centre + at..]);
            }
            for tap in 0..9 {
                let x = load::<S>(&self.source[at + taps[tap]..]);
                for output in 0..OUTPUTS {
                    sums[output][tap] = simd.mul_add_f32s(g[output], x, sums[output][tap]);
                }
            }
        }
        for (result, sums) in result[first..].iter_mut().zip(sums) {
            result.iter_mut().zip(sums).for_each(|(result, sum)| *result = simd.reduce_sum_f32s(sum));
        }
    }
}

/// The first vector of a slice.
#[inline(always)]
fn load<S: Simd>(from: &[f32]) -> S::f32s {
    S::as_simd_f32s(&from[..S::F32_LANES]).0[0]
}

impl WithSimd for Correlation<'_> {
    type Output = [[f32; 9]; Correlation::OUTPUTS];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let mut result = [[0.0; 9]; Correlation::OUTPUTS];
        match self.gradients.len() / self.source.len() {
            3 if S::REGISTER_COUNT >= 32 => self.run::<S, 3>(simd, 0, &mut result),
            2 if S::REGISTER_COUNT >= 32 => self.run::<S, 2>(simd, 0, &mut result),
            outputs => (0..outputs).for_each(|output| self.run::<S, 1>(simd, output, &mut result)),
        }
        result
    }
}
