//! The reconstructed loss against reconstructions of models that lack one unit.

use std::collections::BTreeSet;

use super::model::{CPU, alone};
use crate::small_unets::{self, configs, points, schedule, selection, teacher};
use candle_core::DType;
use laptop_diff::backend::Random;
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::data::Calibration;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::network::{TailKind, Unit, UnitKind};
use laptop_diff::prune::{Reconstructing, apply};

/// The joint loss on the second half of eight points after the removal of one unit, whose shortcut or linear map is solved on
/// the first half.
fn by_reconstruction(teacher: &ModelDirectory, unit: &Unit, points: &Calibration) -> miette::Result<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    let (at, checkpoint) = (folder.path().join("student"), folder.path().join("checkpoint"));
    std::fs::create_dir_all(&checkpoint).expect("a folder");
    apply(teacher, &selection(&teacher.unet_config()?, BTreeSet::from([unit.id.clone()])), &at)?;
    let student = ModelDirectory::open(&at)?;
    let work = Reconstructing {
        teacher: &teacher.unet(DType::F32, &CPU)?,
        student: &student.unet(DType::F32, &CPU)?,
        weights: &student.unet_weights()?,
        points,
        held_out: 4,
        batch: 3,
        kinds: &[TailKind::Shortcut, TailKind::Linear],
        checkpoint: &checkpoint,
        progress: &Silent,
        interrupt: &Interrupt::default(),
    };
    let (_, record) = work.run()?;
    assert_eq!(record.layers.len(), 1, "{record:?}");
    Ok(record.after)
}

#[test]
fn it_is_what_a_reconstruction_without_the_unit_leaves() -> miette::Result<()> {
    for (name, config) in configs().into_iter().take(2) {
        let folder = tempfile::tempdir().expect("a folder");
        small_unets::save(&config, 1, folder.path())?;
        let model = ModelDirectory::open(folder.path())?;
        let (unet, weights) = (model.unet(DType::F32, &CPU)?, model.unet_weights()?);
        let points = points(unet.config(), 8, 3).expect("points");
        let (schedule, random) = (schedule("epsilon"), Random::new(1, "scores"));
        let scored = teacher(&unet, &weights, &points, &schedule, &random);
        let [plain, repaired] = ["output-loss", "reconstructed-loss"].map(|name| alone(&scored, name, 3));
        let (plain, repaired) = (plain?, repaired?);
        let half = |range| points.batch(range).expect("points");
        let swapped = Calibration::cat(&[half(4..8), half(0..4)]).expect("points");
        let mut kinds = BTreeSet::new();
        for (index, unit) in unet.units().iter().enumerate() {
            if !kinds.insert((unit.kind, unit.has_shortcut)) {
                continue;
            }
            let [one, other] = [&points, &swapped].map(|points| by_reconstruction(&model, unit, points));
            let expected = (one? + other?) / 2.0;
            assert!(
                (repaired[index] / expected - 1.0).abs() < 1e-4,
                "{name}, {}: {} and {expected}",
                unit.id,
                repaired[index]
            );
        }
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        assert!(sum(&repaired) < sum(&plain), "{name}: {} and {}", sum(&repaired), sum(&plain));
        assert!(kinds.contains(&(UnitKind::Resnet, true)) && kinds.contains(&(UnitKind::Resnet, false)));
        assert_eq!(kinds.iter().any(|(kind, _)| *kind == UnitKind::Block), name == "sdxl");
    }
    Ok(())
}
