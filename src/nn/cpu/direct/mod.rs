//! 3x3 convolution with few channels without columns: products read the pixels in place.
//!
//! Images are copied once into planes with a zero before each row and a row of zeros between images, so that the pixel
//! under a tap of the kernel is always at a fixed offset. The rows of all images then form one line that is processed
//! with vectors; results at the zeros between rows are dropped. A matrix product would first copy each pixel nine times
//! and then pack the copies, which is too expensive with few channels.

mod line;
mod tile;

use pulp::Arch;
use rayon::prelude::*;

use super::gemm::TASKS;
use super::{filled, scratch};
use line::{LANES, Line};
use tile::{CHANNELS, Correlation, Run, Tile};

/// A 3x3 convolution with stride 1 and padding 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) images: usize,
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Pixels per task, reached by joining small images.
const TASK_PIXELS: usize = 128;

impl Direct {
    fn plane(&self) -> usize {
        self.height * self.width
    }

    /// The line of all images.
    fn line(&self) -> Line {
        Line { images: 0..self.images, rows: 0..self.height, height: self.height, width: self.width }
    }

    /// The work of each task: several images if there are enough, else some rows of one.
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

    /// The gradient of x, for `g` [images, output, h, w]: the convolution of g with the flipped kernels, with inputs
    /// and outputs exchanged.
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

    /// For each task, the slices of its rows in every image and channel.
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

    /// The computation of one task.
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
