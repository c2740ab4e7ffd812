//! Convolutions by columns against the composed layer in f64, with the products in f64 between the kernels.

use candle_core::{DType, Result, Tensor};

use super::buffer::Flowing;
use super::case::{Case, Results, normal, numbers};
use super::emulator::Emulator;
use crate::nn::Conv2d;
use crate::nn::cuda::columns::Columns;

/// The weight [out, in, kernel, kernel] as the matrix [kernel * kernel * in, out] by which columns are multiplied.
fn matrix(weight: &Tensor, row: usize) -> Result<Tensor> {
    weight.permute((2, 3, 1, 0))?.contiguous()?.reshape((row, ()))
}

/// y [batch, out pixels, out], dx [batch, pixels, in] and dW by slabs of at most `most` elements.
fn run(emulator: &Emulator, shape: &Columns, case: &Case<'_>, most: usize, dtype: DType) -> Result<Results> {
    let row = shape.row();
    let weight = matrix(&case.operands[1], row)?;
    let cotangent = case.cotangent.reshape(((), weight.dim(1)?))?;
    let mut x = Flowing::of(&case.operands[0], dtype)?;
    let mut dx = Flowing::nan(case.operands[0].dims(), dtype)?;
    let (mut outputs, mut of_weight) = (Vec::new(), weight.zeros_like()?);
    for rows in shape.slabs(most) {
        let mut columns = Flowing::nan(&[rows.len(), row], dtype)?;
        shape.forward(emulator, x.pointer(), columns.pointer(), &rows)?;
        let columns = columns.tensor(&[rows.len(), row])?;
        outputs.push(columns.matmul(&weight)?);
        let g = cotangent.narrow(0, rows.start, rows.len())?;
        of_weight = (of_weight + columns.t()?.matmul(&g)?)?;
        let mut of_columns = Flowing::of(&g.matmul(&weight.t()?)?, dtype)?;
        shape.backward(emulator, of_columns.pointer(), dx.pointer(), &rows)?;
    }
    let (out, kernel) = (weight.dim(1)?, shape.kernel);
    let of_weight = of_weight.reshape((kernel, kernel, shape.channels, out))?.permute((3, 2, 0, 1))?;
    let output = Tensor::cat(&outputs, 0)?.reshape(case.cotangent.shape())?;
    Ok(Results { output, gradients: vec![dx.tensor(case.operands[0].dims())?, of_weight.contiguous()?] })
}

fn check(shape: Columns, most: usize, dtype: DType) -> Result<()> {
    let Columns { batch, height, width, channels, kernel, stride, padding, enlarged, .. } = shape;
    let operation = |t: &[Tensor]| {
        let conv = Conv2d { weight: t[1].clone(), bias: None, stride, padding };
        let x = t[0].permute((0, 3, 1, 2))?;
        let y = if enlarged { conv.forward_upsampled(&x)? } else { conv.forward(&x)? };
        y.permute((0, 2, 3, 1))?.contiguous()
    };
    let x = normal("x", &[batch, height, width, channels], dtype)?;
    let weight = normal("weight", &[5, channels, kernel, kernel], dtype)?;
    let case = Case::new(&operation, vec![x, weight], dtype)?;
    // The columns are copies, so only the sums of gradients are rounded.
    case.check(&format!("{shape:?} by {most}"), dtype, None, |emulator| {
        run(emulator, &shape, &case, most, dtype)
    })
}

fn shape([batch, height, width, channels]: [usize; 4], [kernel, stride, padding]: [usize; 3]) -> Columns {
    let numbers = numbers(DType::F32);
    Columns { numbers, batch, height, width, channels, kernel, stride, padding, enlarged: false }
}

/// All at once, by images, by parts of an image, and by single rows.
#[test]
fn convolutions_by_columns_agree_with_f64() -> Result<()> {
    for dtype in [DType::BF16, DType::F32] {
        for most in [usize::MAX, 1200, 300, 1] {
            for shape in [
                shape([3, 4, 5, 8], [3, 1, 1]),
                shape([2, 5, 4, 3], [3, 2, 1]),
                shape([2, 3, 3, 8], [1, 1, 0]),
                // The last pixels have no output, and a stride larger than the kernel leaves gaps.
                shape([1, 7, 6, 4], [2, 3, 0]),
                shape([1, 1, 1, 1], [3, 1, 1]),
                Columns { enlarged: true, ..shape([2, 3, 2, 8], [3, 1, 1]) },
            ] {
                check(Columns { numbers: numbers(dtype), ..shape }, most, dtype)?;
            }
        }
    }
    Ok(())
}

/// No slab is larger than the bound, none spans two images in part, and together they are all rows in order.
#[test]
fn slabs_cover_all_rows_in_order() {
    let shape = shape([3, 5, 4, 2], [3, 1, 1]);
    for most in [1, 18, 50, 18 * 7, 18 * 20, 18 * 45, usize::MAX] {
        let (mut next, pixels) = (0, 20);
        for rows in shape.slabs(most) {
            assert!(rows.start == next && !rows.is_empty());
            assert!(rows.len() == 1 || rows.len() * shape.row() <= most, "{rows:?} by {most}");
            assert!(rows.len().is_multiple_of(pixels) || rows.start / pixels == (rows.end - 1) / pixels);
            next = rows.end;
        }
        assert_eq!(next, 3 * pixels, "by {most}");
    }
}

/// A launch that a card would refuse, or whose sizes would wrap, is an error that says so.
#[test]
fn what_no_kernel_can_take_is_refused() -> Result<()> {
    use crate::nn::cuda::launch::{Launch, Pointer};
    let emulator = Emulator::schedules()[0];
    let text = |launch: Launch| launch.run(&emulator).expect_err("it is refused").to_string();
    let launch = |grid| Launch::new("fold_parts", grid, 256);
    assert!(text(launch([1, 70_000, 1])).contains("a grid of [1, 70000, 1] blocks"));
    assert!(text(launch([1, 1, 1]).sizes([1 << 31])).contains("a size of 2147483648"));
    assert!(text(launch([1, 1, 1]).pointers([Pointer(8)])).contains("0x8, not a multiple of 16"));
    assert!(text(launch([1, 1, 1])).contains("the parameters are `ppii`, the arguments ``"));
    assert!(text(Launch::new("fold", [1, 1, 1], 32)).contains("there is no kernel of this name"));
    launch([0, 1, 1]).run(&emulator)?;
    Ok(())
}
