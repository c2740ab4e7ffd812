//! Tests each method of 3x3 convolution against plain loops in f64, regardless of which method the layer would choose.

use candle_core::Device;
use proptest::prelude::*;

use super::direct::Direct;
use super::weight::Weight;
use super::winograd::Winograd;
use crate::backend::Random;

/// Relative to the largest element: sums of up to some hundred rounded terms; Winograd's transforms lose one more
/// digit.
const ROUNDING: f64 = 2e-5;

/// Outputs, and the gradients of x and weight for output gradients g.
struct Results([Vec<f64>; 3]);

/// Stride 1, padding 1, in plain loops.
fn plain(
    [images, input, output, height, width]: [usize; 5],
    [x, weight, bias, g]: [&[f32]; 4],
    upsampled: bool,
) -> Results {
    let scale = if upsampled { 2 } else { 1 };
    let (rows, columns) = (height / scale, width / scale);
    let mut results = [vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; weight.len()]];
    let [out, dx, dw] = &mut results;
    for (at, (out, g)) in out.iter_mut().zip(g).enumerate() {
        let (image, channel) = (at / (output * height * width), at / (height * width) % output);
        let (y, column) = (at / width % height, at % width);
        *out = f64::from(bias[channel]);
        for (from, tap) in (0..input).flat_map(|from| (0..9).map(move |tap| (from, tap))) {
            let (y, column) = (y + tap / 3, column + tap % 3);
            if (1..=height).contains(&y) && (1..=width).contains(&column) {
                let plane = (image * input + from) * rows;
                let pixel = (plane + (y - 1) / scale) * columns + (column - 1) / scale;
                let kernel = (channel * input + from) * 9 + tap;
                *out += f64::from(x[pixel]) * f64::from(weight[kernel]);
                dx[pixel] += f64::from(*g) * f64::from(weight[kernel]);
                dw[kernel] += f64::from(*g) * f64::from(x[pixel]);
            }
        }
    }
    assert_eq!(dx.len(), images * input * rows * columns);
    Results(results)
}

impl Results {
    fn assert_close(&self, found: [Vec<f32>; 3]) {
        for (what, (found, wanted)) in ["outputs", "dx", "dw"].into_iter().zip(found.iter().zip(&self.0)) {
            assert_eq!(found.len(), wanted.len(), "{what}");
            let largest = wanted.iter().fold(1.0f64, |most, x| most.max(x.abs()));
            for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                let error = (f64::from(*found) - wanted).abs();
                assert!(error <= ROUNDING * largest, "{what}, element {i}: {found}, needed {wanted}");
            }
        }
    }
}

fn normal(name: &str, length: usize) -> Vec<f32> {
    let drawn = Random::new(3, "cpu tests").normal(name, 0, &[length], &Device::Cpu);
    drawn.and_then(|tensor| tensor.to_vec1()).expect("numbers on the CPU")
}

fn compare(shape: [usize; 5], upsampled: bool) {
    let [images, input, output, height, width] = shape;
    let source = if upsampled { height * width / 4 } else { height * width };
    let x = normal("x", images * input * source);
    let (weight, bias) = (normal("weight", output * input * 9), normal("bias", output));
    let g = normal("g", images * output * height * width);
    let wanted = plain(shape, [&x, &weight, &bias, &g], upsampled);
    let winograd = Winograd { images, input, output, height, width, upsampled };
    wanted.assert_close([
        winograd.convolve(&x, Weight::F32(&weight), &bias),
        winograd.input_gradient(&g, &weight),
        winograd.weight_gradient(&g, &x),
    ]);
    if !upsampled {
        let direct = Direct { images, input, output, height, width };
        wanted.assert_close([
            direct.convolve(&x, &weight, &bias),
            direct.input_gradient(&g, &weight),
            direct.weight_gradient(&g, &x),
        ]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_method_equals_plain_convolution(
        (images, input, output) in (1usize..7, 1usize..14, 1usize..14),
        (height, width) in (1usize..20, 1usize..20),
        upsampled: bool,
    ) {
        let even = |size: usize| if upsampled { size.next_multiple_of(2) } else { size };
        compare([images, input, output, even(height), even(width)], upsampled);
    }
}

#[test]
fn images_split_into_rows_and_tiles() {
    compare([1, 17, 20, 40, 33], false);
    compare([2, 9, 35, 37, 36], false);
    compare([1, 8, 18, 40, 34], true);
}
