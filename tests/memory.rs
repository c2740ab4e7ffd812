//! Memory limits how many variants walk at once, without changing a bit of the results.

mod small_unets;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use laptop_diff::backend::memory;
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::score::{Limits, ScoringContext, traverse};

/// A single test, because the memory budget belongs to the process.
#[test]
fn a_smaller_memory_changes_no_bit() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    let mut found = Vec::new();
    for bytes in [None, Some(1)] {
        bytes.into_iter().for_each(memory::allow);
        for (name, config) in small_unets::configs() {
            let config = UNetConfig::parse(&config.to_string())?;
            let tensors = small_unets::weights(&config, 1).expect("weights");
            let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
            let unet = UNet::new(config, vb).expect("the weights fit");
            let points = small_unets::points(unet.config(), 3, 2).expect("points");
            let folder = tempfile::tempdir().expect("a folder");
            let limits = Limits { points: 2, variants: 64 };
            let context = ScoringContext {
                limits,
                checkpoint: folder.path(),
                progress: &Silent,
                interrupt: &interrupt,
            };
            found.push((name, traverse(&unet, &points, None, &context)?));
        }
    }
    let (ample, little) = found.split_at(small_unets::configs().len());
    assert_eq!(ample, little);
    Ok(())
}
