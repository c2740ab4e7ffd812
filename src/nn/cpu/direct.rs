//! 3x3 convolution of few channels without columns: each product is taken where its pixels lie.
//!
//! Pictures are copied once into planes with a zero before each row and a row of zeros between pictures, so that the
//! pixel under a tap of the kernel lies at a fixed distance, whichever pixel is asked for. The rows of all pictures
//! then make one line, and vectors run along it; what falls on a zero between rows is dropped. A matrix product would
//! first make nine copies of each pixel and then pack them, which few channels do not pay for.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::TASKS;
use super::{filled, scratch};

/// A 3x3 convolution with stride 1 and padding 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) images: usize,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Vectors side by side in one tile of outputs.
const VECTORS: usize = 3;
/// Output channels of a tile, or of half a tile where there are registers for two.
const CHANNELS: usize = 4;
/// Lanes of the widest vector.
const LANES: usize = 16;
/// Pixels of one task, by joining small pictures.
const TASK_PIXELS: usize = 128;

impl Direct {
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// The line of all pictures.
    fn line(&self) -> Line {
        Line { images: 0..self.images, rows: 0..self.height, height: self.height, width: self.width }
    }

    /// What each task computes: some pictures where there are enough, else some rows of one.
    fn tasks(&self) -> Vec<Line> {
        let group = (TASK_PIXELS / self.plane()).clamp(1, self.images.div_ceil(TASKS / 2));
        let rows = match self.images >= TASKS / 2 {
            true => self.height,
            false => self.height.div_ceil(TASKS.div_ceil(self.images)),
        };
        let images = (0..self.images).step_by(group).map(|first| first..(first + group).min(self.images));
        images
            .flat_map(|images| {
                (0..self.height).step_by(rows).map(move |first| {
                    let rows = first..(first + rows).min(self.height);
                    Line { images: images.clone(), rows, ..self.line() }
                })
            })
            .collect()
    }

    /// The outputs [images, output, h, w] of x [images, input, h, w] and weight [output, input, 3, 3].
    pub(super) fn convolve(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        self.apply(x, |output, input| self.kernel(weight, output, input), Some(bias))
    }

    /// The gradient of x, for `g` [images, output, h, w]: the convolution of g with the kernels turned round, inputs
    /// and outputs in each other's places.
    pub(super) fn input_gradient(&self, g: &[f32], weight: &[f32]) -> Vec<f32> {
        let turned = |input, output| {
            let mut kernel = self.kernel(weight, output, input);
            kernel.reverse();
            kernel
        };
        Self { input: self.output, output: self.input, ..*self }.apply(g, turned, None)
    }

    fn kernel(&self, weight: &[f32], output: usize, input: usize) -> [f32; 9] {
        weight.as_chunks().0[output * self.input + input]
    }

    fn apply(
        &self,
        x: &[f32],
        kernel: impl Fn(usize, usize) -> [f32; 9] + Sync,
        bias: Option<&[f32]>,
    ) -> Vec<f32> {
        // [block][input][tap][channel of the block]
        let mut kernels = vec![[[0.0; CHANNELS]; 9]; self.output.div_ceil(CHANNELS) * self.input];
        kernels.par_chunks_mut(self.input).enumerate().for_each(|(block, kernels)| {
            let outputs: [usize; CHANNELS] = std::array::from_fn(|channel| block * CHANNELS + channel);
            for (input, kernels) in kernels.iter_mut().enumerate() {
                let of_channels =
                    outputs.map(|output| if output < self.output { kernel(output, input) } else { [0.0; 9] });
                for (tap, kernels) in kernels.iter_mut().enumerate() {
                    *kernels = of_channels.map(|kernel| kernel[tap]);
                }
            }
        });
        let tasks = self.tasks();
        filled(self.images * self.output * self.plane(), |out| {
            let parts = self.parts(&tasks, out);
            parts.into_par_iter().zip(&tasks).for_each(|(mut part, line)| {
                self.run(line, x, &kernels, bias, &mut part);
            });
        })
    }

    /// For each task its rows of every picture and channel, one slice each.
    fn parts<'a>(&self, tasks: &[Line], out: &'a mut [f32]) -> Vec<Vec<&'a mut [f32]>> {
        let mut parts: Vec<Vec<&mut [f32]>> = tasks.iter().map(|_| Vec::new()).collect();
        let mut pictures = out.chunks_mut(self.output * self.plane());
        let mut first = 0;
        while first < tasks.len() {
            let images = tasks[first].images.clone();
            let next = first + tasks[first..].iter().take_while(|task| task.images == images).count();
            for picture in pictures.by_ref().take(images.len()) {
                for plane in picture.chunks_mut(self.plane()) {
                    let rows = plane.chunks_mut(tasks[first].rows.len() * self.width);
                    parts[first..next].iter_mut().zip(rows).for_each(|(part, rows)| part.push(rows));
                }
            }
            first = next;
        }
        parts
    }

    /// One task.
    fn run(
        &self,
        line: &Line,
        x: &[f32],
        kernels: &[[[f32; CHANNELS]; 9]],
        bias: Option<&[f32]>,
        out: &mut [&mut [f32]],
    ) {
        let (channel, tiles) = (line.channel(), line.length().next_multiple_of(LANES));
        scratch(self.input * channel + 2 * CHANNELS * tiles, |buffer| {
            let (source, sums) = buffer.split_at_mut(self.input * channel);
            for (input, padded) in source.chunks_exact_mut(channel).enumerate() {
                line.pad(&x[input * self.plane()..], self.input * self.plane(), padded);
            }
            let mut first = 0;
            while first < self.output {
                let kernels = &kernels[first / CHANNELS * self.input..];
                let tile = Tile { source, channel, taps: line.taps(), inputs: self.input, kernels };
                let done =
                    Arch::new().dispatch(Run { tile, tiles, pair: self.output - first > CHANNELS, sums });
                for (sums, output) in sums.chunks_exact(tiles).zip(first..self.output.min(first + done)) {
                    let bias = bias.map_or(0.0, |bias| bias[output]);
                    for (image, rows) in out.chunks_exact_mut(self.output).enumerate() {
                        for (row, to) in rows[output].chunks_exact_mut(self.width).enumerate() {
                            let sums = &sums[line.start(image, row)..][..self.width];
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum + bias);
                        }
                    }
                }
                first += done;
            }
        });
    }

    /// The gradient of the weight, for `g` [images, output, h, w] and the input x.
    pub(super) fn weight_gradient(&self, g: &[f32], x: &[f32]) -> Vec<f32> {
        let line = self.line();
        let channel = line.channel();
        let pad = |from: &[f32], channels: usize, padded: &mut [f32]| {
            padded.par_chunks_exact_mut(channel).enumerate().for_each(|(index, padded)| {
                line.pad(&from[index * self.plane()..], channels * self.plane(), padded);
            });
        };
        let blocks = self.output.div_ceil(Correlation::OUTPUTS);
        let outputs = |block: usize| block * self.output / blocks..(block + 1) * self.output / blocks;
        let pairs: Vec<[[f32; 9]; Correlation::OUTPUTS]> =
            scratch((self.input + self.output) * channel, |buffer| {
                let (source, gradients) = buffer.split_at_mut(self.input * channel);
                pad(x, self.input, source);
                pad(g, self.output, gradients);
                let (source, gradients) = (&*source, &*gradients);
                let of_pair = |pair: usize| {
                    let (block, input) = (pair / self.input, pair % self.input);
                    let source = &source[input * channel..][..channel];
                    let gradients = &gradients[outputs(block).start * channel..outputs(block).end * channel];
                    Arch::new().dispatch(Correlation { line: &line, source, gradients })
                };
                (0..blocks * self.input).into_par_iter().map(of_pair).collect()
            });
        filled(self.output * self.input * 9, |out| {
            for (pair, kernels) in pairs.iter().enumerate() {
                let (block, input) = (pair / self.input, pair % self.input);
                for (output, kernel) in outputs(block).zip(kernels) {
                    out[(output * self.input + input) * 9..][..9].copy_from_slice(kernel);
                }
            }
        })
    }
}

/// Rows of pictures in one line: some rows of one picture, or all rows of several.
#[derive(Clone)]
struct Line {
    images: Range<usize>,
    rows: Range<usize>,
    /// Of a whole picture.
    height: usize,
    width: usize,
}

impl Line {
    /// Elements from a pixel to the one below.
    fn pitch(&self) -> usize {
        self.width + 1
    }

    /// Rows of one picture and the zeros that follow it.
    fn period(&self) -> usize {
        self.rows.len() + 1
    }

    /// Elements from the first pixel to behind the last.
    fn length(&self) -> usize {
        (self.images.len() * self.period() - 1) * self.pitch()
    }

    /// Elements of a padded channel: a row before and one behind, and what the last tile reads beyond.
    fn channel(&self) -> usize {
        self.length().next_multiple_of(LANES) + 2 * self.pitch() + LANES
    }

    /// The distances of the pixels under the taps from the first one.
    fn taps(&self) -> [usize; 9] {
        std::array::from_fn(|tap| tap / 3 * self.pitch() + tap % 3)
    }

    /// Where a row of a picture begins, counted from the first pixel.
    fn start(&self, image: usize, row: usize) -> usize {
        (image * self.period() + row) * self.pitch()
    }

    /// Copies one channel, its planes `step` elements apart, with its neighbours and zeros.
    fn pad(&self, planes: &[f32], step: usize, padded: &mut [f32]) {
        let (period, pitch) = (self.period(), self.pitch());
        for (row, to) in padded.chunks_mut(pitch).enumerate() {
            // The row behind the last picture is its own: it may be the next one of a picture that is cut.
            let image = (row.saturating_sub(1) / period).min(self.images.len() - 1);
            let row = row - image * period;
            match (self.rows.start + row).checked_sub(1) {
                Some(y) if y < self.height && row <= period && to.len() == pitch => {
                    let from = (self.images.start + image) * step + y * self.width;
                    to[0] = 0.0;
                    to[1..].copy_from_slice(&planes[from..][..self.width]);
                }
                _ => to.fill(0.0),
            }
        }
    }
}

/// What the outputs at one place are made of.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// Padded channels.
    source: &'a [f32],
    /// Elements of each.
    channel: usize,
    taps: [usize; 9],
    inputs: usize,
    /// [block][input][tap][channel of the block]
    kernels: &'a [[[f32; CHANNELS]; 9]],
}

impl Tile<'_> {
    /// The sums of the first `BLOCKS` blocks of channels, for the outputs from `at` on.
    #[inline(always)]
    fn sums<S: Simd, const BLOCKS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        at: usize,
    ) -> [[[S::f32s; VECTORS]; CHANNELS]; BLOCKS] {
        let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; CHANNELS]; BLOCKS];
        for (input, source) in self.source.chunks_exact(self.channel).enumerate() {
            for tap in 0..9 {
                let from = &source[at + self.taps[tap]..];
                let mut vectors = [simd.splat_f32s(0.0); VECTORS];
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

/// Writes the sums of a whole line to [channel][tiles] and says how many channels those are.
struct Run<'a> {
    tile: Tile<'a>,
    /// Elements of a channel of `sums`.
    tiles: usize,
    /// Whether there are channels for two blocks.
    pair: bool,
    sums: &'a mut [f32],
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
    fn write<S: Simd, const BLOCKS: usize, const VECTORS: usize>(&mut self, simd: S, at: usize) {
        let sums = self.tile.sums::<S, BLOCKS, VECTORS>(simd, at);
        for (channel, sums) in sums.as_flattened().iter().enumerate() {
            let to = &mut self.sums[channel * self.tiles + at..][..VECTORS * S::F32_LANES];
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

/// `sum over pixels of g_output x_input` for each tap, one input channel and a few output channels, both padded.
struct Correlation<'a> {
    line: &'a Line,
    source: &'a [f32],
    gradients: &'a [f32],
}

impl Correlation<'_> {
    /// Output channels at most: nine taps each in 32 registers.
    const OUTPUTS: usize = 3;

    #[inline(always)]
    fn run<S: Simd, const OUTPUTS: usize>(
        &self,
        simd: S,
        first: usize,
        result: &mut [[f32; 9]; Correlation::OUTPUTS],
    ) {
        let (channel, taps) = (self.source.len(), self.line.taps());
        // Zeros stand between rows and behind the last, so that what falls there adds nothing.
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
