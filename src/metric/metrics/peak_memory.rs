//! Peak memory of one forward pass of the U-Net on one sample: its weights, and the growth of the process or of the GPU's
//! memory pool.
//!
//! On a GPU the driver's memory pool has a high-water mark of what is in tensors, which is reset before the pass.
//!
//! On a CPU the kernel's high-water mark is reset before the pass (Linux, `clear_refs`). Unused memory that the allocator holds is
//! returned to the system first; otherwise the pass could use it without being noticed.

use crate::backend::memory;
use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{InMemory, NetworkInputs};
use crate::metric::kinds::Better;

const NAME: &str = "peak-memory";

/// The row in `METRICS`.
pub(super) struct PeakMemory;

/// Why a GPU has no such number.
const SILENT: &str = "the driver does not report its memory pool";

impl Metric for PeakMemory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "bytes of the U-Net's weights plus the peak growth during one forward pass on one sample (a GPU, or a CPU on Linux)"
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

fn measure(inputs: &NetworkInputs<'_>, InMemory { unet, .. }: &InMemory) -> Result<Vec<f64>, MetricError> {
    let unavailable = |reason| MetricError::Unavailable { metric: NAME, reason };
    let (sample, timestep, conditioning) = inputs.probe()?;
    let weights = unet.parameters() * unet.dtype().size_in_bytes() as u64;
    if let Some(before) = memory::used_on_card(sample.device()) {
        let pass = || unet.forward(&sample, &timestep, &conditioning).map(drop);
        pass()?;
        let before = before.map_err(|_| unavailable(SILENT))?;
        let peak = memory::peak_on_card(sample.device(), pass)?.map_err(|_| unavailable(SILENT))?;
        return Ok(vec![(weights + peak.saturating_sub(before)) as f64]);
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
    Ok(vec![(weights + peak.saturating_sub(before)) as f64])
}
