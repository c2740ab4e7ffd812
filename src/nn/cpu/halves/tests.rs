//! Products of bf16 operands against sums in f64.

use candle_core::{Result, Tensor};
use half::bf16;
use proptest::prelude::*;

use super::super::gemm::{Matrix, Write};
use super::super::window::Window;
use super::{Cut, DEPTH, Left, Packing, Right, Unit, halves};
use crate::backend::Random;

/// Nothing here can run without the instructions; layers then widen their weights, which `nn::tests` compares bit by bit.
/// The unit comes with all that this processor has, and without AMX.
fn units() -> impl Iterator<Item = Unit> {
    Unit::detect().into_iter().flat_map(|unit| [unit, unit.without_tiles()])
}

fn normal(name: &str, length: usize) -> Vec<f32> {
    let drawn = Random::new(3, "halves").normal(name, 0, &[length], &candle_core::Device::Cpu);
    drawn.and_then(|tensor: Tensor| -> Result<Vec<f32>> { tensor.to_vec1() }).expect("numbers on the CPU")
}

fn rounded(numbers: &[f32]) -> Vec<u16> {
    numbers.iter().map(|x| bf16::from_f32(*x).to_bits()).collect()
}

/// Both ways to a product [m, n]: a right operand in rows of f32, and one in columns of bf16.
fn both_ways(unit: Unit, [m, n, k]: [usize; 3], a: &[f32], columns: &[u16]) -> [Vec<f32>; 2] {
    let rows: Vec<f32> = (0..k * n).map(|i| bf16::from_bits(columns[i % n * k + i / n]).to_f32()).collect();
    let mut found = [vec![f32::NAN; m * n], vec![f32::NAN; m * n]];
    unit.lend_left(Matrix::rows(a, k), [m, k], 1.0, |left: Left| {
        let [by_rows, by_columns] = &mut found;
        let mut out = Window::new(by_rows, n, [m, n]);
        unit.multiply_rows(left, Matrix::rows(&rows, n), k, Write::Set, &mut out);
        let packing = Packing::new(k, n, DEPTH);
        let mut data = vec![u32::MAX; packing.length()];
        for (chunk, to) in data.chunks_exact_mut(packing.stride).enumerate() {
            let first = chunk * packing.chunk;
            unit.pack_columns(&packing, &columns[first..], k, packing.chunk.min(k - first), to);
        }
        let right = Right { data: &data, packing };
        unit.multiply(left, right, 0, Write::Set, &mut Window::new(by_columns, n, [m, n]));
    });
    found
}

/// What the head of the module states, for a weight in bf16 and an input that is rounded.
fn check(shape: [usize; 3]) {
    units().for_each(|unit| check_unit(unit, shape));
}

fn check_unit(unit: Unit, [m, n, k]: [usize; 3]) {
    let (a, columns) = (normal("a", m * k), rounded(&normal("b", n * k)));
    let [found, other] = both_ways(unit, [m, n, k], &a, &columns);
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&found) == bits(&other), "both ways of packing give one product");
    for (i, found) in found.iter().enumerate() {
        let terms = a[i / n * k..][..k].iter().zip(&columns[i % n * k..][..k]);
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for (a, b) in terms {
            let term = f64::from(*a) * bf16::from_bits(*b).to_f64();
            sum += term;
            magnitude += term.abs();
        }
        let bound = (2f64.powi(-8) + k as f64 * 2f64.powi(-23)) * magnitude;
        let error = (f64::from(*found) - sum).abs();
        assert!(error <= bound, "{m} x {n} x {k}, element {i}: {found}, needed {sum}, bound {bound:e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_keep_their_bound((m, n, k) in (1usize..20, 1usize..150, 1usize..120)) {
        check([m, n, k]);
    }
}

#[test]
fn long_sums_keep_their_bound() {
    for shape in [
        [7, 65, 319],
        [6, 64, 320],
        [13, 17, 321],
        [3, 33, 1281],
        [1, 1, 5000],
        [35, 290, 1500],
        [64, 64, 2912],
    ] {
        check(shape);
    }
}

/// NaN and infinities reach the outputs that they belong to and no other, also beside the ends of odd rows.
#[test]
fn values_that_are_not_finite_stay_where_they_belong() {
    for unit in units() {
        for [m, n, k] in [[7, 21, 5], [2, 70, 33], [9, 16, 64]] {
            for (special, row) in [(f32::NAN, 1), (f32::INFINITY, 0), (f32::NEG_INFINITY, m - 1)] {
                let (mut a, columns) = (vec![1.0; m * k], rounded(&vec![1.0; n * k]));
                a[row * k + k - 1] = special;
                let (mut b, ones) = (columns.clone(), vec![1.0; m * k]);
                b[(n - 1) * k] = bf16::from_f32(special).to_bits();
                let is = |x: f32| x.is_nan() && special.is_nan() || x == special;
                for found in both_ways(unit, [m, n, k], &a, &columns) {
                    for (i, x) in found.into_iter().enumerate() {
                        assert!(
                            if i / n == row { is(x) } else { x == k as f32 },
                            "{special}, element {i}: {x}"
                        );
                    }
                }
                for found in both_ways(unit, [m, n, k], &ones, &b) {
                    for (i, x) in found.into_iter().enumerate() {
                        assert!(
                            if i % n == n - 1 { is(x) } else { x == k as f32 },
                            "{special}, element {i}: {x}"
                        );
                    }
                }
            }
        }
    }
}

/// Numbers below the range of normal numbers count as zero; the smallest normal number does not.
#[test]
fn denormal_numbers_are_zero() {
    for unit in units() {
        let denormal = f32::MIN_POSITIVE / 2.0;
        for (a, b, wanted) in [
            (denormal, 1.0, 0.0),
            (2f32.powi(100), denormal, 0.0),
            (f32::MIN_POSITIVE, 0.5, 0.0),
            (f32::MIN_POSITIVE, 1.0, f32::MIN_POSITIVE),
        ] {
            let columns = [bf16::from_f32(b).to_bits()];
            assert_eq!(both_ways(unit, [1, 1, 1], &[a], &columns), [[wanted], [wanted]], "{a:e} times {b:e}");
        }
    }
}

/// Halfway between two numbers of bf16, the even one.
#[test]
fn numbers_are_rounded_as_by_half() {
    for unit in units() {
        let mut numbers = normal("numbers", 1001);
        numbers.extend([1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 0.0, -0.0, f32::MAX, f32::INFINITY]);
        halves(numbers.len(), |found| {
            unit.round(&numbers, 1.0, found);
            assert_eq!(found, rounded(&numbers));
        });
    }
}

/// Rows and columns of the products of SD v1.5 and SDXL for one picture of 64 x 64 latents, with their inner dimension and about how
/// often they occur: linear layers, convolutions of single pixels, and those that are computed by their columns.
const PRODUCTS: &[([usize; 3], usize)] = &[
    ([4096, 320, 320], 25),
    ([4096, 2560, 320], 5),
    ([4096, 320, 1280], 5),
    ([320, 4096, 320], 10),
    ([320, 1024, 2880], 1),
    ([1024, 640, 640], 100),
    ([1024, 5120, 640], 10),
    ([1024, 640, 2560], 10),
    ([640, 1024, 640], 12),
    ([640, 256, 5760], 1),
    ([256, 1280, 1280], 400),
    ([256, 10240, 1280], 60),
    ([256, 1280, 5120], 60),
    ([1280, 256, 1280], 12),
    ([1280, 256, 11520], 10),
    ([1280, 64, 11520], 12),
];

/// Each thread's share of the multiplications, over all layers: in each layer, all wait for the last.
#[test]
fn many_threads_get_equal_work() {
    for (threads, tiles) in (1..=64).flat_map(|threads| [(threads, false), (threads, true)]) {
        let (mut longest, mut mean) = (0.0, 0.0);
        for ([rows, columns, depth], count) in PRODUCTS {
            let mut data = vec![0.0; rows * columns];
            let window = Window::new(&mut data, *columns, [*rows, *columns]);
            let Cut { block, pieces } = Cut::new(&window, threads, tiles);
            let mut work = vec![0; threads];
            for windows in window.pieces(block, &pieces) {
                let of_piece = windows.iter().map(|(_, part)| part.rows() * part.columns() * depth);
                *work.iter_mut().min().expect("there is a thread") += of_piece.sum::<usize>();
            }
            assert_eq!(work.iter().sum::<usize>(), rows * columns * depth, "every output once");
            longest += (count * work.iter().max().expect("there is a thread")) as f64;
            mean += (count * work.iter().sum::<usize>()) as f64 / threads as f64;
        }
        assert!(longest <= 1.05 * mean, "{threads} threads, tiles {tiles}: {}", longest / mean);
    }
}
