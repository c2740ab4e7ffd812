//! Nearest-neighbour upsampling by two. candle's own version overwrites the gradient of an input that is used elsewhere
//! too, as in every skip connection.

use candle_core::{Result, Tensor};

use super::cpu;

/// Repeats each pixel twice in both directions: [batch, channels, h, w] -> [batch, channels, 2h, 2w].
pub fn upsample_nearest_2x(x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    if cpu::serves(&[x]) {
        return x.contiguous()?.apply_op1(cpu::upsample::Upsample2x);
    }
    x.reshape((batch, channels, height, 1, width, 1))?
        .broadcast_as((batch, channels, height, 2, width, 2))?
        .reshape((batch, channels, 2 * height, 2 * width))
}
