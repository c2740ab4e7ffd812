//! The layers in f16, which have kernels where nobody asks for gradients: against f64, and none of them composed.

use candle_core::{DType, Result, Tensor, Var};

use super::case::{Case, normal};
use super::memory::emulating;
use crate::nn::{self, Conv2d, GroupNorm, LayerNorm, Linear, image};

type Op<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Compares with f64 under all schedules. All operands are in f16, but `wide` ones at the end: the weights of norms. `launches` are
/// those of the layer.
fn check(what: &str, op: Op, shapes: &[&[usize]], wide: usize, launches: u64) -> Result<()> {
    let flow = shapes.len() - wide;
    let types: Vec<DType> =
        (0..shapes.len()).map(|i| if i < flow { DType::F16 } else { DType::F32 }).collect();
    let operands =
        shapes.iter().enumerate().map(|(i, shape)| normal(&format!("{what} {i}"), shape, types[i]));
    let operands = operands.collect::<Result<Vec<_>>>()?;
    let case = Case::new(op, operands, DType::F16)?;
    let sizes = case.operands.iter().map(Tensor::abs).collect::<Result<Vec<_>>>()?;
    let scale = op(&sizes)?.abs()?;
    let scale = if what.contains("norm") { None } else { Some(&scale) };
    let typed = case.operands.iter().zip(&types).map(|(x, dtype)| x.to_dtype(*dtype));
    let typed = typed.collect::<Result<Vec<_>>>()?;
    case.check_forward(what, DType::F16, scale, |emulator| {
        let y = emulator.emulating(|| op(&typed))?;
        assert!(matches!(y.dtype(), DType::F16 | DType::F32), "{what} is {:?}", y.dtype());
        Ok(vec![y.to_dtype(DType::F64)?])
    })?;
    let (_, found) = emulating(|| op(&typed));
    assert_eq!(found, launches, "{what}");
    Ok(())
}

/// Of images [b, c, h, w].
fn on_images(x: &Tensor, op: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    image::end(&op(&image::begin(x)?)?)
}

/// Runs of 16 bytes and odd sizes.
#[test]
fn products() -> Result<()> {
    for [rows, input, output] in [[5, 16, 24], [7, 5, 9]] {
        let linear = |t: &[Tensor]| Linear { weight: t[t.len() - 2].clone(), bias: t.last().cloned() };
        let [x, y, weight]: [&[usize]; 3] = [&[2, rows, input], &[2, rows, output], &[output, input]];
        check("linear", &|t| linear(t).forward(&t[0]), &[x, weight, &[output]], 0, 2)?;
        let onto = |t: &[Tensor]| linear(t).forward_onto(&t[0], &t[1]);
        check("linear, residual", &onto, &[x, y, weight, &[output]], 0, 2)?;
        let gated = |t: &[Tensor]| linear(t).forward_gated_onto(&t[0], &t[1]);
        check("gated, residual", &gated, &[&[2, rows, 2 * input], y, weight, &[output]], 0, 3)?;
        check("gate", &|t| nn::geglu(&t[0]), &[&[2, rows, 2 * input]], 0, 1)?;
    }
    for (input, output, kernel) in [(8, 16, 3), (3, 5, 3), (8, 8, 1)] {
        let padding = kernel / 2;
        let conv = move |t: &[Tensor]| {
            let conv = Conv2d { weight: t[1].clone(), bias: t.get(2).cloned(), stride: 1, padding };
            on_images(&t[0], |x| conv.forward(x))
        };
        let shapes: [&[usize]; 3] = [&[2, input, 5, 4], &[output, input, kernel, kernel], &[output]];
        // The weight as a matrix, columns, the product, the bias.
        check("conv", &conv, &shapes, 0, if kernel == 1 { 3 } else { 4 })?;
    }
    Ok(())
}

#[test]
fn norms() -> Result<()> {
    for channels in [16, 12] {
        let group = |t: &[Tensor]| {
            let norm = GroupNorm { weight: t[1].clone(), bias: t[2].clone(), groups: 4, eps: 1e-5 };
            on_images(&t[0], |x| norm.forward_silu(x))
        };
        check("group norm", &group, &[&[2, channels, 5, 3], &[channels], &[channels]], 2, 2)?;
        let layer =
            |t: &[Tensor]| LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0]);
        check("layer norm", &layer, &[&[2, 7, channels], &[channels], &[channels]], 2, 1)?;
    }
    Ok(())
}

#[test]
fn attention() -> Result<()> {
    for (d, n, m) in [(40, 33, 77), (64, 65, 65), (80, 5, 70), (160, 20, 40), (512, 34, 33)] {
        let op = |t: &[Tensor]| nn::attention(&t[0], &t[1], &t[2], 1, false);
        check(&format!("attention of {d}"), &op, &[&[2, n, d], &[2, m, d], &[2, m, d]], 0, 1)?;
    }
    Ok(())
}

#[test]
fn rows() -> Result<()> {
    for channels in [8, 5] {
        let x: &[usize] = &[2, channels, 3, 3];
        check("sum", &|t| nn::add(&t[0], &t[1]), &[x, x], 0, 1)?;
        let both =
            |t: &[Tensor]| image::end(&image::concatenate([&image::begin(&t[0])?, &image::begin(&t[1])?])?);
        check("concatenation", &both, &[x, &[2, 8, 3, 3]], 0, 1)?;
        check("difference", &|t| nn::mean_square_difference(&t[0], &t[1]), &[x, x], 0, 2)?;
    }
    Ok(())
}

/// Scores that f16 cannot hold: they stay in f32.
#[test]
fn large_scores_do_not_overflow() -> Result<()> {
    let q = (normal("large q", &[1, 33, 64], DType::F16)? * 300.0)?.to_dtype(DType::F16)?;
    let v = normal("large v", &[1, 33, 64], DType::F16)?.to_dtype(DType::F16)?;
    let (y, launches) = emulating(|| nn::attention(&q, &q, &v, 1, false));
    let numbers = y?.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    // Each row sees itself alone.
    let wanted = v.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    assert!(launches == 1 && numbers == wanted);
    Ok(())
}

#[test]
fn gradients_are_composed() -> Result<()> {
    let x = Var::from_tensor(&normal("x", &[2, 8], DType::F16)?.to_dtype(DType::F16)?)?;
    let weight = normal("weight", &[4, 8], DType::F16)?.to_dtype(DType::F16)?;
    let linear = Linear { weight, bias: None };
    let (found, launches) = emulating(|| {
        let (_, found) =
            nn::differentiate(|| linear.forward(x.as_tensor())?.to_dtype(DType::F32)?.sum_all())?;
        Ok::<_, candle_core::Error>(found.get(&x).is_some())
    });
    assert_eq!((found?, launches), (true, 0));
    Ok(())
}
