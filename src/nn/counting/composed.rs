//! What a layer composed of candle's operations costs, read off `nn/composed` and candle's source: each operation is a launch, and
//! so is each copy and each fill. Bytes are those of the operands and results of each operation, in f32 where it computes in f32.

use crate::nn::cuda::Array;

/// Launches and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) launches: u64,
    pub(super) bytes: u64,
}

/// So many launches, and bytes.
fn cost(launches: usize, bytes: usize) -> Cost {
    Cost { launches: launches as u64, bytes: bytes as u64 }
}

/// A launch that reads and writes f32 moves 8 bytes an element.
const WIDE: usize = 8;

/// x [m, k] times the weight [n, k]: its conversion, the product, the bias (zeros where there is none).
pub(super) fn linear([m, n, k]: [usize; 3], bias: bool) -> Cost {
    let product = 2 * (m * k + n * k + m * n);
    cost(3 + usize::from(!bias), 6 * n * k + product + 4 * m * n)
}

/// The weight converted again and a product; a product and its conversion to f32.
pub(super) fn linear_backward([m, n, k]: [usize; 3], of_x: bool, of_weight: bool, _: bool) -> Cost {
    let product = 2 * (m * k + n * k + m * n);
    let x = if of_x { [2, 6 * n * k + product] } else { [0, 0] };
    let weight = if of_weight { [2, product + 6 * n * k] } else { [0, 0] };
    cost(x[0] + weight[0], x[1] + weight[1])
}

/// A convolution with so many pixels of output, elements in a row of its columns, and output channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution {
    pub(super) pixels: usize,
    pub(super) row: usize,
    pub(super) out: usize,
    pub(super) of_weight: usize,
}

impl Convolution {
    fn product(self) -> usize {
        2 * (2 * self.pixels * self.row + self.of_weight + self.pixels * self.out)
    }

    /// The weight converted, columns, the product, its transpose, the bias.
    pub(super) fn forward(self) -> Cost {
        cost(5, 6 * self.of_weight + self.product() + 8 * self.pixels * self.out)
    }

    /// dX: four paddings of two copies and a fill, the kernel turned twice by a selection, and a convolution. dW: two transposes, a
    /// convolution, a transpose and a conversion.
    pub(super) fn backward(self, of_x: bool, of_weight: bool) -> Cost {
        let (g, product) = (4 * self.pixels * self.out, self.product());
        let x = if of_x { [12 + 6 + 4, 4 * g + 10 * self.of_weight + product] } else { [0, 0] };
        let weight = if of_weight { [7, 2 * g + product + 10 * self.of_weight] } else { [0, 0] };
        cost(x[0] + weight[0], x[1] + weight[1])
    }
}

/// Conversions, mean, deviations, variance, scale, weight, bias, and SiLU.
pub(super) fn norm(elements: usize, silu: bool) -> Cost {
    let passes = 8 + usize::from(silu);
    cost(16 + usize::from(silu), passes * WIDE * elements)
}

/// What forward computes, once more; with SiLU twelve operations; and those of the three gradients.
pub(super) fn norm_backward(elements: usize, silu: bool) -> Cost {
    let (launches, passes) = if silu { (38, 32) } else { (26, 20) };
    cost(launches, passes * WIDE * elements)
}

/// Attention with so many elements of scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    scores: usize,
    operands: usize,
    slices: usize,
}

impl Attention {
    pub(super) fn new(q: &Array, k: &Array, heads: usize) -> Self {
        let batch = q.shape.dims().first().copied().unwrap_or(1);
        let [n, m] = [q, k].map(|operand| operand.rows() / batch.max(1));
        let scores = batch * heads * n * m;
        let operands = 2 * (q.shape.elem_count() + k.shape.elem_count());
        Self { scores, operands, slices: scores.div_ceil(1 << 28).max(1) }
    }

    /// Heads are split and joined by copies. Each slice of scores passes through memory eleven times.
    pub(super) fn forward(self) -> Cost {
        cost(5 + 11 * self.slices, 4 * self.operands + (2 + 6 + 4 + 4 * 8 + 6 + 2) * self.scores)
    }

    /// The weights again, and the products and sums of the three gradients.
    pub(super) fn backward(self) -> Cost {
        cost(10 + 31 * self.slices, 12 * self.operands + (48 + 60) * self.scores)
    }
}

/// Halves copied and widened, GELU, product.
pub(super) fn geglu(half: usize) -> Cost {
    cost(7, (2 * (4 + 6) + 8 + 12 + 6) * half)
}

/// The same, its derivative, and the halves joined.
pub(super) fn geglu_backward(half: usize) -> Cost {
    cost(22, (20 + 17 * 10 + 24) * half)
}

/// Both widened, difference, square, mean; and three operations backward.
pub(super) fn difference(elements: usize) -> Cost {
    cost(8, (12 + 12 + 8 + 4 + 3 * 8) * elements)
}

/// For each tensor: square and sum for the norm, seventeen operations of AdamW, four of the average.
pub(super) fn update(tensors: usize, elements: usize) -> Cost {
    cost((3 + 17 + 4) * tensors, (12 + 250) * elements)
}
