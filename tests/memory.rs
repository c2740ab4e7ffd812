//! Memory limits how many variants walk at once, without changing a bit of the results.

mod small_unets;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use laptop_diff::backend::memory;
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::network::TailKind;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::prune::{Reconstructing, Reconstruction, apply};
use laptop_diff::score::{Limits, ScoringContext, traverse};

/// A single test, because the memory budget belongs to the process.
#[test]
fn a_smaller_memory_changes_no_bit() -> miette::Result<()> {
    let interrupt = Interrupt::default();
    let (mut found, mut solved) = (Vec::new(), Vec::new());
    for bytes in [None, Some(1)] {
        bytes.into_iter().for_each(memory::allow);
        for (name, shape) in small_unets::configs() {
            let config = UNetConfig::parse(&shape.to_string())?;
            let tensors = small_unets::weights(&config, 1).expect("weights");
            let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
            let unet = UNet::new(config, vb).expect("the weights fit");
            let points = small_unets::points(unet.config(), 3, 2).expect("points");
            let folder = tempfile::tempdir().expect("a folder");
            let limits = Limits { points: 2, variants: 64 };
            let context = ScoringContext {
                limits,
                weights: None,
                checkpoint: folder.path(),
                progress: &Silent,
                interrupt: &interrupt,
            };
            found.push((name, traverse(&unet, &points, None, &context)?));
            solved.push((name, reconstructed(&shape, &context)?));
        }
    }
    let (ample, little) = found.split_at(small_unets::configs().len());
    assert_eq!(ample, little);
    let (ample, little) = solved.split_at(small_unets::configs().len());
    assert_eq!(ample, little);
    Ok(())
}

/// How the layers of a student fare in a reconstruction. Without memory for the states of all points, each layer walks from
/// the start.
fn reconstructed(config: &serde_json::Value, context: &ScoringContext<'_>) -> miette::Result<Reconstruction> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    small_unets::save(config, 1, &at("teacher"))?;
    let teacher = ModelDirectory::open(&at("teacher"))?;
    let removed = teacher
        .unet_config()?
        .inventory()
        .units()
        .iter()
        .skip(1)
        .step_by(3)
        .map(|unit| unit.id.clone())
        .collect();
    apply(&teacher, &small_unets::selection(&teacher.unet_config()?, removed), &at("student"))?;
    let student = ModelDirectory::open(&at("student"))?;
    let unet = |model: &ModelDirectory| model.unet(DType::F32, &Device::Cpu);
    let work = Reconstructing {
        teacher: &unet(&teacher)?,
        student: &unet(&student)?,
        weights: &student.unet_weights()?,
        points: &small_unets::points(&teacher.unet_config()?, 8, 2).expect("points"),
        held_out: 2,
        batch: 3,
        kinds: &[TailKind::Shortcut, TailKind::Conv2],
        checkpoint: folder.path(),
        progress: context.progress,
        interrupt: context.interrupt,
    };
    Ok(work.run()?.1)
}
