//! AdamW with moments in 8 bits: reads, updates and writes the codes of a block while its numbers are in the cache.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::adamw::{Step, modify};
use super::elements;
use super::simd::widest;
use crate::nn::blockwise::{BLOCK, Blockwise};

/// Blocks per task.
const TASK_BLOCKS: usize = 64;

/// Updates `parameter` and both moments, all on the CPU; parameter and gradient are contiguous f32.
pub(in crate::nn) fn apply(
    step: &Step,
    parameter: &Tensor,
    g: &Tensor,
    first: &Blockwise,
    second: &Blockwise,
) -> Result<()> {
    let g = g.contiguous()?;
    let g = elements(&g)?;
    // Each closure holds the lock of its tensor, so the innermost can access all of them.
    modify(parameter, |parameter: &mut [f32]| {
        modify(&first.codes, |first_codes: &mut [u8]| {
            modify(&first.scales, |first_scales: &mut [f32]| {
                modify(&second.codes, |second_codes: &mut [u8]| {
                    modify(&second.scales, |second_scales: &mut [f32]| {
                        let task = TASK_BLOCKS * BLOCK;
                        let weights = parameter.par_chunks_mut(task).zip(g.par_chunks(task));
                        let first =
                            (first_codes.par_chunks_mut(task)).zip(first_scales.par_chunks_mut(TASK_BLOCKS));
                        let second = (second_codes.par_chunks_mut(task))
                            .zip(second_scales.par_chunks_mut(TASK_BLOCKS));
                        weights.zip(first).zip(second).for_each(|((weights, first), second)| {
                            blocks(step, weights, first, second);
                        });
                        Ok(())
                    })
                })
            })
        })
    })
}

/// Codes and scales of consecutive blocks.
type Codes<'a> = (&'a mut [u8], &'a mut [f32]);

fn blocks(step: &Step, (parameter, g): (&mut [f32], &[f32]), first: Codes<'_>, second: Codes<'_>) {
    let weights = parameter.chunks_mut(BLOCK).zip(g.chunks(BLOCK));
    let first = first.0.chunks_mut(BLOCK).zip(first.1);
    let second = second.0.chunks_mut(BLOCK).zip(second.1);
    for (((parameter, g), (first, first_scale)), (second, second_scale)) in weights.zip(first).zip(second) {
        widest(
            #[inline(always)]
            || {
                let (mut m, mut v) = ([0f32; BLOCK], [0f32; BLOCK]);
                for (m, code) in m.iter_mut().zip(first.iter()) {
                    let part = (f32::from(*code) - 128.0) * (1.0 / 127.0);
                    *m = *first_scale * (part * part * (part * part.abs()));
                }
                for (v, code) in v.iter_mut().zip(second.iter()) {
                    let part = f32::from(*code) * (1.0 / 255.0);
                    *v = *second_scale * (part * part * (part * part));
                }
                step.apply_block(parameter, g, &mut m[..g.len()], &mut v[..g.len()]);
                *first_scale = largest(&m);
                *second_scale = largest(&v);
                let (by_first, by_second) = (inverse(*first_scale), inverse(*second_scale));
                for (code, m) in first.iter_mut().zip(&m) {
                    let root = (m.abs() * by_first).sqrt().sqrt();
                    *code = ((127.0 * root).round_ties_even().copysign(*m) + 128.0) as u8;
                }
                for (code, v) in second.iter_mut().zip(&v) {
                    let root = (v * by_second).sqrt().sqrt();
                    // A second moment of zero would let the first move the weight without limit.
                    let least = if *v > 0.0 { 1.0 } else { 0.0 };
                    *code = (255.0 * root).round_ties_even().max(least) as u8;
                }
            },
        );
    }
}

/// The largest magnitude.
#[inline(always)]
fn largest(numbers: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0f32; 16];
    for chunk in numbers.chunks_exact(16) {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(number.abs());
        }
    }
    lanes.iter().fold(0.0, |a, b| a.max(*b))
}

fn inverse(scale: f32) -> f32 {
    scale.max(f32::MIN_POSITIVE).recip()
}
