//! Weights of a type other than the activations', and the gradients of weights that are used twice.

use super::*;
use crate::nn::differentiate as differentiate_loss;

/// Half-precision weights are widened, not computed with: the result equals that with widened weights.
#[test]
fn weights_in_half_precision_are_read_as_they_are() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let same = |half: Result<Tensor>, wide: Result<Tensor>| -> Result<()> {
            assert!(bits(&[half?])? == bits(&[wide?])?, "{dtype:?}");
            Ok(())
        };
        let halved = |shape: &[usize]| -> Result<[Tensor; 2]> {
            let half = normal("weight", shape)?.to_dtype(dtype)?;
            Ok([half.to_dtype(DType::F32)?, half])
        };
        let [wide, half] = halved(&[40, 30])?.map(|weight| Linear { weight, bias: None });
        let x = normal("x", &[70, 30])?;
        same(half.forward(&x), wide.forward(&x))?;
        // Few channels, many channels, many channels with few pixels, and a stride.
        for ([input, output, size], stride) in
            [([8, 40, 6], 1), ([100, 100, 24], 1), ([100, 100, 4], 1), ([20, 20, 9], 2)]
        {
            let conv = |weight| Conv2d { weight, bias: None, stride, padding: 1 };
            let [wide, half] = halved(&[output, input, 3, 3])?.map(conv);
            let x = normal("x", &[1, input, size, size])?;
            same(half.forward(&x), wide.forward(&x))?;
            if stride == 1 {
                same(half.forward_upsampled(&x), wide.forward_upsampled(&x))?;
            }
        }
    }
    Ok(())
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
