//! Reconstruction after removal, on small U-Nets of every family.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress, UnitId};
use laptop_diff::data::Calibration;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::network::TailKind;
use laptop_diff::prune::{ReconstructError, Reconstructing, Reconstruction, apply};

use crate::small_unets;
use crate::small_unets::{configs, points, selection};

const ALL: [TailKind; 4] = [TailKind::Shortcut, TailKind::Projection, TailKind::Conv2, TailKind::ConvOut];

/// A teacher and a student without some ResNets and transformers, in folders.
struct Pair {
    folder: tempfile::TempDir,
    points: Calibration,
}

impl Pair {
    fn new(config: &serde_json::Value, dtype: DType) -> miette::Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("teacher");
        small_unets::save(config, 1, &at)?;
        let file = at.join("diffusion_pytorch_model.safetensors");
        let stored = candle_core::safetensors::load(&file, &Device::Cpu).expect("weights");
        let cast = stored.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).expect("a float")));
        candle_core::safetensors::save(&cast.collect(), &file).expect("written");
        let teacher = ModelDirectory::open(&at)?;
        let config = teacher.unet_config()?;
        let units = config.inventory().units().to_vec();
        let removed: BTreeSet<UnitId> = units.iter().skip(1).step_by(3).map(|unit| unit.id.clone()).collect();
        apply(&teacher, &selection(&config, removed), &folder.path().join("student"))?;
        let points = points(&config, 20, 3).expect("points");
        Ok(Self { folder, points })
    }

    /// Reconstructs the student; the checkpoint is in a folder of this name.
    fn run(
        &self,
        kinds: &[TailKind],
        batch: usize,
        checkpoint: &str,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<(BTreeMap<String, Tensor>, Reconstruction), ReconstructError> {
        let open = |name: &str| ModelDirectory::open(&self.folder.path().join(name)).expect("a model");
        let (teacher, student) = (open("teacher"), open("student"));
        let unet = |model: &ModelDirectory| model.unet(DType::F32, &Device::Cpu).expect("a U-Net");
        let checkpoint = self.folder.path().join(checkpoint);
        std::fs::create_dir_all(&checkpoint).expect("a folder");
        let work = Reconstructing {
            teacher: &unet(&teacher),
            student: &unet(&student),
            weights: &student.unet_weights().expect("weights"),
            points: &self.points,
            held_out: 5,
            batch,
            kinds,
            checkpoint: &checkpoint,
            progress,
            interrupt,
        };
        work.run()
    }
}

fn quietly(
    pair: &Pair,
    kinds: &[TailKind],
    batch: usize,
    checkpoint: &str,
) -> (BTreeMap<String, Tensor>, Reconstruction) {
    pair.run(kinds, batch, checkpoint, &Silent, &Interrupt::default()).expect("it is reconstructed")
}

#[test]
fn the_student_comes_closer_whatever_the_batch() -> miette::Result<()> {
    for (name, config) in configs() {
        let pair = Pair::new(&config, DType::F32)?;
        let (weights, record) = quietly(&pair, &ALL, 4, "four");
        assert!(record.after < 0.8 * record.before, "{name}: {} to {}", record.before, record.after);
        assert_eq!(weights.len(), 2 * record.taken(), "{name}");
        assert!(
            record.layers.iter().all(|layer| layer.taken == (layer.after < layer.before)),
            "{name}: {record:#?}"
        );
        let (others, again) = quietly(&pair, &ALL, 3, "three");
        assert!(
            (again.after / record.after - 1.0).abs() < 1e-2,
            "{name}: {} and {}",
            again.after,
            record.after
        );
        assert_eq!(weights.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>(), "{name}");

        let (fewer, alone) = quietly(&pair, &[TailKind::Conv2], 4, "alone");
        assert!(fewer.keys().all(|weight| weight.contains(".conv2.")), "{name}: {:?}", fewer.keys());
        assert!(alone.layers.len() < record.layers.len());
    }
    Ok(())
}

#[test]
fn half_precision_is_kept_and_improved() -> miette::Result<()> {
    let (_, config) = &configs()[0];
    for dtype in [DType::F16, DType::BF16] {
        let pair = Pair::new(config, dtype)?;
        let (weights, record) = quietly(&pair, &ALL, 4, "checkpoint");
        assert!(record.after < 0.8 * record.before, "{dtype:?}: {} to {}", record.before, record.after);
        assert!(weights.values().all(|tensor| tensor.dtype() == dtype), "{dtype:?}");
    }
    Ok(())
}

/// Asks to stop after some layers.
struct Stopping<'a>(&'a Interrupt, u64);

impl Progress for Stopping<'_> {
    fn length(&self, _total: u64, _unit: &'static str) {}
    fn position(&self, done: u64) {
        if done == self.1 {
            self.0.ask();
        }
    }
    fn note(&self, _text: &str) {}
}

#[test]
fn an_interrupted_reconstruction_resumes_to_the_same_bytes() -> miette::Result<()> {
    let (_, config) = &configs()[1];
    let pair = Pair::new(config, DType::F32)?;
    let interrupt = Interrupt::default();
    let stopped = pair.run(&ALL, 4, "stopped", &Stopping(&interrupt, 2), &interrupt);
    assert!(matches!(stopped, Err(ReconstructError::Interrupted(_))));
    let files = |name: &str| std::fs::read_dir(pair.folder.path().join(name)).expect("a folder").count();
    assert_eq!(files("stopped"), 4, "two layers with their digests");
    let (resumed, record) = quietly(&pair, &ALL, 4, "stopped");
    let (whole, once) = quietly(&pair, &ALL, 4, "whole");
    assert_eq!(record, once);
    let bytes = |weights: &BTreeMap<String, Tensor>| -> Vec<(String, Vec<f32>)> {
        let flat = |tensor: &Tensor| tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("numbers");
        weights.iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect()
    };
    assert_eq!(bytes(&resumed), bytes(&whole));
    Ok(())
}

#[test]
fn a_student_that_was_not_pruned_from_the_teacher_is_refused() -> miette::Result<()> {
    let refused = |pair: &Pair| {
        let ended = pair.run(&ALL, 4, "checkpoint", &Silent, &Interrupt::default());
        assert!(matches!(ended, Err(ReconstructError::Mismatch { .. })), "{ended:?}");
    };
    let (_, config) = &configs()[0];
    let pair = Pair::new(config, DType::F32)?;
    let at = |name: &str| pair.folder.path().join(name);
    let swap = |from: &str, to: &str| std::fs::rename(at(from), at(to)).expect("moved");
    swap("teacher", "other");
    swap("student", "teacher");
    swap("other", "student");
    refused(&pair);

    // All paths of a network with fewer layers are in the teacher too, but stand for other layers.
    let mut fewer = config.clone();
    fewer["layers_per_block"] = 1.into();
    std::fs::remove_dir_all(at("teacher")).expect("removed");
    swap("student", "teacher");
    small_unets::save(&fewer, 1, &at("student"))?;
    refused(&pair);
    Ok(())
}
