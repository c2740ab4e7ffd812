//! The layers of `nn` as they compute on a GPU, on tensors of the CPU: allocations, layouts, products, and the graph.

use candle_core::{DType, Result, Tensor, Var};

use super::case::{Case, Results, normal};
use super::emulator::Emulator;
use crate::nn::{self, Conv2d, GroupNorm, LayerNorm, Linear, image};

type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The output and the gradients of all operands but the frozen one, in f64.
fn differentiate(
    op: Op,
    operands: &[Tensor],
    types: &[DType],
    cotangent: &Tensor,
    frozen: Option<usize>,
) -> Result<Results> {
    let typed = operands.iter().zip(types).map(|(x, dtype)| x.to_dtype(*dtype));
    let typed = typed.collect::<Result<Vec<_>>>()?;
    let variables = typed.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tracked = |(i, variable): (usize, &Var)| match frozen == Some(i) {
        true => variable.as_detached_tensor(),
        false => variable.as_tensor().clone(),
    };
    let tracked: Vec<Tensor> = variables.iter().enumerate().map(tracked).collect();
    let (y, tape) = nn::record(|| op(&tracked))?;
    let store = tape.backward([(y.clone(), cotangent.to_dtype(y.dtype())?)])?;
    let mut gradients = Vec::new();
    for (i, variable) in variables.iter().enumerate() {
        match store.get(variable) {
            Some(gradient) => {
                assert_eq!(gradient.dtype(), types[i], "a gradient has the type of its operand");
                assert_ne!(frozen, Some(i), "a frozen operand has a gradient");
                gradients.push(gradient.to_dtype(DType::F64)?);
            }
            None => assert_eq!(frozen, Some(i), "operand {i} has no gradient"),
        }
    }
    Ok(Results { output: y.to_dtype(DType::F64)?, gradients })
}

/// Compares the kernels with f64 under all schedules, for activations in `flowing` and weights in f32; the first `flow` operands
/// are activations. Outputs are measured by the sum of the absolute values of their terms.
fn check(what: &str, op: Op, shapes: &[&[usize]], flow: usize, flowing: DType) -> Result<()> {
    let types: Vec<DType> = (0..shapes.len()).map(|i| if i < flow { flowing } else { DType::F32 }).collect();
    let operands =
        shapes.iter().enumerate().map(|(i, shape)| normal(&format!("{what} {i}"), shape, types[i]));
    let operands = operands.collect::<Result<Vec<_>>>()?;
    let case = Case::new(op, operands, flowing)?;
    let sizes = case.operands.iter().map(Tensor::abs).collect::<Result<Vec<_>>>()?;
    let scale = op(&sizes)?.abs()?;
    let scale = if what.contains("norm") { None } else { Some(&scale) };
    let what = format!("{what}, {flowing:?}");
    let on = |emulator: &Emulator, frozen| {
        emulator.emulating(|| differentiate(op, &case.operands, &types, &case.cotangent, frozen))
    };
    case.check(&what, flowing, scale, |emulator| on(emulator, None))?;
    if shapes.len() == 1 {
        return Ok(());
    }
    let emulator = Emulator::schedules()[0];
    let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f64>();
    let all = on(&emulator, None)?;
    for frozen in 0..shapes.len() {
        let mut wanted = all.gradients.clone();
        wanted.remove(frozen);
        for (found, wanted) in on(&emulator, Some(frozen))?.gradients.iter().zip(&wanted) {
            assert!(numbers(found)? == numbers(wanted)?, "{what}: freezing {frozen} changes other gradients");
        }
    }
    Ok(())
}

const TYPES: [DType; 2] = [DType::BF16, DType::F32];

fn linear(t: &[Tensor], bias: bool) -> Linear {
    Linear { weight: t[1].clone(), bias: bias.then(|| t[2].clone()) }
}

#[test]
fn linear_layers() -> Result<()> {
    for flowing in TYPES {
        // Runs of 16 bytes and odd sizes.
        for [rows, input, output] in [[5, 16, 24], [7, 5, 9], [1, 3, 1]] {
            let x: &[usize] = &[2, rows, input];
            let weight: &[usize] = &[output, input];
            let op = |t: &[Tensor]| linear(t, true).forward(&t[0]);
            check("linear", &op, &[x, weight, &[output]], 1, flowing)?;
            let op = |t: &[Tensor]| linear(t, false).forward(&t[0]);
            check("linear without bias", &op, &[x, weight], 1, flowing)?;
            let op = |t: &[Tensor]| {
                let linear = Linear { weight: t[2].clone(), bias: Some(t[3].clone()) };
                linear.forward_onto(&t[0], &t[1])
            };
            let gated = |t: &[Tensor]| {
                let linear = Linear { weight: t[2].clone(), bias: Some(t[3].clone()) };
                linear.forward_gated_onto(&t[0], &t[1])
            };
            let both: &[usize] = &[2, rows, 2 * input];
            // What flows between the two is rounded: measured by the largest.
            check("gated, residual", &gated, &[both, &[2, rows, output], weight, &[output]], 2, flowing)?;
            check("linear, residual", &op, &[x, &[2, rows, output], weight, &[output]], 2, flowing)?;
        }
    }
    Ok(())
}

/// Of images [b, c, h, w].
fn on_images(t: &[Tensor], op: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    image::end(&op(&image::begin(&t[0])?)?)
}

fn conv(t: &[Tensor], stride: usize, padding: usize) -> Conv2d {
    Conv2d { weight: t[1].clone(), bias: t.get(2).cloned(), stride, padding }
}

#[test]
fn convolutions() -> Result<()> {
    for flowing in TYPES {
        for (input, output, kernel, stride, padding) in
            [(8, 16, 3, 1, 1), (3, 5, 3, 2, 1), (8, 8, 1, 1, 0), (5, 3, 1, 1, 0), (3, 4, 4, 4, 0)]
        {
            let (x, weight): ([usize; 4], [usize; 4]) = ([2, input, 5, 4], [output, input, kernel, kernel]);
            let op = |t: &[Tensor]| on_images(t, |x| conv(t, stride, padding).forward(x));
            check("conv", &op, &[&x, &weight, &[output]], 1, flowing)?;
            check("conv without bias", &op, &[&x, &weight], 1, flowing)?;
        }
        let op = |t: &[Tensor]| on_images(t, |x| conv(t, 1, 1).forward_upsampled(x));
        check("conv, enlarged", &op, &[&[2, 8, 3, 2], &[4, 8, 3, 3], &[4]], 1, flowing)?;
        let op = |t: &[Tensor]| {
            let conv = Conv2d { weight: t[2].clone(), bias: Some(t[3].clone()), stride: 1, padding: 1 };
            image::end(&conv.forward_shifted(&image::begin(&t[0])?, &t[1])?)
        };
        check("conv, shifted", &op, &[&[2, 8, 3, 4], &[2, 8], &[8, 8, 3, 3], &[8]], 2, flowing)?;
    }
    Ok(())
}

/// The gradients of a convolution in slabs are sums over slabs.
#[test]
fn convolutions_in_slabs() -> Result<()> {
    use crate::nn::{cuda, operation};
    for most in [1, 300, 1200] {
        let op = |t: &[Tensor]| {
            if Emulator::of_thread().is_err() {
                return conv(t, 1, 1).forward(&t[0]);
            }
            let x = image::begin(&t[0])?;
            let op = cuda::Conv2d::new(1, 1, false).by(most);
            image::end(&operation::apply(op, [&x, &t[1], &t[2]])?)
        };
        check("conv in slabs", &op, &[&[3, 8, 4, 5], &[6, 8, 3, 3], &[6]], 1, DType::BF16)?;
    }
    Ok(())
}

#[test]
fn norms() -> Result<()> {
    for flowing in TYPES {
        for silu in [false, true] {
            let op = |t: &[Tensor]| {
                let norm = GroupNorm { weight: t[1].clone(), bias: t[2].clone(), groups: 4, eps: 1e-5 };
                on_images(t, |x| if silu { norm.forward_silu(x) } else { norm.forward(x) })
            };
            check("group norm", &op, &[&[2, 16, 5, 3], &[16], &[16]], 1, flowing)?;
            check("group norm, odd", &op, &[&[1, 12, 7, 3], &[12], &[12]], 1, flowing)?;
        }
        let op =
            |t: &[Tensor]| LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0]);
        check("layer norm", &op, &[&[2, 9, 40], &[40], &[40]], 1, flowing)?;
    }
    Ok(())
}

#[test]
fn attention_and_what_is_pointwise() -> Result<()> {
    // The first has kernels in bf16 and none in f32, the second none at all.
    for (heads, width) in [(2, 80), (2, 12)] {
        for causal in [false, true] {
            let op = |t: &[Tensor]| nn::attention(&t[0], &t[1], &t[2], heads, causal);
            let shape: &[usize] = &[2, 9, width];
            for flowing in if width == 12 { &TYPES[1..] } else { &TYPES[..] } {
                check("attention", &op, &[shape, shape, shape], 3, *flowing)?;
            }
        }
    }
    for flowing in TYPES {
        let join =
            |t: &[Tensor]| image::end(&image::concatenate([&image::begin(&t[0])?, &image::begin(&t[1])?])?);
        for [of_a, of_b] in [[8, 16], [3, 5]] {
            check("concatenation", &join, &[&[2, of_a, 3, 4], &[2, of_b, 3, 4]], 2, flowing)?;
        }
        let shape: &[usize] = &[3, 7, 5];
        check("sum", &|t| nn::add(&t[0], &t[1]), &[shape, shape], 2, flowing)?;
        check("geglu", &|t| nn::geglu(&t[0]), &[&[2, 5, 48]], 1, flowing)?;
        let op = |t: &[Tensor]| on_images(t, nn::upsample_nearest_2x);
        check("enlargement", &op, &[&[2, 3, 4, 5]], 1, flowing)?;
        // A value is f32 whatever flows; it is compared as such, and so are its gradients.
        let op = |t: &[Tensor]| {
            let mean = nn::mean_square_difference(&t[0], &t[1])?;
            if t[0].dtype() == DType::F64 { (&t[0] - &t[1])?.sqr()?.mean_all() } else { Ok(mean) }
        };
        for shape in [&[2, 5, 3][..], &[1, 40_003]] {
            check("difference norm", &op, &[shape, shape], 2, flowing)?;
        }
    }
    Ok(())
}

/// Views are copied: their numbers are not where a kernel would look.
#[test]
fn operands_may_be_views() -> Result<()> {
    let op = |t: &[Tensor]| {
        let linear = Linear { weight: t[1].t()?, bias: None };
        linear.forward(&t[0].transpose(0, 1)?.narrow(2, 1, 6)?)?.transpose(1, 2)?.sqr()
    };
    check("linear of views", &op, &[&[5, 2, 9], &[6, 3]], 1, DType::F32)
}

/// Images cross a network in the order of the device, and leave it as they came.
#[test]
fn images_keep_their_pixels() -> Result<()> {
    let x = normal("image", &[2, 3, 4, 5], DType::F32)?.to_dtype(DType::F32)?;
    let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
    let walk = || -> Result<Vec<Vec<f32>>> {
        let image = image::begin(&x)?;
        assert_eq!(image::size(&image)?, (2, 3, 4, 5));
        let tokens = image::tokens(&image)?;
        let back = image::pixels(&tokens, &image)?;
        let both = image::concatenate([&image, &back])?;
        let numbers_of_channels = Tensor::arange(0f32, 12.0, x.device())?.reshape((2, 6))?;
        let padded = image::pad_end(&image::shift(&both, &numbers_of_channels)?)?;
        let results = [tokens, image::end(&padded)?, image::end(&image::crop(&padded, 2, 3)?)?];
        results.iter().map(numbers).collect()
    };
    assert_eq!(Emulator::schedules()[0].emulating(walk)?, walk()?);
    Ok(())
}

/// A copy takes the place of its weight until it ends, and changes when the weight is set.
#[test]
fn copies_of_weights() -> Result<()> {
    use crate::nn::copies::{self, Copies};
    let weight = Var::from_tensor(&normal("weight", &[8, 16], DType::F32)?.to_dtype(DType::F32)?)?;
    let x = normal("x", &[3, 16], DType::BF16)?.to_dtype(DType::BF16)?;
    let other = weight.as_detached_tensor();
    let forward = |weight: &Tensor| -> Result<Vec<f32>> {
        let linear = Linear { weight: weight.clone(), bias: None };
        let y = Emulator::schedules()[0].emulating(|| linear.forward(&x))?;
        y.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
    };
    let wanted = forward(&weight)?;
    let mut held = Copies::default();
    held.add(&weight, &other)?;
    assert_eq!([forward(&weight)?, forward(&other)?], [wanted.clone(), wanted.clone()]);
    // Changed behind the copy's back, then as it should be.
    weight.set(&(weight.as_detached_tensor() * 2.0)?)?;
    assert_eq!(forward(&other)?, wanted);
    copies::set(&weight, &(weight.as_detached_tensor() * 1.0)?)?;
    let doubled: Vec<f32> = wanted.iter().map(|y| 2.0 * y).collect();
    assert_eq!([forward(&weight)?, forward(&other)?], [doubled.clone(), doubled.clone()]);
    drop(held);
    weight.set(&(weight.as_detached_tensor() * 0.5)?)?;
    assert_eq!(forward(&weight)?, wanted);
    Ok(())
}
