//! Memory that one forward pass of the U-Net on one sample needs: its weights, and by how much the process grows.
//!
//! The kernel's high-water mark is set back before the pass (Linux, `clear_refs`); memory that the allocator holds
//! but does not use is given back first, else the pass would fill it unseen.

use super::{Better, Exam, Metric, MetricError, Need, Subject};
use crate::backend::memory;

/// The row in `METRICS`.
pub(super) struct PeakMemory;

impl Metric for PeakMemory {
    fn name(&self) -> &'static str {
        "peak-memory"
    }

    fn summary(&self) -> &'static str {
        "bytes of the U-Net's weights plus what one forward pass on one sample adds at its peak (CPU on Linux)"
    }

    fn unit(&self) -> &'static str {
        "B"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn reproducible(&self) -> bool {
        false
    }

    fn measure(&self, exam: &Exam<'_>, subject: &Subject<'_>) -> Result<Vec<f64>, MetricError> {
        let unavailable = |reason| MetricError::Unavailable { metric: self.name(), reason };
        let (sample, timestep, conditioning) = exam.probe()?;
        if !sample.device().is_cpu() {
            return Err(unavailable(
                "it looks at the process's own memory, and the model runs on another device",
            ));
        }
        // The first pass touches what is touched once, such as mapped weights and threads' stacks.
        subject.unet.forward(&sample, &timestep, &conditioning)?;
        memory::give_back();
        std::fs::write("/proc/self/clear_refs", "5")
            .map_err(|_| unavailable("the system does not let the high-water mark be set back"))?;
        let unread = || unavailable("the system does not tell how much memory a process uses");
        let before = memory::resident_bytes().ok_or_else(unread)?;
        subject.unet.forward(&sample, &timestep, &conditioning)?;
        let peak = memory::peak_bytes().ok_or_else(unread)?;
        let weights = subject.unet.parameters() * subject.unet.dtype().size_in_bytes() as u64;
        Ok(vec![(weights + peak.saturating_sub(before)) as f64])
    }
}
