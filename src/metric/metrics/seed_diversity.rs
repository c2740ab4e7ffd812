//! Seed diversity: how different the pictures of one prompt are from noise to noise. The mean over pairs of seeds of
//! 1 - cos of the scorer's features, per prompt. A pruned model that draws nearly the same picture from every noise can keep
//! its scores and lose this. The metric is ours; Sadat et al. 2024 ("CADS") use the same distances.

use candle_core::{D, Tensor};

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::cosines;
use crate::metric::kinds::{Better, Need};
use crate::model::ScorerKind;

/// The row in `METRICS`.
pub(super) struct SeedDiversity;

impl Metric for SeedDiversity {
    fn name(&self) -> &'static str {
        "seed-diversity"
    }

    fn summary(&self) -> &'static str {
        "mean of 1 - cosine between the pictures of one prompt over its seeds, in the space of a DINOv2 or CLIP"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn method(&self) -> Method {
        Method::Seeds(measure)
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer, Need::Seeds]
    }

    fn scorers(&self) -> &'static [ScorerKind] {
        &[ScorerKind::DinoV2, ScorerKind::Clip]
    }
}

fn measure(seeds: &[Tensor]) -> Result<Vec<f64>, MetricError> {
    let unit = |features: &Tensor| features.broadcast_div(&features.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?);
    let seeds = seeds.iter().map(unit).collect::<candle_core::Result<Vec<_>>>()?;
    let mut sums = Vec::new();
    let mut pairs = 0.0;
    for (index, one) in seeds.iter().enumerate() {
        for other in &seeds[index + 1..] {
            let cosines = cosines(one, other)?;
            sums.resize(cosines.len(), 0.0);
            sums.iter_mut().zip(cosines).for_each(|(sum, cosine)| *sum += 1.0 - cosine);
            pairs += 1.0;
        }
    }
    Ok(sums.into_iter().map(|sum| sum / pairs).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn it_is_the_mean_over_pairs_of_seeds() -> Result<(), MetricError> {
        let seed = |rows: [[f32; 2]; 2]| Tensor::new(&rows, &Device::Cpu);
        // The first prompt: two right angles and an equal pair. The second: three of one direction.
        let pictures = [
            seed([[2.0, 0.0], [0.6, 0.8]])?,
            seed([[0.0, 1.0], [6.0, 8.0]])?,
            seed([[1.0, 0.0], [0.6, 0.8]])?,
        ];
        let found = measure(&pictures)?;
        assert!((found[0] - 2.0 / 3.0).abs() < 1e-6 && found[1].abs() < 1e-6, "{found:?}");
        Ok(())
    }
}
