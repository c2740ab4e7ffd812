//! Latency of one forward pass of the U-Net on one sample, on this machine in its present state.
//! The time of a streamed U-Net includes reading the weights: 1.15 times the time of one held in memory, at 32x32 latents
//! (SD v1.5, SDXL).

use std::time::{Duration, Instant};

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{InMemory, NetworkInputs};
use crate::metric::kinds::{Better, Statistic};
use crate::profile::WARM_UP;

/// The smallest and the largest number of timed passes.
const REPETITIONS: (usize, usize) = (3, 20);
/// After this time no further pass begins, once the smallest number is reached.
const ENOUGH: Duration = Duration::from_secs(5);

/// The row in `METRICS`.
pub(super) struct Latency;

impl Metric for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn summary(&self) -> &'static str {
        "seconds for one forward pass of the U-Net on one sample, median after warm-up"
    }

    fn unit(&self) -> &'static str {
        "s"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Network(measure)
    }

    fn statistic(&self) -> Statistic {
        Statistic::Median
    }

    fn reproducible(&self) -> bool {
        false
    }
}

fn measure(inputs: &NetworkInputs<'_>, InMemory { unet, .. }: &InMemory) -> Result<Vec<f64>, MetricError> {
    let (sample, timestep, conditioning) = inputs.probe()?;
    let device = sample.device().clone();
    let pass = || -> candle_core::Result<f64> {
        let start = Instant::now();
        unet.forward(&sample, &timestep, &conditioning)?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    for _ in 0..WARM_UP {
        pass()?;
    }
    let (at_least, at_most) = REPETITIONS;
    let start = Instant::now();
    let mut seconds = Vec::with_capacity(at_most);
    while seconds.len() < at_least || (seconds.len() < at_most && start.elapsed() < ENOUGH) {
        seconds.push(pass()?);
    }
    Ok(seconds)
}
