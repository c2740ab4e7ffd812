//! Compares every operation in f32 (the kernels) with the same operation in f64 (a composition of candle's operations),
//! whose gradients are compared with finite differences.
//!
//! [`check`] verifies that values and gradients agree, that every input gets a gradient, that a frozen input gets none
//! and changes no other gradient, and that one, two and three threads give the same bytes.

mod weights;

use candle_core::{DType, Device, Result, Tensor, Var};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use rayon::ThreadPool;

use super::*;
use crate::backend::Random;

type Op<'a> = &'a (dyn Fn(&[Tensor]) -> Result<Tensor> + Sync);

/// Tolerance of f32 against f64, relative to the largest element: sums of up to some thousand rounded terms.
const ROUNDING: f64 = 2e-5;
/// Tolerance of a central difference with step 1e-5 in f64.
const DIFFERENCES: f64 = 1e-6;

fn normal(name: &str, shape: &[usize]) -> Result<Tensor> {
    Random::new(7, "nn tests").normal(name, 0, shape, &Device::Cpu)
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

fn bits(tensors: &[Tensor]) -> Result<Vec<u32>> {
    let mut bits = Vec::new();
    for tensor in tensors {
        bits.extend(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits));
    }
    Ok(bits)
}

/// A scalar that depends on every element of the output with a different weight.
fn loss(y: &Tensor) -> Result<Tensor> {
    y.mul(&cotangent(y)?)?.sum_all()
}

/// The gradient of [`loss`].
fn cotangent(y: &Tensor) -> Result<Tensor> {
    normal("cotangent", y.dims())?.to_dtype(y.dtype())
}

/// The output, and the gradient of each input except `frozen`.
fn differentiate(op: Op, inputs: &[Tensor], frozen: Option<usize>) -> Result<Vec<Tensor>> {
    let mut operands = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        operands.push(if frozen == Some(i) { input.clone() } else { Var::from_tensor(input)?.into_inner() });
    }
    let (y, tape) = record(|| op(&operands))?;
    let store = tape.backward([(y.clone(), cotangent(&y)?)])?;
    let mut results = vec![y.detach()];
    for (i, operand) in operands.iter().enumerate() {
        match store.get(operand) {
            Some(gradient) => {
                assert_ne!(frozen, Some(i), "the frozen input {i} has a gradient");
                assert_eq!(gradient.dims(), operand.dims());
                results.push(gradient.clone());
            }
            None => assert_eq!(frozen, Some(i), "input {i} has no gradient"),
        }
    }
    Ok(results)
}

fn assert_close(what: &str, found: &Tensor, wanted: &Tensor) -> Result<()> {
    assert_eq!(found.dims(), wanted.dims(), "{what}");
    let (found, wanted) = (numbers(found)?, numbers(wanted)?);
    let largest = wanted.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let error = (found - wanted).abs();
        assert!(error <= ROUNDING * largest, "{what}, element {i}: {found}, needed {wanted}");
    }
    Ok(())
}

fn threads(count: usize) -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("a small pool can be made")
}

fn check(op: Op, shapes: &[&[usize]]) -> Result<()> {
    let mut inputs = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        inputs.push(normal(&format!("input {i}"), shape)?);
    }
    let wide = inputs.iter().map(|input| input.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
    let narrow_results = differentiate(op, &inputs, None)?;
    let wide_results = differentiate(op, &wide, None)?;
    for (i, (found, wanted)) in narrow_results.iter().zip(&wide_results).enumerate() {
        assert_close(if i == 0 { "the output" } else { "a gradient" }, found, wanted)?;
    }

    for (i, input) in wide.iter().enumerate() {
        let direction = normal(&format!("direction {i}"), input.dims())?.to_dtype(DType::F64)?;
        let at = |step: f64| -> Result<f64> {
            let mut moved = wide.clone();
            moved[i] = (input + (&direction * step)?)?;
            loss(&op(&moved)?)?.to_scalar()
        };
        let wanted = (at(1e-5)? - at(-1e-5)?) / 2e-5;
        let found: f64 = wide_results[i + 1].mul(&direction)?.sum_all()?.to_scalar()?;
        let size = 1.0 + found.abs() + (input.elem_count() as f64).sqrt();
        assert!(
            (found - wanted).abs() <= DIFFERENCES * size,
            "input {i}: {found} by {wanted} in differences"
        );
    }

    let expected = bits(&narrow_results)?;
    for count in [1, 2, 3] {
        let found = threads(count).install(|| bits(&differentiate(op, &inputs, None)?))?;
        assert!(found == expected, "{count} threads give different bytes");
    }

    for frozen in 0..if inputs.len() > 1 { inputs.len() } else { 0 } {
        let mut expected = narrow_results.clone();
        expected.remove(frozen + 1);
        let found = differentiate(op, &inputs, Some(frozen))?;
        assert!(bits(&found)? == bits(&expected)?, "freezing input {frozen} changes other gradients");
    }
    Ok(())
}

fn passes(result: Result<()>) -> std::result::Result<(), TestCaseError> {
    result.map_err(|error| TestCaseError::fail(error.to_string()))
}

fn conv(shape: [usize; 4], output: usize, [kernel, stride, padding]: [usize; 3]) -> Result<()> {
    let op = |t: &[Tensor]| {
        Conv2d { weight: t[1].clone(), bias: Some(t[2].clone()), stride, padding }.forward(&t[0])
    };
    check(&op, &[&shape, &[output, shape[1], kernel, kernel], &[output]])
}

fn enlarged_conv(shape: [usize; 4], output: usize) -> Result<()> {
    let op = |t: &[Tensor]| {
        let conv = Conv2d { weight: t[1].clone(), bias: Some(t[2].clone()), stride: 1, padding: 1 };
        conv.forward_upsampled(&t[0])
    };
    check(&op, &[&shape, &[output, shape[1], 3, 3], &[output]])
}

fn linear(rows: usize, input: usize, output: usize) -> Result<()> {
    let op = |t: &[Tensor]| Linear { weight: t[1].clone(), bias: Some(t[2].clone()) }.forward(&t[0]);
    check(&op, &[&[1, rows, input], &[output, input], &[output]])
}

fn group_norm(batch: usize, groups: usize, per_group: usize, rest: &[usize], silu: bool) -> Result<()> {
    let channels = groups * per_group;
    let op = |t: &[Tensor]| {
        let norm = GroupNorm { weight: t[1].clone(), bias: t[2].clone(), groups, eps: 1e-5 };
        if silu { norm.forward_silu(&t[0]) } else { norm.forward(&t[0]) }
    };
    check(&op, &[&[&[batch, channels], rest].concat(), &[channels], &[channels]])
}

fn layer_norm(rows: usize, size: usize) -> Result<()> {
    let op = |t: &[Tensor]| LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0]);
    check(&op, &[&[rows, 1, size], &[size], &[size]])
}

fn attend([batch, heads, n, m, d]: [usize; 5], causal: bool) -> Result<()> {
    let op = |t: &[Tensor]| attention(&t[0], &t[1], &t[2], heads, causal);
    check(&op, &[&[batch, n, heads * d], &[batch, m, heads * d], &[batch, m, heads * d]])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn conv2d_on_any_shape(
        batch in 1usize..10,
        (input, output) in (1usize..6, 1usize..6),
        (height, width) in (1usize..9, 1usize..9),
        (kernel, stride, padding) in (1usize..4, 1usize..4, 0usize..3),
    ) {
        prop_assume!(height.min(width) + 2 * padding >= kernel);
        passes(conv([batch, input, height, width], output, [kernel, stride, padding]))?;
    }

    #[test]
    fn enlarged_conv2d_on_any_shape(
        (batch, input, output) in (1usize..4, 1usize..6, 1usize..6),
        (height, width) in (1usize..7, 1usize..7),
    ) {
        passes(enlarged_conv([batch, input, height, width], output))?;
    }

    #[test]
    fn linear_on_any_shape((rows, input, output) in (1usize..40, 1usize..20, 1usize..20)) {
        passes(linear(rows, input, output))?;
    }

    // Norms need at least three elements: with two that are close together, the gradient is a difference of rounding
    // size times up to 1 / sqrt(eps), and f32 leaves only four digits of it.
    #[test]
    fn group_norm_on_any_shape(
        (batch, groups, per_group) in (1usize..5, 1usize..4, 1usize..4),
        (height, width) in (1usize..7, 3usize..7),
        silu: bool,
    ) {
        passes(group_norm(batch, groups, per_group, &[height, width], silu))?;
    }

    #[test]
    fn layer_norm_on_any_shape((rows, size) in (1usize..40, 3usize..40)) {
        passes(layer_norm(rows, size))?;
    }

    #[test]
    fn attention_on_any_shape(
        (batch, heads, d) in (1usize..4, 1usize..4, 1usize..9),
        (n, m) in (1usize..40, 1usize..40),
        causal: bool,
    ) {
        passes(attend([batch, heads, n, if causal { n } else { m }, d], causal))?;
    }

    #[test]
    fn pointwise_on_any_shape((rows, half) in (1usize..8, 1usize..40)) {
        let shape: &[usize] = &[rows, 2 * half];
        for op in [silu, gelu, quick_gelu, geglu] {
            passes(check(&|t| op(&t[0]), &[shape]))?;
        }
    }

    #[test]
    fn upsample_on_any_shape(shape in (1usize..4, 1usize..4, 1usize..6, 1usize..6)) {
        let shape: [usize; 4] = shape.into();
        passes(check(&|t| upsample_nearest_2x(&t[0]), &[&shape]))?;
    }
}

/// The shapes that use the parallel code paths: those of the shipped model, and single large images.
#[test]
fn conv2d_where_the_work_is_split() -> Result<()> {
    conv([9, 16, 16, 16], 24, [3, 1, 1])?; // one image per task
    conv([17, 24, 4, 4], 32, [3, 1, 1])?; // several images per product, the last group smaller
    conv([21, 64, 2, 2], 40, [3, 1, 1])?;
    conv([6, 32, 8, 8], 48, [3, 2, 1])?;
    conv([2, 6, 7, 9], 8, [3, 2, 1])?; // an odd size: the last pair of a row is incomplete
    conv([1, 100, 24, 22], 100, [3, 1, 1])?; // Winograd's method, split by channels
    conv([4, 98, 12, 11], 97, [3, 1, 1])?; // the same, split by images
    conv([1, 100, 5, 5], 98, [3, 1, 1])?; // many channels, few pixels: with columns
    conv([16, 24, 8, 8], 40, [1, 1, 0])?;
    conv([2, 40, 24, 20], 36, [3, 1, 1])?; // split by channels, in tiles of rows
    conv([1, 40, 24, 20], 36, [1, 1, 0])?;
    conv([2, 3, 32, 32], 40, [8, 8, 0])?;
    enlarged_conv([1, 24, 16, 18], 40)?;
    enlarged_conv([9, 16, 5, 4], 16)
}

#[test]
fn linear_where_the_work_is_split() -> Result<()> {
    linear(1100, 24, 40)?; // by rows, and the weight's gradient by the inner size
    linear(9, 200, 300) // by columns
}

#[test]
fn norms_where_the_work_is_split() -> Result<()> {
    group_norm(3, 4, 3, &[40, 30], true)?;
    group_norm(2, 8, 4, &[33], false)?; // tokens instead of an image
    layer_norm(300, 70)
}

#[test]
fn attention_where_the_work_is_split() -> Result<()> {
    attend([2, 2, 300, 300, 8], true)?;
    attend([1, 3, 520, 77, 16], false)
}

#[test]
fn pointwise_where_the_work_is_split() -> Result<()> {
    for op in [silu, gelu, quick_gelu, geglu] {
        check(&|t| op(&t[0]), &[&[130, 300]])?;
    }
    check(&|t| upsample_nearest_2x(&t[0]), &[&[2, 5, 40, 30]])
}

/// candle's own upsampling fails here: the input is used a second time, as in every skip connection.
#[test]
fn an_upsampled_input_may_be_used_twice() -> Result<()> {
    let op = |t: &[Tensor]| {
        let large = upsample_nearest_2x(&t[0])?;
        large.narrow(2, 0, t[0].dim(2)?)?.narrow(3, 0, t[0].dim(3)?)? + t[0].sqr()?
    };
    check(&op, &[&[2, 3, 4, 4]])
}

/// The layers accept views: heads are transposed, halves narrowed.
#[test]
fn operands_and_gradients_may_be_strided() -> Result<()> {
    let op = |t: &[Tensor]| {
        let linear = Linear { weight: t[1].t()?, bias: None };
        linear.forward(&t[0].transpose(0, 1)?)?.transpose(1, 2)?.sqr()
    };
    check(&op, &[&[5, 2, 6], &[6, 3]])
}

#[test]
fn a_wrong_shape_is_named() -> Result<()> {
    let x = normal("x", &[2, 3, 4, 4])?;
    let text = |result: Result<Tensor>| result.expect_err("the shapes do not fit").to_string();
    let conv = Conv2d { weight: normal("w", &[8, 5, 3, 3])?, bias: None, stride: 1, padding: 1 };
    let message = text(conv.forward(&x));
    assert!(
        message.contains("conv2d") && message.contains("[8, 5, 3, 3]") && message.contains("[2, 3, 4, 4]")
    );
    let linear = Linear { weight: normal("w", &[8, 5])?, bias: None };
    assert!(text(linear.forward(&x)).contains("linear: weight [8, 5]"));
    let (q, k) = (normal("q", &[1, 4, 6])?, normal("k", &[1, 4, 8])?);
    assert!(text(attention(&q, &k, &k, 2, false)).contains("[1, 4, 8]"));
    assert!(text(attention(&q, &q, &q, 4, false)).contains("4 heads"));
    assert!(text(geglu(&normal("x", &[2, 3])?)).contains("geglu"));
    let (weight, bias) = (normal("w", &[4])?, normal("b", &[4])?);
    let norm = GroupNorm { weight, bias, groups: 2, eps: 1e-5 };
    assert!(text(norm.forward(&x)).contains("group norm: weight [4]"));
    Ok(())
}

#[test]
fn nan_is_not_hidden() -> Result<()> {
    let x = Tensor::new(&[[1.0f32, f32::NAN]], &Device::Cpu)?;
    for y in [silu(&x)?, gelu(&x)?, quick_gelu(&x)?] {
        assert!(y.flatten_all()?.to_vec1::<f32>()?[1].is_nan());
    }
    let x = x.reshape((1, 2, 1))?;
    let y = attention(&x, &x, &x, 1, false)?.flatten_all()?.to_vec1::<f32>()?;
    assert!(y.iter().all(|y| y.is_nan()), "{y:?}");
    Ok(())
}
