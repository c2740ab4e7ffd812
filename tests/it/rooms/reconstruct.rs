//! Reconstruction after removal, on small U-Nets of every family.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress, UnitId};
use laptop_diff::data::Calibration;
use laptop_diff::model::network::TailKind;
use laptop_diff::model::{ModelDirectory, UNetConfig};
use laptop_diff::nn::least_squares::{Change, Layer, Normal};
use laptop_diff::prune::{
    Export, ExportError, ExportRequest, FORMATS, Format, ReconstructError, Reconstructing, Reconstruction,
    apply, write_maps,
};

use crate::diffusers::{Diffusers, save_prediction};
use crate::small_unets;
use crate::small_unets::{configs, fine_ids, ids, points, selection};

const ALL: [TailKind; 4] = [TailKind::Shortcut, TailKind::Projection, TailKind::Conv2, TailKind::ConvOut];

/// A teacher and a student without some ResNets and transformers, in folders.
struct Pair {
    folder: tempfile::TempDir,
    points: Calibration,
    /// The type that the U-Nets compute in.
    computing: DType,
}

impl Pair {
    fn new(config: &serde_json::Value, dtype: DType) -> miette::Result<Self> {
        let every_third = |units: Vec<UnitId>| units.into_iter().skip(1).step_by(3).collect();
        Self::without(config, dtype, |config| every_third(ids(config)))
    }

    /// The student lacks these units.
    fn without(
        config: &serde_json::Value,
        dtype: DType,
        removed: impl Fn(&UNetConfig) -> BTreeSet<UnitId>,
    ) -> miette::Result<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("teacher");
        small_unets::save(config, 1, &at)?;
        let file = at.join("diffusion_pytorch_model.safetensors");
        let stored = candle_core::safetensors::load(&file, &Device::Cpu).expect("weights");
        let cast = stored.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(dtype).expect("a float")));
        candle_core::safetensors::save(&cast.collect(), &file).expect("written");
        let teacher = ModelDirectory::open(&at)?;
        let config = teacher.unet_config()?;
        apply(&teacher, &selection(&config, removed(&config)), &folder.path().join("student"))?;
        let points = points(&config, 20, 3).expect("points");
        let computing = if dtype == DType::F64 { dtype } else { DType::F32 };
        Ok(Self { folder, points, computing })
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
        let unet = |model: &ModelDirectory| model.unet(self.computing, &Device::Cpu).expect("a U-Net");
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

impl Pair {
    /// Reconstructs the student with linear maps and writes it into the folder `mapped`.
    fn mapped(&self) -> miette::Result<(ModelDirectory, Reconstruction)> {
        let (mut weights, record) = quietly(self, &[TailKind::Shortcut, TailKind::Linear], 4, "maps");
        let student = ModelDirectory::open(&self.folder.path().join("student"))?;
        let at = self.folder.path().join("mapped");
        std::fs::create_dir_all(&at).expect("a folder");
        std::fs::copy(student.path().join("config.json"), at.join("config.json")).expect("copied");
        let file = |folder: &std::path::Path| folder.join("diffusion_pytorch_model.safetensors");
        for (name, tensor) in
            candle_core::safetensors::load(file(student.path()), &Device::Cpu).expect("weights")
        {
            weights.entry(name).or_insert(tensor);
        }
        candle_core::safetensors::save(&weights.into_iter().collect(), file(&at)).expect("written");
        write_maps(&student, &record.linear_units, &at)?;
        Ok((ModelDirectory::open(&at)?, record))
    }
}

/// Units of every kind, some of them neighbours.
fn fine(config: &UNetConfig) -> BTreeSet<UnitId> {
    fine_ids(config)
        .into_iter()
        .enumerate()
        .filter(|(at, _)| at % 5 == 1 || at % 5 == 2)
        .map(|(_, id)| id)
        .collect()
}

#[test]
fn linear_maps_are_written_and_read_back() -> miette::Result<()> {
    for (name, config) in configs() {
        for removed in
            [fine as fn(&UNetConfig) -> BTreeSet<UnitId>, |config| ids(config).into_iter().collect()]
        {
            let pair = Pair::without(&config, DType::F32, removed)?;
            let (mapped, record) = pair.mapped()?;
            assert!(!record.linear_units.is_empty() && record.after < record.before, "{name}: {record:?}");
            let found = mapped.unet_config()?;
            assert_eq!(found.linear_units, record.linear_units, "{name}");
            let student = ModelDirectory::open(&pair.folder.path().join("student"))?.unet_config()?;
            let [with, without] = [&found, &student].map(|unet| unet.inventory().parameters());
            assert_eq!(with - without, record.added_parameters, "{name}");

            // The joint loss of what was read is the one that was recorded.
            let open = |name: &str| ModelDirectory::open(&pair.folder.path().join(name)).expect("a model");
            let held = pair.points.batch_on(15..20, &Device::Cpu).expect("points");
            let prediction = |model: &ModelDirectory| {
                let unet = model.unet(DType::F32, &Device::Cpu).expect("a U-Net");
                unet.forward(&held.sample, &held.timestep, &held.conditioning()).expect("a prediction")
            };
            let lack = prediction(&open("teacher")).sub(&prediction(&mapped)).expect("of one shape");
            let loss = lack.sqr().and_then(|lack| lack.mean_all()?.to_scalar::<f32>()).expect("a number");
            assert!(
                (f64::from(loss) / record.after - 1.0).abs() < 1e-4,
                "{name}: {loss} and {}",
                record.after
            );
        }
    }
    Ok(())
}

#[test]
fn a_removed_unit_takes_the_maps_inside_it_along() -> miette::Result<()> {
    let (_, config) = &configs()[1];
    let pair = Pair::without(config, DType::F32, |_| {
        BTreeSet::from([UnitId::from("mid_block.attentions.0.transformer_blocks.1")])
    })?;
    let (mapped, record) = pair.mapped()?;
    assert_eq!(record.linear_units.len(), 1);
    let unet = mapped.unet(DType::F32, &Device::Cpu)?;
    let inside = unet.units().iter().find(|unit| unit.id.as_str() == "mid_block.attentions.0");
    let inside = inside.expect("it still has two blocks");
    let blocks = unet.units().iter().filter(|unit| unit.parent.as_ref() == Some(&inside.id)).count();
    assert_eq!(blocks, 2);
    let without = unet.prune(&BTreeSet::from([inside.id.clone()])).expect("a unit");
    assert!(without.config().linear_units.is_empty());
    assert_eq!(unet.parameters() - without.parameters(), inside.parameters);
    Ok(())
}

#[test]
fn linear_maps_are_exported_where_there_is_a_place_for_them() -> miette::Result<()> {
    let (_, config) = &configs()[0];
    let pair = Pair::new(config, DType::F32)?;
    let (mapped, record) = pair.mapped()?;
    for format in FORMATS {
        let folder = tempfile::tempdir().expect("a folder");
        let request =
            ExportRequest { model: &mapped, format, dtype: None, allow_unrecognised: true, loras: &[] };
        match (format.name, request.write(&folder.path().join("export"))) {
            ("diffusers-code", Ok(Export { parameters, written_parameters, .. })) => {
                assert_eq!(parameters, written_parameters);
            }
            (_, Err(ExportError::LinearMap { unit, .. })) => assert!(record.linear_units.contains(&unit)),
            (name, other) => panic!("{name}: {other:?}"),
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs diffusers: LAPTOP_DIFF_TEST_PYTHON names a python that has it"]
fn diffusers_computes_linear_maps_the_same() -> miette::Result<()> {
    let diffusers = Diffusers::new();
    for family in ["sd1", "sdxl"] {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("whole");
        diffusers.run(&[&"original", &whole, &family]);
        // A map in place of everything that is removed, with random weights.
        let config = ModelDirectory::open(&whole)?.unet_config()?;
        let pruned = config.prune(&fine(&config)).expect("its own units");
        let has_place = |unit: &&UnitId| pruned.with_maps(&BTreeSet::from([(*unit).clone()])).is_ok();
        let places = pruned.removed_units.iter().filter(has_place).cloned().collect();
        let mapped = pruned.with_maps(&places).expect("each has a place");
        let ends = |part: &str| places.iter().any(|unit| unit.as_str().rsplit('.').nth(1) == Some(part));
        assert!(ends("resnets") && ends("attentions"), "{places:?}");
        let has_blocks =
            ends("transformer_blocks") && places.iter().any(|unit| unit.as_str().ends_with("attn1"));
        assert!(has_blocks || family == "sd1", "{places:?}");
        std::fs::remove_dir_all(whole.join("unet")).expect("removed");
        small_unets::save(&mapped.to_json(), 3, &whole.join("unet"))?;

        let model = ModelDirectory::open(&whole)?;
        let (format, path) = (Format::find("diffusers-code")?, folder.path().join("export"));
        ExportRequest { model: &model, format, dtype: None, allow_unrecognised: false, loras: &[] }
            .write(&path)?;
        let unet = model.unet(DType::F32, &Device::Cpu)?;
        let small = UNetConfig { sample_size: (16, 16), ..mapped };
        let file = folder.path().join("expected");
        save_prediction(&unet, &points(&small, 2, 5).expect("points"), &file).expect("written");
        diffusers.run(&[&"run", &path, &file]);
    }
    Ok(())
}

#[test]
fn sums_over_points_do_not_depend_on_the_batch() -> candle_core::Result<()> {
    let random = Random::new(1, "points");
    let normal = |name: &str, shape: &[usize]| random.normal(name, 0, shape, &Device::Cpu);
    let (features, lack) = (normal("features", &[6, 5, 4, 4])?, normal("lack", &[6, 3, 4, 4])?);
    let solved = |batch: usize| -> candle_core::Result<Vec<f64>> {
        let mut sums = Normal::new(9 * 5, 3)?;
        for start in (0..6).step_by(batch) {
            let part = |tensor: &Tensor| tensor.narrow(0, start, batch.min(6 - start));
            sums.add(&part(&features)?, 3, &part(&lack)?)?;
        }
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F64, &Device::Cpu);
        let layer =
            Layer { weight: zeros(&[3, 5, 3, 3])?, bias: zeros(&[3])?, dtypes: (DType::F64, DType::F64) };
        let change = Change::best(&layer, &sums, &sums)?.expect("finite sums");
        change.weights.0.flatten_all()?.to_vec1()
    };
    let expected = solved(6)?;
    assert!(expected.iter().any(|weight| *weight != 0.0));
    for batch in [1, 4] {
        assert_eq!(solved(batch)?, expected);
    }
    Ok(())
}

/// In double precision, so that only rounding is left of what another batch changes.
#[test]
fn a_reconstruction_does_not_depend_on_the_batch() -> miette::Result<()> {
    let (_, config) = &configs()[1];
    let pair = Pair::new(config, DType::F64)?;
    let kinds = [ALL.as_slice(), &[TailKind::Linear]].concat();
    let (_, expected) = quietly(&pair, &kinds, 20, "twenty");
    assert!(expected.after < expected.before && !expected.linear_units.is_empty(), "{expected:?}");
    for (batch, checkpoint) in [(1, "one"), (3, "three")] {
        let (_, record) = quietly(&pair, &kinds, batch, checkpoint);
        let off = (record.after / expected.after - 1.0).abs();
        assert!(off < 1e-9, "{batch}: {off:e}");
        assert_eq!(record.linear_units, expected.linear_units);
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
