//! Images between layers, in the order that the device's layers want: [batch, channels, height, width] on a CPU, and
//! [batch, height, width, channels] on a GPU.
//!
//! With their channels last, the pixels of an image are the tokens of a transformer, a 1x1 convolution is a linear layer, and
//! a product with columns has the order of the output. Networks call [`begin`] on what they are given and [`end`] on what they
//! return; in between, only this module knows where the channels are.

use candle_core::{Device, Result, Tensor};

use super::cpu::concatenate::Concatenate;
use super::cpu::sum::Shift;
use super::cpu::transpose::Transpose;
use super::route::{self, Layer, Route};
use super::{cuda, operation};

/// Whether images on this device have their channels last.
fn channels_last(device: &Device) -> bool {
    cuda::has_kernels(device)
}

/// An image of a tensor [b, c, h, w].
pub fn begin(x: &Tensor) -> Result<Tensor> {
    if channels_last(x.device()) { x.permute((0, 2, 3, 1))?.contiguous() } else { Ok(x.clone()) }
}

/// The tensor [b, c, h, w] of an image.
pub fn end(x: &Tensor) -> Result<Tensor> {
    if channels_last(x.device()) { x.permute((0, 3, 1, 2))?.contiguous() } else { Ok(x.clone()) }
}

/// Batch, channels, height and width.
pub fn size(x: &Tensor) -> Result<(usize, usize, usize, usize)> {
    match x.dims4()? {
        (b, h, w, c) if channels_last(x.device()) => Ok((b, c, h, w)),
        size => Ok(size),
    }
}

/// The dimensions of height and width.
fn sides(x: &Tensor) -> [usize; 2] {
    if channels_last(x.device()) { [1, 2] } else { [2, 3] }
}

/// The dimension of an image's channels, given any of its tensors.
pub(super) fn channel(x: &Tensor) -> usize {
    if channels_last(x.device()) { x.rank() - 1 } else { 1 }
}

/// The pixels as tokens, [b, h*w, c].
pub fn tokens(x: &Tensor) -> Result<Tensor> {
    if channels_last(x.device()) {
        let (b, h, w, c) = x.dims4()?;
        return operation::reshape(x, (b, h * w, c));
    }
    let (b, c, h, w) = x.dims4()?;
    match route::of(Layer::Pointwise, &[x], &[]) {
        Route::Cpu => operation::apply(Transpose { rows: c, columns: h * w, to: (b, h * w, c).into() }, [x]),
        _ => x.flatten_from(2)?.transpose(1, 2)?.contiguous(),
    }
}

/// Tokens [b, h*w, c] as an image with the shape of another.
pub fn pixels(tokens: &Tensor, like: &Tensor) -> Result<Tensor> {
    if channels_last(tokens.device()) {
        return operation::reshape(tokens, like.shape());
    }
    let (_, rows, columns) = tokens.dims3()?;
    match route::of(Layer::Pointwise, &[tokens], &[]) {
        Route::Cpu => operation::apply(Transpose { rows, columns, to: like.shape().clone() }, [tokens]),
        _ => tokens.transpose(1, 2)?.contiguous()?.reshape(like.shape()),
    }
}

/// Two images of the same size with their channels one after the other.
pub fn concatenate(images: [&Tensor; 2]) -> Result<Tensor> {
    match route::of(Layer::Rows, &images, &[]) {
        Route::Cpu => operation::apply(Concatenate, images),
        Route::Cuda => operation::apply(cuda::Concatenate, images),
        Route::Composed => Tensor::cat(&images, channel(images[0])),
    }
}

/// An image with numbers [b, c] added to each of its pixels.
pub(super) fn shift(x: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    match route::of(Layer::Pointwise, &[x, numbers], &[]) {
        Route::Cpu => operation::apply(Shift, [x, numbers]),
        _ => {
            let [height, width] = sides(numbers);
            x.broadcast_add(&numbers.unsqueeze(height)?.unsqueeze(width)?)
        }
    }
}

/// The first rows and columns of an image.
pub fn crop(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let [rows, columns] = sides(x);
    x.narrow(rows, 0, height)?.narrow(columns, 0, width)?.contiguous()
}

/// The image with a row and a column of zeros at its end.
pub fn pad_end(x: &Tensor) -> Result<Tensor> {
    let [rows, columns] = sides(x);
    x.pad_with_zeros(rows, 0, 1)?.pad_with_zeros(columns, 0, 1)
}

/// Each pixel repeated twice in both directions.
pub(super) fn enlarge(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = size(x)?;
    if channels_last(x.device()) {
        x.reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?.reshape((b, 2 * h, 2 * w, c))
    } else {
        x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?.reshape((b, c, 2 * h, 2 * w))
    }
}
