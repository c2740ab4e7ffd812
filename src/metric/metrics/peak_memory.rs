//! Peak memory of one forward pass of the U-Net on one sample: its weights, and the growth of the process.
//!
//! The kernel's high-water mark is reset before the pass (Linux, `clear_refs`). Unused memory that the allocator holds is
//! returned to the system first; otherwise the pass could use it without being noticed.

use crate::backend::memory;
use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::NetworkInputs;
use crate::metric::kinds::Better;
use crate::model::unet::UNet;

const NAME: &str = "peak-memory";

/// The row in `METRICS`.
pub(super) struct PeakMemory;

impl Metric for PeakMemory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "bytes of the U-Net's weights plus the peak growth during one forward pass on one sample (CPU on Linux)"
    }

    fn unit(&self) -> &'static str {
        "B"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn method(&self) -> Method {
        Method::Network(measure)
    }

    fn reproducible(&self) -> bool {
        false
    }
}

fn measure(inputs: &NetworkInputs<'_>, unet: &UNet) -> Result<Vec<f64>, MetricError> {
    let unavailable = |reason| MetricError::Unavailable { metric: NAME, reason };
    let (sample, timestep, conditioning) = inputs.probe()?;
    if !sample.device().is_cpu() {
        return Err(unavailable(
            "it measures the memory of the process, but the model runs on another device",
        ));
    }
    // The first pass touches memory that is mapped only once, such as weights and the stacks of threads.
    unet.forward(&sample, &timestep, &conditioning)?;
    memory::give_back();
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|_| unavailable("the system does not allow resetting the high-water mark"))?;
    let unread = || unavailable("the system does not report the memory of a process");
    let before = memory::resident_bytes().ok_or_else(unread)?;
    unet.forward(&sample, &timestep, &conditioning)?;
    let peak = memory::peak_bytes().ok_or_else(unread)?;
    let weights = unet.parameters() * unet.dtype().size_in_bytes() as u64;
    Ok(vec![(weights + peak.saturating_sub(before)) as f64])
}
