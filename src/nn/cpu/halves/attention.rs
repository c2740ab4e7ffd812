//! Forward attention with products of bf16 operands: keys and values are rounded and packed once for each head, and the scores of a
//! strip of queries and a block of keys stay in the first-level cache.

use std::ops::Range;

use super::{GRAIN, Left, Packing, Right, Seen, Unit, halves};
use crate::nn::cpu::gemm::{Matrix, Write};
use crate::nn::cpu::scratch;
use crate::nn::cpu::window::Window;

/// Queries of a strip and keys of a block: 32 KiB of scores.
const QUERIES: usize = 32;
const KEYS: usize = 256;

/// Keys and values of one head.
pub(in crate::nn::cpu) struct Head {
    unit: Unit,
    /// [d, keys]
    keys: Vec<u32>,
    of_keys: Packing,
    /// [keys, d], a chunk for each block of keys.
    values: Vec<u32>,
    of_values: Packing,
}

impl Head {
    /// Rounds and packs `count` keys [d, count] and values [count, d].
    pub(in crate::nn::cpu) fn new(unit: Unit, keys: Matrix, values: Matrix, [count, d]: [usize; 2]) -> Self {
        let of_keys = Packing::new(d, count, d);
        let of_values = Packing { depth: count, columns: d, chunk: KEYS, stride: Packing::elements(KEYS, d) };
        let (mut packed_keys, mut packed_values) = (vec![0; of_keys.length()], vec![0; of_values.length()]);
        unit.pack_rows(&of_keys, keys.data, keys.row, d, &mut packed_keys);
        for (block, to) in packed_values.chunks_exact_mut(of_values.stride).enumerate() {
            let first = block * KEYS;
            let from = values.from(first, 0);
            unit.pack_rows(&of_values, from.data, from.row, KEYS.min(count - first), to);
        }
        Self { unit, keys: packed_keys, of_keys, values: packed_values, of_values }
    }

    /// Attends from `count` queries [count, d] to the keys before `end`.
    ///
    /// `hide` may change the scores [queries, keys] of a range of queries and one of keys.
    pub(in crate::nn::cpu) fn attend(
        &self,
        queries: Matrix,
        count: usize,
        end: usize,
        seen: Seen,
        hide: impl Fn([Range<usize>; 2], &mut [f32]),
    ) {
        let d = self.of_values.columns;
        let (unit, scale) = (self.unit, (d as f32).sqrt().recip());
        scratch(QUERIES * KEYS, |scores| {
            halves(QUERIES * KEYS, |weights| {
                for first in (0..count).step_by(QUERIES) {
                    let strip = first..(first + QUERIES).min(count);
                    let mut seen = Seen {
                        most: &mut seen.most[strip.clone()],
                        total: &mut seen.total[strip.clone()],
                        out: &mut seen.out[strip.start * d..strip.end * d],
                    };
                    unit.lend_left(queries.from(first, 0), [strip.len(), d], scale, |queries| {
                        for block in 0..end.div_ceil(KEYS) {
                            let keys = block * KEYS..((block + 1) * KEYS).min(self.of_values.depth);
                            let scores = &mut scores[..strip.len() * keys.len()];
                            let mut window = Window::new(scores, keys.len(), [strip.len(), keys.len()]);
                            let right = Right { data: &self.keys, packing: self.of_keys };
                            unit.multiply(queries, right, keys.start, Write::Set, &mut window);
                            hide([strip.clone(), keys.clone()], scores);
                            unit.weigh(scores, keys.len(), &mut seen, weights);
                            self.add_values(block, keys.len(), weights, seen.out);
                        }
                    });
                }
            });
        });
    }

    /// Adds the values of a block of keys by their weights.
    fn add_values(&self, block: usize, keys: usize, weights: &[u16], out: &mut [f32]) {
        let d = self.of_values.columns;
        let left = Left { data: weights, step: keys.next_multiple_of(GRAIN), padded: true };
        let data = &self.values[block * self.of_values.stride..];
        let right = Right { data, packing: Packing { depth: keys, ..self.of_values } };
        let rows = out.len() / d;
        self.unit.multiply(left, right, 0, Write::Add, &mut Window::new(out, d, [rows, d]));
    }
}
