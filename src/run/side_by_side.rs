//! What decides where stages run side by side: the places, the memory, and the workers.

use super::Job;
use super::schedule::Kind;
use super::workers::Workers;
use crate::backend::{DeviceChoice, DeviceClass, memory};

/// The workers, and what decides about what they do.
pub(super) struct SideBySide {
    pub(super) workers: Workers,
    pub(super) places: Vec<DeviceChoice>,
    pub(super) kinds: Vec<Kind>,
    /// The limit that the user set.
    limit: Option<u64>,
    /// Bytes that stages on the CPU may take together.
    pub(super) budget: u64,
    /// Bytes that each stage takes.
    bytes: Vec<u64>,
    /// Whether the workers were asked to stop.
    asked: bool,
}

impl SideBySide {
    /// `None` if a job has one place.
    pub(super) fn of(job: &Job<'_>) -> Option<Self> {
        if job.places.len() < 2 {
            return None;
        }
        let kind = |place: &DeviceChoice| match place.class() {
            DeviceClass::Cpu => Kind::Cpu,
            DeviceClass::Cuda | DeviceClass::CudaTf32 => Kind::Gpu,
        };
        let budget = memory::available(&candle_core::Device::Cpu);
        let needs = job.pipeline.most_needs(job.device.class(), budget);
        let mut bytes = vec![0; job.pipeline.stages.len()];
        for (&index, needs) in job.pipeline.graph.order().iter().zip(needs) {
            bytes[index] = needs.needs.map_or(0, |needs| needs.memory());
        }
        let (workers, limit) = (Workers::new(), memory::limit());
        let (places, kinds) = (job.places.to_vec(), job.places.iter().map(kind).collect());
        Some(Self { workers, places, kinds, limit, budget, bytes, asked: false })
    }

    /// The memory that a stage takes, as far as it is known.
    pub(super) fn bytes(&self, index: usize) -> u64 {
        self.bytes[index]
    }

    /// Asks the workers to stop, once.
    pub(super) fn stop(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            self.workers.stop();
        }
    }

    /// The memory limit of a stage: its share, or what it takes if that is more.
    pub(super) fn share(&self, index: usize) -> Option<u64> {
        self.limit.map(|limit| (limit / self.places.len() as u64).max(self.bytes[index].min(limit)))
    }

    /// The first GPU.
    pub(super) fn gpu(&self) -> Option<usize> {
        self.kinds.iter().position(|kind| *kind == Kind::Gpu)
    }
}
