//! HPSv2: Wu et al. 2023, "Human Preference Score v2", equation 1 without the temperature: the cosine of picture and
//! prompt, which `score` of the package `hpsv2` returns. Times 100, as in the tables of the paper.
//! The values are HPSv2 only if the scorer has its weights; HPSv2.1 is another checkpoint of the same model.

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::FeatureInputs;
use crate::metric::kinds::{Better, Need, Prominence};

/// The row in `METRICS`.
pub(super) struct HpsV2;

impl Metric for HpsV2 {
    fn name(&self) -> &'static str {
        "hps-v2"
    }

    fn title(&self) -> String {
        "HPSv2".to_owned()
    }

    fn summary(&self) -> &'static str {
        "100 x cosine of picture and prompt; HPSv2 or HPSv2.1 if the scorer has its weights (Wu et al. 2023)"
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn method(&self) -> Method {
        Method::Features(measure)
    }

    fn prominence(&self) -> Prominence {
        Prominence::Card
    }

    fn released(&self) -> Option<&'static str> {
        Some(
            "HPS_v2.1_compressed.pt of xswu/HPSv2 on the hub takes 2 GB; examples/convert-weights.py makes the folder of it",
        )
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer]
    }
}

fn measure(inputs: &FeatureInputs<'_>) -> Result<Vec<f64>, MetricError> {
    Ok(inputs.cosines()?.into_iter().map(|cosine| 100.0 * cosine).collect())
}
