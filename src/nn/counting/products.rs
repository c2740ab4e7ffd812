//! Linear layers and convolutions, counted.

use std::sync::Arc;

use candle_core::{DType, Result, Shape};

use super::composed;
use super::graph::{Done, Pass, Value};
use super::layers::Parameters;
use crate::nn::cuda::{self, Array, Machine};

impl Pass {
    /// `residual + x W^T + b`
    pub fn linear(&mut self, x: &Value, p: &Parameters, residual: Option<&Value>) -> Result<Value> {
        let (weight, rows, composes) = (p.weight.clone(), x.array.rows(), self.composes());
        let sizes = [rows, weight.shape.dims()[0], x.array.width()];
        self.done.counter.enter("linear");
        let others = residual.map_or(0, |_| rows * sizes[1]);
        self.done.least(2 * (sizes[0] * sizes[2] + sizes[0] * sizes[1] + sizes[1] * sizes[2] + others));
        let y = if composes {
            self.charge(composed::linear(sizes, p.bias.is_some()));
            let mut dims = x.array.shape.dims().to_vec();
            *dims.last_mut().unwrap_or(&mut 0) = sizes[1];
            self.done.counter.allocate(Shape::from(dims), DType::BF16)?
        } else {
            let residual = residual.map(|value| &*value.array);
            cuda::project(&self.done.counter, [&x.array, &weight], p.bias.as_deref(), residual)?
        };
        let (input, trained, bias) = (x.array.clone(), p.trained, p.bias.clone());
        let operands: Vec<&Value> = match residual {
            Some(residual) if !composes => vec![x, residual],
            _ => vec![x],
        };
        let y = self.node(&operands, trained, y, move |done, g, wanted| {
            let mut shares = Vec::new();
            if composes {
                done.charge(composed::linear_backward(sizes, wanted[0], trained, bias.is_some()));
            }
            shares.push(match wanted[0] {
                false => None,
                true if composes => Some(done.like(&input)?),
                true => Some(cuda::input_gradient(&done.counter, [g, &weight], &input.shape)?),
            });
            if wanted[0] {
                done.least(2 * (sizes[0] * sizes[1] + sizes[1] * sizes[2] + sizes[0] * sizes[2]));
            }
            if trained {
                done.least(2 * (sizes[0] * sizes[1] + sizes[0] * sizes[2]) + 4 * sizes[1] * sizes[2]);
                let made = match composes {
                    true => done.counter.allocate(weight.shape.clone(), DType::F32)?,
                    false => cuda::weight_gradient(&done.counter, [g, &input])?,
                };
                done.gradients.push(made);
                done.bias_gradient(g, bias.as_ref().map(|bias| bias.shape.clone()), composes)?;
            }
            if wanted.len() > 1 {
                // The gradient itself is the share of the residual.
                shares.push(wanted[1].then(|| done.like(g)).transpose()?);
            }
            Ok(shares)
        });
        match residual {
            Some(residual) if composes => self.add(residual, &y),
            _ => Ok(y),
        }
    }

    /// `residual + geglu(x) W^T + b`. With kernels in one operation, which computes the gated GELU again in backward.
    pub fn gated_linear(&mut self, x: &Value, p: &Parameters, residual: &Value) -> Result<Value> {
        if self.composes() {
            let gated = self.geglu(x)?;
            return self.linear(&gated, p, Some(residual));
        }
        let (weight, input, trained) = (p.weight.clone(), x.array.clone(), p.trained);
        let (rows, out, half) = (input.rows(), weight.shape.dims()[0], input.width() / 2);
        let products = 2 * (rows * half + rows * out + out * half);
        self.done.counter.enter("linear");
        self.done.least(products + 2 * rows * (3 * half + out));
        let gated = cuda::gate(&self.done.counter, &input)?;
        let residuals = Some(&*residual.array);
        let y = cuda::project(&self.done.counter, [&gated, &weight], p.bias.as_deref(), residuals)?;
        drop(gated);
        let bias = p.bias.as_ref().map(|bias| bias.shape.clone());
        Ok(self.node(&[x, residual], trained, y, move |done, g, wanted| {
            if trained {
                done.least(products + 2 * out * half);
                let gated = cuda::gate(&done.counter, &input)?;
                let made = cuda::weight_gradient(&done.counter, [g, &gated])?;
                done.gradients.push(made);
                done.bias_gradient(g, bias, false)?;
            }
            done.least(products + 2 * 5 * rows * half);
            let of_x = wanted[0].then(|| cuda::gated_gradient(&done.counter, [g, &weight], &input));
            Ok(vec![of_x.transpose()?, wanted[1].then(|| done.like(g)).transpose()?])
        }))
    }

    /// A convolution of an image [b, h, w, c]; with `shifted`, each sample has a bias of its own.
    pub fn conv(
        &mut self,
        x: &Value,
        p: &Parameters,
        stride: usize,
        enlarged: bool,
        shifted: Option<&Value>,
    ) -> Result<Value> {
        let (weight, composes) = (p.weight.clone(), self.composes());
        let kernel = weight.shape.dims()[2];
        self.done.counter.enter(if kernel == 1 { "convolution 1x1" } else { "convolution 3x3" });
        let op = cuda::Conv2d::new(stride, kernel / 2, enlarged);
        let conv = cuda::Convolution::new(&x.array, &weight.shape, &op)?;
        let (input, trained) = (x.array.clone(), p.trained);
        let batch = input.shape.dims()[0];
        // bias + shift, small.
        let bias = match shifted {
            Some(shift) => {
                self.done.counter.charge(2, 0);
                Some(Arc::new(self.done.counter.allocate(shift.array.shape.clone(), DType::F32)?))
            }
            None => p.bias.clone(),
        };
        let [height, width] = conv.columns.output();
        let pixels = batch * height * width;
        let out = Shape::from((batch, height, width, conv.out));
        let of_weight = weight.shape.elem_count();
        let moved = 2 * (input.shape.elem_count() + out.elem_count() + of_weight);
        self.done.least(moved);
        let cost = composed::Convolution { pixels, row: conv.columns.row(), out: conv.out, of_weight };
        let y = if composes {
            self.charge(cost.forward());
            self.done.counter.allocate(out, DType::BF16)?
        } else {
            let matrix = conv.matrix(&self.done.counter, &weight)?;
            conv.forward(&self.done.counter, [&input, &matrix], bias.as_deref())?
        };
        let mut operands = vec![x];
        operands.extend(shifted);
        let back = ConvolutionBackward { conv, cost, input, weight, bias, trained, composes, moved };
        Ok(self.node(&operands, trained, y, move |done, g, wanted| back.run(done, g, wanted)))
    }
}

/// What the backward pass of a convolution needs.
struct ConvolutionBackward {
    conv: cuda::Convolution,
    cost: composed::Convolution,
    input: Arc<Array>,
    weight: Arc<Array>,
    bias: Option<Arc<Array>>,
    trained: bool,
    composes: bool,
    /// Bytes of the operands and the result.
    moved: usize,
}

impl ConvolutionBackward {
    /// The gradients of the image and of the shift.
    fn run(self, done: &mut Done, g: &Array, wanted: &[bool]) -> Result<Vec<Option<Array>>> {
        let Self { conv, cost, input, weight, bias, trained, composes, moved } = self;
        if composes {
            done.charge(cost.backward(wanted[0], trained));
        }
        let of_x = match wanted[0] {
            false => None,
            true if composes => Some(done.like(&input)?),
            true => {
                let matrix = conv.matrix(&done.counter, &weight)?;
                Some(conv.input_gradient(&done.counter, [g, &matrix], &input.shape)?)
            }
        };
        if wanted[0] {
            done.least(moved);
        }
        if trained {
            done.least(moved + 2 * weight.shape.elem_count());
            let made = match composes {
                true => done.counter.allocate(weight.shape.clone(), DType::F32)?,
                false => conv.weight_gradient(&done.counter, [g, &input])?,
            };
            done.gradients.push(made);
            done.bias_gradient(g, bias.as_ref().map(|bias| bias.shape.clone()), composes)?;
        }
        let mut shares = vec![of_x];
        if wanted.len() > 1 {
            // Of the shift: candle's graph of the sum, small.
            done.counter.charge(12, 0);
            let shift = Shape::from((input.shape.dims()[0], conv.out));
            shares.push(wanted[1].then(|| done.counter.allocate(shift, DType::BF16)).transpose()?);
        }
        Ok(shares)
    }
}
