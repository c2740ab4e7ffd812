//! CMMD: Jayasumana et al. 2024, "Rethinking FID". The squared maximum mean discrepancy of CLIP features of two sets of
//! pictures, with a Gaussian kernel of width 10: the biased estimate, times 1000. Values are CMMD if the scorer is
//! `openai/clip-vit-large-patch14-336`. The authors' tool crops the middle square and scales it with Pillow's bicubic filter
//! (`io_util.py`); its own resizing afterwards changes nothing. That is CLIP's preparation, but for the rounding of a side.
//!
//! The interval is the value and 1.96 jackknife errors over prompts. Resampled prompts would occur twice, and a picture
//! is nearer to itself than to any other: the bootstrap of this estimate is biased.

use std::slice;

use candle_core::{D, DType, Tensor};

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::SetInputs;
use crate::metric::kinds::{Better, Need, OfSet, Prominence};

/// 1 / (2 sigma^2) with sigma 10.
const GAMMA: f64 = 1.0 / 200.0;
/// The factor of the authors, which makes the numbers readable.
const SCALE: f64 = 1000.0;
/// Rows of the kernel matrix that are computed together.
const ROWS: usize = 1024;

/// The row in `METRICS`.
pub(super) struct Cmmd;

impl Metric for Cmmd {
    fn name(&self) -> &'static str {
        "cmmd"
    }

    fn title(&self) -> String {
        "CMMD".to_owned()
    }

    fn summary(&self) -> &'static str {
        "distance of all pictures from the reference in the space of a CLIP (Jayasumana et al. 2024)"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Set(measure)
    }

    fn prominence(&self) -> Prominence {
        Prominence::Comparison
    }

    fn released(&self) -> Option<&'static str> {
        Some(
            "pytorch_model.bin of openai/clip-vit-large-patch14-336 on the hub takes 1.7 GB; examples/convert-weights.py makes the folder of it",
        )
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }
}

fn measure(inputs: &SetInputs<'_>) -> Result<OfSet, MetricError> {
    let prompts = inputs.pictures[0].dim(0)?;
    let set = |seeds: &[Tensor]| Tensor::cat(seeds, 0)?.to_dtype(DType::F64);
    let (x, y) = (set(inputs.pictures)?, set(inputs.reference)?);
    let paired = inputs.paired.then_some(prompts);
    let (xx, xy) = (Sums::new(&x, &x, prompts, Some(prompts))?, Sums::new(&x, &y, prompts, paired)?);
    let yy = Sums::new(&y, &y, paired.unwrap_or(1), paired)?;
    let (n, m) = (x.dim(0)? as f64, y.dim(0)? as f64);
    let distance = |xx: f64, yy: f64, xy: f64, n: f64, m: f64| {
        SCALE * (xx / (n * n) + yy / (m * m) - 2.0 * xy / (n * m))
    };
    let (of_x, of_y) = (n / prompts as f64, if inputs.paired { m / prompts as f64 } else { 0.0 });
    let without = |prompt: usize| {
        let yy = if inputs.paired { yy.without(prompt) } else { yy.total };
        distance(xx.without(prompt), yy, xy.without(prompt), n - of_x, m - of_y)
    };
    let error = (prompts > 2).then(|| jackknife(&(0..prompts).map(without).collect::<Vec<_>>()));
    Ok(OfSet { value: distance(xx.total, yy.total, xy.total, n, m), error })
}

/// The distance of two sets of features of length 1, [n, d] and [m, d].
pub fn cmmd(one: &Tensor, other: &Tensor) -> Result<f64, MetricError> {
    let (pictures, reference) = (slice::from_ref(one), slice::from_ref(other));
    Ok(measure(&SetInputs { pictures, reference, paired: false })?.value)
}

/// The standard error from the values without each prompt (Tukey 1958).
fn jackknife(without: &[f64]) -> f64 {
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    (without.iter().map(|value| (value - mean).powi(2)).sum::<f64>() * (n - 1.0) / n).sqrt()
}

/// The sums of a kernel matrix. Row and column i belong to prompt i modulo the number of prompts.
struct Sums {
    total: f64,
    /// Of the rows of each prompt, and of its columns where they belong to prompts, but the entries of both only once.
    of_prompt: Vec<f64>,
}

impl Sums {
    /// `columns` is the number of prompts of the columns, if they belong to any.
    fn new(x: &Tensor, y: &Tensor, prompts: usize, columns: Option<usize>) -> candle_core::Result<Self> {
        let (n, m) = (x.dim(0)?, y.dim(0)?);
        let mut sums = Self { total: 0.0, of_prompt: vec![0.0; prompts] };
        let squares = |x: &Tensor| x.sqr()?.sum_keepdim(D::Minus1);
        let (across, y_squares) = (y.t()?.contiguous()?, squares(y)?.t()?);
        for start in (0..n).step_by(ROWS) {
            let rows = x.narrow(0, start, ROWS.min(n - start))?;
            let distances =
                (rows.matmul(&across)? * -2.0)?.broadcast_add(&squares(&rows)?)?.broadcast_add(&y_squares)?;
            let kernel = (distances * -GAMMA)?.exp()?;
            let by_row = kernel.sum(1)?.to_vec1::<f64>()?;
            sums.total += by_row.iter().sum::<f64>();
            for (row, sum) in by_row.iter().enumerate() {
                sums.of_prompt[(start + row) % prompts] += sum;
            }
            let Some(columns) = columns else { continue };
            for (column, sum) in kernel.sum(0)?.to_vec1::<f64>()?.iter().enumerate() {
                sums.of_prompt[column % columns] += sum;
            }
            let same = |row: usize| {
                (0..m / columns).map(move |seed| ((start + row) % prompts + seed * columns) as u32)
            };
            let places: Vec<u32> = (0..by_row.len()).flat_map(same).collect();
            let places = Tensor::from_vec(places, (by_row.len(), m / columns), x.device())?;
            for (row, both) in kernel.gather(&places, 1)?.sum(1)?.to_vec1::<f64>()?.iter().enumerate() {
                sums.of_prompt[(start + row) % prompts] -= both;
            }
        }
        Ok(sums)
    }

    /// The total without one prompt.
    fn without(&self, prompt: usize) -> f64 {
        self.total - self.of_prompt[prompt]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// sin(a i + b) for i = 0, 1, ..., scaled to rows of length 1.
    fn features(rows: usize, a: f64, b: f64) -> candle_core::Result<Tensor> {
        let values: Vec<f64> = (0..rows * 8).map(|index| (a * index as f64 + b).sin()).collect();
        let values = Tensor::from_vec(values, (rows, 8), &Device::Cpu)?;
        values.broadcast_div(&values.sqr()?.sum_keepdim(1)?.sqrt()?)
    }

    #[test]
    fn leaving_a_prompt_out_is_the_distance_of_the_others() -> Result<(), MetricError> {
        let seeds =
            |a: f64| [features(5, a, 0.1), features(5, a, 0.9)].into_iter().collect::<Result<Vec<_>, _>>();
        let (x, y) = (seeds(0.7)?, seeds(1.3)?);
        for paired in [true, false] {
            let all = measure(&SetInputs { pictures: &x, reference: &y, paired })?;
            let mut values = Vec::new();
            for prompt in 0..5u32 {
                let others: Vec<u32> = (0..5).filter(|&other| other != prompt).collect();
                let others = Tensor::new(others, &Device::Cpu)?;
                let without = |set: &[Tensor]| {
                    set.iter().map(|seed| seed.index_select(&others, 0)).collect::<Result<Vec<_>, _>>()
                };
                let y = if paired { without(&y)? } else { y.clone() };
                values.push(measure(&SetInputs { pictures: &without(&x)?, reference: &y, paired })?.value);
            }
            let error = all.error.expect("there are five prompts");
            assert!((error / jackknife(&values) - 1.0).abs() < 1e-6, "{error} {values:?}");
        }
        let same = measure(&SetInputs { pictures: &x, reference: &x, paired: true })?;
        assert!(same.value.abs() < 1e-9 && same.error.is_some_and(|error| error < 1e-9));
        Ok(())
    }
}
