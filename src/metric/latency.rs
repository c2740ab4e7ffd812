//! Latency of one forward pass of the U-Net on one sample, on this machine as it is just now.
//! A U-Net that is streamed reads its weights in that time: 1.15 times as long as held at 32x32 latents (SD v1.5, SDXL).

use std::time::{Duration, Instant};

use super::{Better, Exam, Metric, MetricError, Need, Statistic, Subject};

/// Passes that are not counted: the first ones fill caches and compile kernels.
const WARM_UP: usize = 2;
/// Passes that are counted at most, and at least however long they take.
const REPETITIONS: (usize, usize) = (3, 20);
/// After this long no further pass begins.
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

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn statistic(&self) -> Statistic {
        Statistic::Median
    }

    fn reproducible(&self) -> bool {
        false
    }

    fn measure(&self, exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError> {
        let (sample, timestep, conditioning) = exam.probe()?;
        let device = sample.device().clone();
        let pass = || -> candle_core::Result<f64> {
            let start = Instant::now();
            subject.unet.forward(&sample, &timestep, &conditioning)?;
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
}
