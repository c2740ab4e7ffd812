//! The metrics, one per file.

mod attribute_accuracy;
mod clip_score;
mod cmmd;
mod fd_dinov2;
mod fid;
mod hps_v2;
mod image_reward;
mod latency;
mod macs;
mod output_loss;
mod parameters;
mod peak_memory;
mod pick_score;
mod seed_diversity;
mod trajectory_loss;

pub use cmmd::cmmd;

use super::definition::Metric;
use crate::base::names::{self, UnknownName};

/// Every metric, in the order in which `laptop-diff list` prints them.
pub const METRICS: &[&dyn Metric] = &[
    &clip_score::ClipScore,
    &pick_score::PickScore,
    &hps_v2::HpsV2,
    &image_reward::ImageReward,
    &attribute_accuracy::AttributeAccuracy,
    &cmmd::Cmmd,
    &fd_dinov2::FdDinov2,
    &fid::Fid,
    &seed_diversity::SeedDiversity,
    &output_loss::PREDICTION,
    &output_loss::CLEAN_LATENTS,
    &output_loss::VELOCITY,
    &output_loss::MIN_SNR,
    &trajectory_loss::TrajectoryLoss,
    &parameters::Parameters,
    &macs::Macs,
    &latency::Latency,
    &peak_memory::PeakMemory,
];

/// The metric of this name.
pub fn find(name: &str) -> Result<&'static dyn Metric, UnknownName> {
    names::find("metric", METRICS, |metric| metric.name(), name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for metric in METRICS {
            let found = find(metric.name()).expect("it is in the table");
            assert_eq!(found.summary(), metric.summary());
        }
        assert_eq!(find("kid").map(|_| ()).expect_err("there is no KID").to_string(), "unknown metric `kid`");
    }
}
