//! Weights of a type other than the activations', and the gradients of weights that are used twice.

use super::*;
use crate::nn::differentiate as differentiate_loss;

/// Half-precision weights are widened: the result equals that with widened weights. Where the processor multiplies bf16, inputs are
/// rounded too, except where few channels meet: the difference is that of the rounding, and the same for any number of threads.
#[test]
fn weights_in_half_precision_are_read_as_they_are() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let rounds = dtype == DType::BF16 && multiplies_bf16();
        let same = |half: Result<Tensor>, wide: Result<Tensor>| -> Result<()> {
            assert!(bits(&[half?])? == bits(&[wide?])?, "{dtype:?}");
            Ok(())
        };
        let close = |half: &(dyn Fn() -> Result<Tensor> + Sync), wide: Result<Tensor>| -> Result<()> {
            if !rounds {
                return same(half(), wide);
            }
            let (found, wide) = (half()?, wide?);
            for count in [1, 2, 3, 7] {
                same(threads(count).install(half), Ok(found.clone()))?;
            }
            let error = relative_error(&found, &wide)?;
            // A rounding is at most 2^-8 and about 1e-3 on average. Winograd's method has two, and adds them up.
            assert!((2e-4..4e-3).contains(&error), "{dtype:?}: {error:e}");
            Ok(())
        };
        let halved = |shape: &[usize]| -> Result<[Tensor; 2]> {
            let half = normal("weight", shape)?.to_dtype(dtype)?;
            Ok([half.to_dtype(DType::F32)?, half])
        };
        for [rows, input, output] in [[70, 30, 40], [1, 33, 7], [300, 641, 130], [600, 70, 300]] {
            let [wide, half] = halved(&[output, input])?.map(|weight| Linear { weight, bias: None });
            let x = normal("x", &[rows, input])?;
            close(&|| half.forward(&x), wide.forward(&x))?;
        }
        // Few channels, many channels, many channels with few pixels, a stride, several images, and single pixels. Where there are tiles,
        // the number of threads also decides how large images and many rows are cut.
        for ([images, input, output, size, kernel], stride) in [
            ([1, 8, 40, 6, 3], 1),
            ([1, 100, 100, 24, 3], 1),
            ([1, 101, 97, 40, 3], 1),
            ([1, 170, 100, 40, 3], 1),
            ([1, 100, 40, 61, 3], 2),
            ([1, 100, 100, 4, 3], 1),
            ([1, 20, 20, 9, 3], 2),
            ([5, 21, 20, 9, 3], 2),
            ([5, 101, 100, 24, 3], 1),
            ([2, 33, 50, 13, 1], 1),
        ] {
            let padding = kernel / 2;
            let conv = |weight| Conv2d { weight, bias: None, stride, padding };
            let [wide, half] = halved(&[output, input, kernel, kernel])?.map(conv);
            let x = normal("x", &[images, input, size, size])?;
            match kernel == 3 && stride == 1 && input.min(output) <= 96 {
                true => same(half.forward(&x), wide.forward(&x))?,
                false => close(&|| half.forward(&x), wide.forward(&x))?,
            }
            if kernel == 3 && stride == 1 {
                close(&|| half.forward_upsampled(&x), wide.forward_upsampled(&x))?;
            }
        }
    }
    Ok(())
}

/// Scores and values are rounded as the layer's other products are; gradients belong to the same rounded scores.
#[test]
fn attention_of_a_layer_in_bf16() -> Result<()> {
    for ([queries, keys, heads, dim], causal) in
        [([300, 300, 2, 40], false), ([65, 77, 3, 7], false), ([270, 270, 1, 16], true)]
    {
        let shapes = [[2, queries, heads * dim], [2, keys, heads * dim], [2, keys, heads * dim]];
        let inputs = (0..3).map(|i| normal(&format!("input {i}"), &shapes[i])).collect::<Result<Vec<_>>>()?;
        let of = |dtype: DType| {
            let inputs = &inputs;
            move || {
                let op = |t: &[Tensor]| attention_of(dtype, &t[0], &t[1], &t[2], heads, causal);
                differentiate(&op, inputs, None)
            }
        };
        let (half, wide) = (of(DType::BF16), of(DType::F32)()?);
        let found = half()?;
        for count in [1, 2, 3] {
            assert!(bits(&threads(count).install(half)?)? == bits(&found)?, "{count} threads");
        }
        for (i, (found, wide)) in found.iter().zip(&wide).enumerate() {
            let error = relative_error(found, wide)?;
            // Queries, keys, weights and values are rounded, each by some 1e-3; an error of a score is one of its weight.
            let bound = if multiplies_bf16() { 1e-4..1.5e-2 } else { 0.0..1e-30 };
            assert!(bound.contains(&error), "{shapes:?}, tensor {i}: {error:e}");
        }
    }
    Ok(())
}

/// The square root of the share of the power that differs.
fn relative_error(found: &Tensor, wanted: &Tensor) -> Result<f64> {
    let power = |x: &Tensor| x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((power(&(found - wanted)?)? / power(wanted)?).sqrt())
}

fn multiplies_bf16() -> bool {
    crate::backend::machine::Host::ask().features.contains(&"avx512bf16")
}

/// As on a GPU, where f32 weights are trained with activations of another type.
#[test]
fn weights_of_a_type_other_than_the_activations() -> Result<()> {
    let ops: [(Op, &[&[usize]]); 5] = [
        (
            &|t| Linear { weight: t[1].clone(), bias: Some(t[2].clone()) }.forward(&t[0]),
            &[&[6, 5], &[4, 5], &[4]],
        ),
        (
            &|t| {
                let (weight, bias) = (t[1].clone(), Some(t[2].clone()));
                Conv2d { weight, bias, stride: 2, padding: 1 }.forward(&t[0])
            },
            &[&[2, 3, 6, 5], &[4, 3, 3, 3], &[4]],
        ),
        (
            &|t| {
                let (weight, bias) = (t[1].clone(), t[2].clone());
                GroupNorm { weight, bias, groups: 2, eps: 1e-5 }.forward_silu(&t[0])
            },
            &[&[2, 4, 3, 3], &[4], &[4]],
        ),
        (
            &|t| LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0]),
            &[&[3, 2, 5], &[5], &[5]],
        ),
        (
            &|t| Conv2d { weight: t[1].clone(), bias: None, stride: 1, padding: 1 }.forward_upsampled(&t[0]),
            &[&[1, 2, 3, 3], &[3, 2, 3, 3]],
        ),
    ];
    for (op, shapes) in ops {
        let narrow = shapes.iter().enumerate().map(|(i, shape)| normal(&format!("input {i}"), shape));
        let mut mixed = narrow.collect::<Result<Vec<_>>>()?;
        let wide = mixed.iter().map(|input| input.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
        mixed[0] = wide[0].clone();
        let (found, wanted) = (differentiate(op, &mixed, None)?, differentiate(op, &wide, None)?);
        assert_eq!(found[0].dtype(), DType::F64, "activations keep their type");
        assert_eq!(found[2].dtype(), DType::F32, "a weight's gradient has the weight's type");
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_close("of mixed types", found, wanted)?;
        }
    }
    Ok(())
}

/// A weight that is used twice, once by a layer and once by candle itself, has one gradient: the sum. So has a tensor
/// between two layers that candle uses too.
#[test]
fn operations_of_candle_may_stand_between() -> Result<()> {
    let weight = Var::from_tensor(&normal("weight", &[6, 6])?)?;
    let x = Var::from_tensor(&normal("x", &[5, 6])?)?;
    let loss = |linear: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<Tensor> {
        let y = linear(&x)?;
        let z = linear(&((&y * 2.0)? + y.tanh()?)?.t()?.contiguous()?.t()?)?;
        let sum = (z.sqr()?.sum_all()? + weight.sqr()?.sum_all()?)?;
        sum + (x.sum_all()? + y.narrow(0, 1, 2)?.sum_all()?)?
    };
    let layer = Linear { weight: weight.as_tensor().clone(), bias: None };
    let (value, ours) = differentiate_loss(|| loss(&|x| layer.forward(x)))?;
    let composed = loss(&|x| x.matmul(&weight.t()?))?;
    assert_close("the loss", &value, &composed)?;
    let candles = composed.backward()?;
    for variable in [&weight, &x] {
        let (Some(found), Some(wanted)) = (ours.get(variable), candles.get(variable)) else {
            panic!("a gradient is missing")
        };
        assert_close("the gradient of a variable", found, wanted)?;
    }
    Ok(())
}

/// What one tape computes can be the input of another: the gradients passed on are those of one tape for both.
#[test]
fn two_tapes_are_one() -> Result<()> {
    let x = Var::from_tensor(&normal("x", &[4, 6])?)?;
    let (whole, of_whole) = differentiate_loss(|| silu(&silu(&x)?)?.sum_all())?;
    let (middle, first) = record(|| silu(&x))?;
    let (loss, mut of_second) = differentiate_loss(|| silu(&middle)?.sum_all())?;
    let gradient = of_second.remove(&middle).expect("the second tape begins there");
    let found = first.backward([(middle.clone(), gradient)])?;
    assert!(bits(&[whole])? == bits(&[loss])?);
    let gradients = [&of_whole, &found].map(|found| found.get(&x).expect("x was used").clone());
    assert!(bits(&gradients[..1])? == bits(&gradients[1..])?);
    // Without a tape, nothing is kept.
    assert!(!silu(&x)?.track_op());
    assert!(first_error(&middle).contains("cannot be"), "{}", first_error(&middle));
    Ok(())
}

/// What a gradient of another shape is answered with.
fn first_error(middle: &Tensor) -> String {
    let ((), tape) = record(|| Ok(())).expect("nothing fails");
    let wrong = Tensor::zeros(2, DType::F32, &Device::Cpu).expect("two zeros");
    tape.backward([(middle.clone(), wrong)]).err().map(|error| error.to_string()).unwrap_or_default()
}
