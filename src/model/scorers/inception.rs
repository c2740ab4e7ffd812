//! Inception v3 as FID uses it: Heusel et al. 2017, with TensorFlow's weights of 2015 under torchvision's names (pytorch-fid's
//! `pt_inception-2015-12-05`). TensorFlow's graph differs from torchvision's: average pools do not count padding, and the pool
//! of the last block takes the maximum. The normalisations are folded into the convolutions. Numbers of channels are those
//! of the weights.

use ::image::RgbImage;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::resample::{Kernel, interpolate};
use crate::model::files::Weights;
use crate::nn::{Conv2d, image, pointwise};

/// The side of a prepared picture.
const SIDE: usize = 299;
/// Added to the variance by torchvision's `BasicConv2d`.
const EPS: f64 = 0.001;

/// A convolution by its name, kernel and stride. Without stride it keeps the size.
type Spec = (&'static str, (usize, usize), usize);

/// A chain of convolutions after a pool, at whose end several convolutions can stand side by side.
struct BranchSpec {
    pool: Pool,
    chain: &'static [Spec],
    fan: &'static [Spec],
}

/// What comes before the convolutions of a branch.
#[derive(Clone, Copy, Debug)]
enum Pool {
    None,
    Average,
    Maximum,
    /// The maximum, at half the size.
    Halving,
}

const fn branch(chain: &'static [Spec]) -> BranchSpec {
    BranchSpec { pool: Pool::None, chain, fan: &[] }
}

const fn pooled(pool: Pool, chain: &'static [Spec]) -> BranchSpec {
    BranchSpec { pool, chain, fan: &[] }
}

const fn fanned(chain: &'static [Spec], fan: &'static [Spec]) -> BranchSpec {
    BranchSpec { pool: Pool::None, chain, fan }
}

const ONE: (usize, usize) = (1, 1);
const THREE: (usize, usize) = (3, 3);
const WIDE: (usize, usize) = (1, 7);
const TALL: (usize, usize) = (7, 1);

const POOLED: &[Spec] = &[("branch_pool", ONE, 1)];

const BLOCK_A: &[BranchSpec] = &[
    branch(&[("branch1x1", ONE, 1)]),
    branch(&[("branch5x5_1", ONE, 1), ("branch5x5_2", (5, 5), 1)]),
    branch(&[("branch3x3dbl_1", ONE, 1), ("branch3x3dbl_2", THREE, 1), ("branch3x3dbl_3", THREE, 1)]),
    pooled(Pool::Average, POOLED),
];
const BLOCK_B: &[BranchSpec] = &[
    branch(&[("branch3x3", THREE, 2)]),
    branch(&[("branch3x3dbl_1", ONE, 1), ("branch3x3dbl_2", THREE, 1), ("branch3x3dbl_3", THREE, 2)]),
    pooled(Pool::Halving, &[]),
];
const BLOCK_C: &[BranchSpec] = &[
    branch(&[("branch1x1", ONE, 1)]),
    branch(&[("branch7x7_1", ONE, 1), ("branch7x7_2", WIDE, 1), ("branch7x7_3", TALL, 1)]),
    branch(&[
        ("branch7x7dbl_1", ONE, 1),
        ("branch7x7dbl_2", TALL, 1),
        ("branch7x7dbl_3", WIDE, 1),
        ("branch7x7dbl_4", TALL, 1),
        ("branch7x7dbl_5", WIDE, 1),
    ]),
    pooled(Pool::Average, POOLED),
];
const BLOCK_D: &[BranchSpec] = &[
    branch(&[("branch3x3_1", ONE, 1), ("branch3x3_2", THREE, 2)]),
    branch(&[
        ("branch7x7x3_1", ONE, 1),
        ("branch7x7x3_2", WIDE, 1),
        ("branch7x7x3_3", TALL, 1),
        ("branch7x7x3_4", THREE, 2),
    ]),
    pooled(Pool::Halving, &[]),
];
const E_1: BranchSpec = branch(&[("branch1x1", ONE, 1)]);
const E_2: BranchSpec =
    fanned(&[("branch3x3_1", ONE, 1)], &[("branch3x3_2a", (1, 3), 1), ("branch3x3_2b", (3, 1), 1)]);
const E_3: BranchSpec = fanned(
    &[("branch3x3dbl_1", ONE, 1), ("branch3x3dbl_2", THREE, 1)],
    &[("branch3x3dbl_3a", (1, 3), 1), ("branch3x3dbl_3b", (3, 1), 1)],
);
const BLOCK_E: &[BranchSpec] = &[E_1, E_2, E_3, pooled(Pool::Average, POOLED)];
/// Takes the maximum where torchvision's takes the average.
const LAST_E: &[BranchSpec] = &[E_1, E_2, E_3, pooled(Pool::Maximum, POOLED)];

const MIXED: [(&str, &[BranchSpec]); 11] = [
    ("Mixed_5b", BLOCK_A),
    ("Mixed_5c", BLOCK_A),
    ("Mixed_5d", BLOCK_A),
    ("Mixed_6a", BLOCK_B),
    ("Mixed_6b", BLOCK_C),
    ("Mixed_6c", BLOCK_C),
    ("Mixed_6d", BLOCK_C),
    ("Mixed_6e", BLOCK_C),
    ("Mixed_7a", BLOCK_D),
    ("Mixed_7b", BLOCK_E),
    ("Mixed_7c", LAST_E),
];

/// Inception v3 up to its last pool.
#[derive(Clone, Debug)]
pub struct Inception {
    stem: [Convolution; 5],
    mixed: Vec<Vec<Branch>>,
}

#[derive(Clone, Debug)]
struct Branch {
    pool: Pool,
    chain: Vec<Convolution>,
    fan: Vec<Convolution>,
}

/// A convolution with its normalisation, and a ReLU.
#[derive(Clone, Debug)]
struct Convolution {
    conv: Conv2d,
    /// Zeros above and below, left and right, if they differ from each other.
    uneven: Option<(usize, usize)>,
}

impl Inception {
    /// `weights` tells the numbers of channels.
    pub(super) fn new(weights: &Weights, vb: &VarBuilder) -> Result<Self> {
        let convolution = |path: &str, &(name, kernel, stride): &Spec, padded: bool| {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            Convolution::new(weights, &path, (kernel, stride, padded), vb)
        };
        let stem = |name, kernel, stride, padded| convolution("", &(name, kernel, stride), padded);
        let all = |path: &str, specs: &[Spec]| {
            specs.iter().map(|spec| convolution(path, spec, spec.2 == 1)).collect::<Result<Vec<_>>>()
        };
        let branches = |path: &str, specs: &[BranchSpec]| {
            let branch = |spec: &BranchSpec| {
                Ok(Branch { pool: spec.pool, chain: all(path, spec.chain)?, fan: all(path, spec.fan)? })
            };
            specs.iter().map(branch).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            stem: [
                stem("Conv2d_1a_3x3", THREE, 2, false)?,
                stem("Conv2d_2a_3x3", THREE, 1, false)?,
                stem("Conv2d_2b_3x3", THREE, 1, true)?,
                stem("Conv2d_3b_1x1", ONE, 1, false)?,
                stem("Conv2d_4a_3x3", THREE, 1, false)?,
            ],
            mixed: MIXED.iter().map(|(name, specs)| branches(name, specs)).collect::<Result<_>>()?,
        })
    }

    /// A picture of any size -> [3, 299, 299] f32 in -1..1 on the CPU, by torch's bilinear kernel as in pytorch-fid.
    pub fn prepare(&self, picture: &RgbImage) -> Result<Tensor> {
        let values: Vec<f32> = picture.as_raw().iter().map(|&value| f32::from(value) / 255.0).collect();
        let size = (picture.height() as usize, picture.width() as usize);
        let scaled = interpolate(&values, size, SIDE, Kernel::Bilinear);
        let scaled = Tensor::from_vec(scaled, (SIDE, SIDE, 3), &Device::Cpu)?.permute((2, 0, 1))?;
        scaled.affine(2.0, -1.0)?.contiguous()
    }

    /// Prepared pictures [n, 3, h, w] -> the means over all places, [n, 2048].
    pub fn features(&self, pictures: &Tensor) -> Result<Tensor> {
        let halved = |x: Tensor| Pool::Halving.apply(&x);
        let [a, b, c, d, e] = &self.stem;
        let x = halved(c.forward(&b.forward(&a.forward(pictures)?)?)?)?;
        let x = halved(e.forward(&d.forward(&x)?)?)?;
        let block = |x: Tensor, branches: &Vec<Branch>| {
            Tensor::cat(&branches.iter().map(|branch| branch.forward(&x)).collect::<Result<Vec<_>>>()?, 1)
        };
        self.mixed.iter().try_fold(x, block)?.mean((2, 3))
    }
}

impl Branch {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.chain.iter().try_fold(self.pool.apply(x)?, |x, convolution| convolution.forward(&x))?;
        if self.fan.is_empty() {
            return Ok(x);
        }
        Tensor::cat(&self.fan.iter().map(|one| one.forward(&x)).collect::<Result<Vec<_>>>()?, 1)
    }
}

impl Pool {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let padded = |x: &Tensor| x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1);
        match self {
            Self::None => Ok(x.clone()),
            Self::Halving => x.max_pool2d_with_stride(3, 2),
            // What comes out of a ReLU is at least the zeros beside it.
            Self::Maximum => padded(x)?.max_pool2d_with_stride(3, 1),
            Self::Average => {
                let (_, _, height, width) = x.dims4()?;
                let inside = padded(&Tensor::ones((1, 1, height, width), x.dtype(), x.device())?)?;
                let average = |x: &Tensor| x.avg_pool2d_with_stride(3, 1);
                average(&padded(x)?)?.broadcast_div(&average(&inside)?)
            }
        }
    }
}

impl Convolution {
    fn new(
        weights: &Weights,
        path: &str,
        (kernel, stride, padded): ((usize, usize), usize, bool),
        vb: &VarBuilder,
    ) -> Result<Self> {
        let (conv, norm) = (vb.pp(path).pp("conv"), vb.pp(path).pp("bn"));
        // A missing tensor is reported when it is requested.
        let shape = weights.shape(&format!("{path}.conv.weight")).unwrap_or_default();
        let (output, input) = match shape[..] {
            [output, input, _, _] => (output, input),
            _ => (1, 1),
        };
        let of_norm = |name| pointwise(&norm, output, name)?.to_dtype(DType::F32);
        let scale = (of_norm("weight")? / (of_norm("running_var")? + EPS)?.sqrt()?)?;
        let weight = conv.get((output, input, kernel.0, kernel.1), "weight")?.to_dtype(DType::F32)?;
        let weight = weight.broadcast_mul(&scale.reshape((output, 1, 1, 1))?)?;
        let bias = (of_norm("bias")? - (of_norm("running_mean")? * scale)?)?;
        let (across, along) = if padded { (kernel.0 / 2, kernel.1 / 2) } else { (0, 0) };
        let padding = if across == along { across } else { 0 };
        let uneven = (across != along).then_some((across, along));
        Ok(Self { conv: Conv2d { weight, bias: Some(bias), stride, padding }, uneven })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some((across, along)) = self.uneven else {
            return image::end(&self.conv.forward(&image::begin(x)?)?)?.relu();
        };
        let Conv2d { weight, bias, stride, padding } = &self.conv;
        let x = x.pad_with_zeros(2, across, across)?.pad_with_zeros(3, along, along)?;
        let y = x.conv2d(weight, *padding, *stride, 1, 1)?;
        match bias {
            Some(bias) => y.broadcast_add(&bias.reshape((1, bias.dim(D::Minus1)?, 1, 1))?)?.relu(),
            None => y.relu(),
        }
    }
}
