//! The linear maps between images, kernels and Winograd's domain, and their transposes for gradients.
//!
//! In one dimension, with a tile's inputs d, kernel g and outputs y (Lavin and Gray 2016, equation 8):
//! `B^T d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)`, `G g = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)`,
//! `A^T m = (m0 + m1 + m2, m1 - m2 - m3)`. In two dimensions they are applied along the columns, then along the rows.

use std::ops::Range;

use super::super::scratch;
use super::super::simd::widest;
use super::Winograd;

/// `B^T d`: position i is `d[a] + sign d[b]`.
const INPUT: [(usize, usize, f32); 4] = [(0, 2, -1.0), (1, 2, 1.0), (2, 1, -1.0), (1, 3, -1.0)];
/// `G`
const KERNEL: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
/// `A`: the contribution of position i to both outputs.
const OUTPUT: [[f32; 2]; 4] = [[1.0, 0.0], [1.0, 1.0], [1.0, -1.0], [0.0, -1.0]];
/// Number of input channels whose kernels are transformed side by side.
const LANES: usize = 16;

impl Winograd {
    /// Elements of the inputs under a row of tiles, with one more element on each side.
    fn line(&self) -> usize {
        2 * self.columns() + 2
    }

    /// The input rows under a row of tiles; `None` outside the image.
    fn source_rows(&self, row: usize) -> [Option<usize>; 4] {
        let inside = |k: usize| (2 * row + k).checked_sub(1).filter(|y| *y < self.height);
        [0, 1, 2, 3].map(|k| inside(k).map(|y| if self.upsampled { y / 2 } else { y }))
    }

    /// `B^T d B` of one input channel: from the planes of all images, `plane` elements each and `step` apart, to the
    /// positions of the tiles in `rows`.
    pub(super) fn gather_input(&self, x: &[f32], step: usize, rows: &Range<usize>, v: &mut [f32]) {
        let ((_, width), columns) = (self.source(), self.columns());
        let tiles = rows.len() * columns;
        scratch(2 * width + self.line(), |buffer| {
            buffer.fill(0.0);
            let (zeros, rest) = buffer.split_at_mut(width);
            let (down, line) = rest.split_at_mut(width);
            widest(
                #[inline(always)]
                || {
                    for (index, row) in rows.clone().enumerate() {
                        let plane = &x[row / self.rows() * step..];
                        let d = self
                            .source_rows(row % self.rows())
                            .map(|y| y.map_or(&*zeros, |y| &plane[y * width..][..width]));
                        let mut positions = v.chunks_mut(tiles).map(|v| &mut v[index * columns..][..columns]);
                        for &side in self.sides() {
                            let (a, b, sign) = INPUT[side];
                            down.iter_mut()
                                .zip(d[a].iter().zip(d[b]))
                                .for_each(|(to, (a, b))| *to = a + sign * b);
                            self.spread(down, line);
                            self.along_inputs(line, &mut positions);
                        }
                    }
                },
            );
        });
    }

    /// A row of inputs as a line with one more element on each side; when upsampling, each input is repeated.
    #[inline(always)]
    fn spread(&self, inputs: &[f32], line: &mut [f32]) {
        let line = &mut line[1..];
        if self.upsampled {
            line.as_chunks_mut::<2>().0.iter_mut().zip(inputs).for_each(|(pair, x)| *pair = [*x; 2]);
        } else {
            line[..inputs.len()].copy_from_slice(inputs);
        }
    }

    /// Applies `B^T` along a line and writes the next positions.
    #[inline(always)]
    fn along_inputs<'a>(&self, line: &[f32], positions: &mut impl Iterator<Item = &'a mut [f32]>) {
        let (pairs, _) = line.as_chunks::<2>();
        let mut next = || positions.next().expect("BUG: a tile has more positions than its buffer");
        let windows = pairs.iter().zip(&pairs[1..]);
        let (v0, v1) = (next(), next());
        let pair = windows.clone().zip(v0.iter_mut().zip(v1));
        pair.for_each(|(([a, b], [c, _]), (v0, v1))| (*v0, *v1) = (a - c, b + c));
        if !self.upsampled {
            windows.clone().zip(next()).for_each(|(([_, b], [c, _]), v2)| *v2 = c - b);
        }
        windows.zip(next()).for_each(|(([_, b], [_, d]), v3)| *v3 = b - d);
    }

    /// The transpose of [`Self::gather_input`]: adds to the planes that start at element `first` of each part.
    pub(super) fn scatter_input(&self, v: &[f32], rows: &Range<usize>, x: &mut [&mut [f32]], first: usize) {
        let ((_, width), columns) = (self.source(), self.columns());
        let tiles = rows.len() * columns;
        scratch(self.line() + columns, |buffer| {
            let (line, zeros) = buffer.split_at_mut(self.line());
            zeros.fill(0.0);
            widest(
                #[inline(always)]
                || {
                    for (index, row) in rows.clone().enumerate() {
                        let plane = &mut x[row / self.rows()][first..];
                        let sources = self.source_rows(row % self.rows());
                        let mut positions = v.chunks(tiles).map(|v| &v[index * columns..][..columns]);
                        for &side in self.sides() {
                            self.back_along_inputs(&mut positions, zeros, line);
                            let sums = if self.upsampled { fold(line, width) } else { &line[1..=width] };
                            let (a, b, sign) = INPUT[side];
                            for (y, sign) in [(sources[a], 1.0), (sources[b], sign)] {
                                let Some(y) = y else { continue };
                                let to = plane[y * width..][..width].iter_mut();
                                to.zip(sums).for_each(|(to, term)| *to += sign * term);
                            }
                        }
                    }
                },
            );
        });
    }

    /// Applies `B` to the next positions and writes a line.
    #[inline(always)]
    fn back_along_inputs<'a>(
        &self,
        positions: &mut impl Iterator<Item = &'a [f32]>,
        zeros: &'a [f32],
        line: &mut [f32],
    ) {
        let mut next = || positions.next().expect("BUG: a tile has more positions than its buffer");
        let (v0, v1) = (next(), next());
        let (v2, v3) = (if self.upsampled { zeros } else { next() }, next());
        let (pairs, _) = line.as_chunks_mut::<2>();
        *pairs.last_mut().expect("a line is longer than two") = [0.0; 2];
        let left = pairs.iter_mut().zip(v0.iter().zip(v1).zip(v2.iter().zip(v3)));
        left.for_each(|(pair, ((v0, v1), (v2, v3)))| *pair = [*v0, v1 - v2 + v3]);
        let right = pairs[1..].iter_mut().zip(v0.iter().zip(v1).zip(v2.iter().zip(v3)));
        right.for_each(|([c, d], ((v0, v1), (v2, v3)))| {
            *c += v1 + v2 - v0;
            *d -= v3;
        });
    }

    /// `A dy A^T` of one output channel, as in [`Self::gather_input`].
    pub(super) fn gather_output(&self, dy: &[f32], step: usize, rows: &Range<usize>, m: &mut [f32]) {
        let (width, columns) = (self.width, self.columns());
        let tiles = rows.len() * columns;
        scratch(2 * columns + width, |buffer| {
            buffer.fill(0.0);
            let (line, zeros) = buffer.split_at_mut(2 * columns);
            widest(
                #[inline(always)]
                || {
                    for (index, row) in rows.clone().enumerate() {
                        let plane = &dy[row / self.rows() * step..];
                        let first = 2 * (row % self.rows());
                        let up = &plane[first * width..][..width];
                        let low = if first + 1 < self.height {
                            &plane[(first + 1) * width..][..width]
                        } else {
                            &*zeros
                        };
                        let mut positions = m.chunks_mut(tiles).map(|m| &mut m[index * columns..][..columns]);
                        for &side in self.sides() {
                            let [a, b] = OUTPUT[side];
                            line.iter_mut()
                                .zip(up.iter().zip(low))
                                .for_each(|(to, (up, low))| *to = a * up + b * low);
                            for &side in self.sides() {
                                let [a, b] = OUTPUT[side];
                                let to =
                                    positions.next().expect("BUG: a tile has more positions than its buffer");
                                let (pairs, _) = line.as_chunks::<2>();
                                to.iter_mut()
                                    .zip(pairs)
                                    .for_each(|(to, [left, right])| *to = a * left + b * right);
                            }
                        }
                    }
                },
            );
        });
    }

    /// `A^T m A` plus the bias, written to the planes that start at element `first` of each part.
    pub(super) fn scatter_output(
        &self,
        m: &[f32],
        rows: &Range<usize>,
        bias: f32,
        y: &mut [&mut [f32]],
        first: usize,
    ) {
        let (width, columns) = (self.width, self.columns());
        let (tiles, sides) = (rows.len() * columns, self.sides());
        scratch(4 * columns, |sums| {
            widest(
                #[inline(always)]
                || {
                    for (index, row) in rows.clone().enumerate() {
                        let plane = &mut y[row / self.rows()][first..][..self.output_plane()];
                        let top = 2 * (row % self.rows()) * width;
                        for (below, line) in plane[top..].chunks_mut(width).take(2).enumerate() {
                            sums.fill(0.0);
                            for (i, &side) in sides.iter().enumerate() {
                                let sign = OUTPUT[side][below];
                                if sign == 0.0 {
                                    continue;
                                }
                                for (j, &side) in sides.iter().enumerate() {
                                    let m = &m[(i * sides.len() + j) * tiles + index * columns..][..columns];
                                    let sums = sums[side * columns..][..columns].iter_mut();
                                    sums.zip(m).for_each(|(sum, m)| *sum += sign * m);
                                }
                            }
                            along_outputs(sums, columns, bias, line);
                        }
                    }
                },
            );
        });
    }

    /// `G g G^T` of a range of output channels: [outputs, input, 3, 3] -> [outputs, positions, input].
    pub(super) fn transform_weights(&self, weight: &[f32], u: &mut [f32]) {
        let sides = self.sides();
        widest(
            #[inline(always)]
            || {
                for (weight, u) in weight.chunks(self.input * 9).zip(u.chunks_mut(self.kernels())) {
                    for (block, kernels) in weight.chunks(LANES * 9).enumerate() {
                        let mut g = [[0.0f32; LANES]; 9];
                        for (lane, kernel) in kernels.as_chunks::<9>().0.iter().enumerate() {
                            g.iter_mut().zip(kernel).for_each(|(g, value)| g[lane] = *value);
                        }
                        let (first, count) = (block * LANES, kernels.len() / 9);
                        for (i, &down) in sides.iter().enumerate() {
                            let t = [0, 1, 2].map(|x| combine(KERNEL[down], [g[x], g[3 + x], g[6 + x]]));
                            for (j, &along) in sides.iter().enumerate() {
                                let to = &mut u[(i * sides.len() + j) * self.input + first..][..count];
                                to.copy_from_slice(&combine(KERNEL[along], t)[..count]);
                            }
                        }
                    }
                }
            },
        );
    }

    /// `G^T dU G`, the transpose: dU [positions, outputs, input] -> one output channel of [outputs, input, 3, 3].
    pub(super) fn fold_weights(&self, du: &[f32], output: usize, gradient: &mut [f32]) {
        let sides = self.sides();
        widest(
            #[inline(always)]
            || {
                for (block, kernels) in gradient.chunks_mut(LANES * 9).enumerate() {
                    let (first, count) = (block * LANES, kernels.len() / 9);
                    let mut dg = [[0.0f32; LANES]; 9];
                    for (i, &down) in sides.iter().enumerate() {
                        for (j, &along) in sides.iter().enumerate() {
                            let row = (i * sides.len() + j) * self.output + output;
                            let from = &du[row * self.input + first..][..count];
                            for (tap, dg) in dg.iter_mut().enumerate() {
                                let factor = KERNEL[down][tap / 3] * KERNEL[along][tap % 3];
                                dg.iter_mut().zip(from).for_each(|(sum, term)| *sum += factor * term);
                            }
                        }
                    }
                    for (lane, kernel) in kernels.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                        kernel.iter_mut().zip(&dg).for_each(|(to, dg)| *to = dg[lane]);
                    }
                }
            },
        );
    }
}

/// Adds, in place, each pair of gradients that belong to one input pixel of an upsampled image.
#[inline(always)]
fn fold(line: &mut [f32], width: usize) -> &[f32] {
    for x in 0..width {
        line[x] = line[2 * x + 1] + line[2 * x + 2];
    }
    &line[..width]
}

/// `A^T` along the sums over a tile's rows, giving one row of outputs.
#[inline(always)]
fn along_outputs(sums: &[f32], columns: usize, bias: f32, line: &mut [f32]) {
    let [s0, s1, s2, s3] = [0, 1, 2, 3].map(|side| &sums[side * columns..][..columns]);
    let (pairs, rest) = line.as_chunks_mut::<2>();
    for (t, pair) in pairs.iter_mut().enumerate() {
        *pair = [s0[t] + s1[t] + s2[t] + bias, s1[t] - s2[t] - s3[t] + bias];
    }
    if let (Some(last), t) = (rest.first_mut(), columns - 1) {
        *last = s0[t] + s1[t] + s2[t] + bias;
    }
}

/// `sum_k factors[k] terms[k]`, elementwise over lanes.
#[inline(always)]
fn combine(factors: [f32; 3], terms: [[f32; LANES]; 3]) -> [f32; LANES] {
    std::array::from_fn(|lane| {
        factors[0] * terms[0][lane] + factors[1] * terms[1][lane] + factors[2] * terms[2][lane]
    })
}
