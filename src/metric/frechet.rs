//! The Frechet distance of two sets of features, each as a normal distribution: Dowson and Landau 1982, used by FID (Heusel et
//! al. 2017). |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).
//!
//! The trace of the root is the sum of the roots of the eigenvalues of C1 C2. With more pictures than features they are
//! those of the symmetric L' C2 L for C1 = L L'; with fewer, those of the much smaller G G' for G = X Y', the products of
//! the centred features.

use candle_core::{DType, Result, Tensor};
use nalgebra::DMatrix;

use super::error::MetricError;
use super::inputs::SetInputs;
use super::kinds::OfSet;

/// The distance of a model's pictures from the reference.
pub(super) fn measure(inputs: &SetInputs<'_>) -> std::result::Result<OfSet, MetricError> {
    let value = frechet(&Tensor::cat(inputs.pictures, 0)?, &Tensor::cat(inputs.reference, 0)?)?;
    // Of equal sets, rounding can leave less than nothing.
    Ok(OfSet { value: value.max(0.0), error: None })
}

/// The distance of features [n, d] and [m, d], in f64.
pub fn frechet(one: &Tensor, other: &Tensor) -> Result<f64> {
    let (one, other) = (Centred::new(one)?, Centred::new(other)?);
    let apart = (&one.mean - &other.mean)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
    let root = match one.count.min(other.count) > one.width {
        true => root_of_covariances(&one, &other)?,
        false => root_of_products(&one, &other)?,
    };
    Ok(apart + one.variance()? + other.variance()? - 2.0 * root)
}

/// Features about their mean, divided by the root of n - 1: X' X is their covariance.
struct Centred {
    mean: Tensor,
    rows: Tensor,
    count: usize,
    width: usize,
}

impl Centred {
    fn new(features: &Tensor) -> Result<Self> {
        let features = features.to_dtype(DType::F64)?;
        let (count, width) = features.dims2()?;
        let mean = features.mean_keepdim(0)?;
        let scale = 1.0 / (count.max(2) as f64 - 1.0).sqrt();
        let rows = (features.broadcast_sub(&mean)? * scale)?;
        Ok(Self { mean, rows, count, width })
    }

    fn covariance(&self) -> Result<Tensor> {
        self.rows.t()?.matmul(&self.rows)
    }

    /// The trace of the covariance.
    fn variance(&self) -> Result<f64> {
        self.rows.sqr()?.sum_all()?.to_scalar()
    }
}

fn root_of_products(one: &Centred, other: &Centred) -> Result<f64> {
    let (few, many) = if one.count <= other.count { (one, other) } else { (other, one) };
    let products = few.rows.matmul(&many.rows.t()?.contiguous()?)?;
    sum_of_roots(&products.matmul(&products.t()?.contiguous()?)?)
}

fn root_of_covariances(one: &Centred, other: &Centred) -> Result<f64> {
    let lower = cholesky(&one.covariance()?)?;
    let inner = lower.t()?.contiguous()?.matmul(&other.covariance()?)?.matmul(&lower)?;
    sum_of_roots(&inner)
}

/// The sum of the roots of the eigenvalues of a symmetric matrix that has none below 0 but by rounding.
fn sum_of_roots(matrix: &Tensor) -> Result<f64> {
    let size = matrix.dim(0)?;
    let values = DMatrix::from_vec(size, size, matrix.flatten_all()?.to_vec1::<f64>()?);
    Ok(values.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum())
}

/// The lower triangle L with L L' = the matrix. A pivot that is 0 but for rounding has a column of zeros: the features do not
/// vary in that direction.
fn cholesky(matrix: &Tensor) -> Result<Tensor> {
    let mut rows = matrix.to_vec2::<f64>()?;
    let size = rows.len();
    let largest = (0..size).map(|index| rows[index][index]).fold(0.0, f64::max);
    let least = largest * size as f64 * f64::EPSILON;
    for pivot in 0..size {
        let (above, below) = rows.split_at_mut(pivot + 1);
        let own = &mut above[pivot];
        let squares: f64 = own[..pivot].iter().map(|value| value * value).sum();
        let rest = own[pivot] - squares;
        own[pivot] = if rest > least { rest.sqrt() } else { 0.0 };
        own[pivot + 1..].fill(0.0);
        for row in below {
            let product: f64 = row[..pivot].iter().zip(&own[..pivot]).map(|(one, other)| one * other).sum();
            row[pivot] = if own[pivot] > 0.0 { (row[pivot] - product) / own[pivot] } else { 0.0 };
        }
    }
    Tensor::new(rows, matrix.device())
}
