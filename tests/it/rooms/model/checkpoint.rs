//! Single files in the original layout, changed where a hostile hand would: names, numbers, shapes and types. What
//! such a file is follows from its header alone, so the data of most files here is a hole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device};
use laptop_diff::model::{Checkpoint, ModelDirectory, ModelError, Part, Prediction};
use laptop_diff::prune::{ExportRequest, Format};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::SafeTensors;
use serde_json::json;

use super::golden::{Golden, folder};
use super::mutated::{bounded, runner};
use crate::small_unets;

/// Beyond every model, and in data as a hole still no burden for a disk.
const WIDE: usize = 1 << 24;
/// What no file has data for.
const ENDLESS: usize = 1 << 40;

/// The header of a checkpoint: type and shape of each tensor.
#[derive(Clone)]
struct Header(BTreeMap<String, (String, Vec<usize>)>);

impl Header {
    /// A whole checkpoint of a family: U-Net, autoencoder and text encoders, by our own export.
    fn of(family: &str) -> Self {
        let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
        let model = sandbox.path().join("model");
        let configs = small_unets::families();
        let (_, config) = configs.iter().find(|(name, _)| *name == family).expect("a family");
        small_unets::save(config, 1, &model.join("unet")).expect("as above");
        for part in ["vae", "text_encoder", "text_encoder_2"] {
            Golden::open(part).write_folder(&model.join(part));
        }
        let model = ModelDirectory::open(&model).expect("it was written above");
        let format = Format::find("comfyui").expect("it is there");
        let path = sandbox.path().join("model.safetensors");
        let request = ExportRequest {
            model: &model,
            format,
            dtype: Some(DType::F16),
            allow_unrecognised: true,
            loras: &[],
        };
        request.write(&path).expect("a model that can be written");
        let bytes = fs::read(&path).expect("it was written above");
        let tensors = SafeTensors::deserialize(&bytes).expect("a whole file").tensors();
        let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            // The goldens are four times narrower than the layout's norms of 32 groups and heads of 64 channels allow.
            let factor = if name.starts_with("model.") { 1 } else { 4 };
            let shape = view.shape().iter().enumerate();
            let shape =
                shape.map(|(dimension, &size)| if dimension < 2 && size > 1 { factor * size } else { size });
            (name, (view.dtype().to_string(), shape.collect()))
        };
        Self(tensors.into_iter().map(tensor).collect())
    }

    /// Writes the file that has it. Data that a disk cannot even hold as a hole is missing.
    fn write(&self, path: &Path) {
        let mut end = 0;
        let tensors = self.0.iter().map(|(name, (dtype, shape))| {
            let bits = serde_json::from_value::<safetensors::Dtype>(json!(dtype)).expect("a type").bitsize();
            let begin = end;
            end += shape.iter().product::<usize>() * bits / 8;
            (name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, end] }))
        });
        let header = serde_json::Value::Object(tensors.collect()).to_string();
        let mut file = File::create(path).expect("a temporary folder can be written");
        file.write_all(&(header.len() as u64).to_le_bytes()).expect("as above");
        file.write_all(header.as_bytes()).expect("as above");
        if end < ENDLESS {
            file.set_len((8 + header.len() + end) as u64).expect("a hole");
        }
    }

    /// A tensor of one of the models, each as likely.
    fn pick(&self, model: Index, tensor: Index) -> Option<String> {
        let mut models: Vec<&str> =
            self.0.keys().map(|name| name.split('.').next().unwrap_or(name)).collect();
        models.dedup();
        let model = models.get(model.index(models.len().max(1)))?;
        let names: Vec<_> = self.0.keys().filter(|name| name.starts_with(model)).collect();
        Some(names[tensor.index(names.len())].clone())
    }

    fn apply(&mut self, model: Index, tensor: Index, change: &Change) {
        let Some(name) = self.pick(model, tensor) else { return };
        let (dtype, shape) = self.0[&name].clone();
        match change {
            Change::Drop => drop(self.0.remove(&name)),
            Change::Renumber(number) => {
                let words = name.split('.').map(|word| match word.parse::<usize>() {
                    Ok(_) => number.to_string(),
                    Err(_) => word.to_owned(),
                });
                let renamed = words.collect::<Vec<_>>().join(".");
                let moved = self.0.remove(&name).expect("it was picked");
                self.0.insert(renamed, moved);
            }
            Change::Shape(shape) => drop(self.0.insert(name, (dtype, shape.clone()))),
            Change::Swap(other) => {
                let other = self.pick(model, *other).expect("there is one");
                let theirs = self.0.insert(other, (dtype, shape)).expect("it was picked");
                self.0.insert(name, theirs);
            }
            Change::Dtype(dtype) => drop(self.0.insert(name, ((*dtype).to_owned(), shape))),
            Change::Flood(module) => {
                for number in 0..3000 {
                    let name = module.replace("{}", &number.to_string());
                    self.0.entry(name).or_insert((dtype.clone(), vec![1]));
                }
            }
        }
    }
}

/// One change of a header, at one of its tensors.
#[derive(Clone, Debug)]
enum Change {
    Drop,
    /// All numbers in its name become this one.
    Renumber(usize),
    Shape(Vec<usize>),
    /// Another tensor of the model gets its shape, and it that one's.
    Swap(Index),
    Dtype(&'static str),
    /// Thousands of tensors of this name.
    Flood(&'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let shapes = [
        vec![],
        vec![0],
        vec![1],
        vec![64],
        vec![0, 64],
        vec![64, 64],
        vec![64, 64, 1, 1],
        vec![64, 0, 3, 3],
        vec![1, 2, 3, 4, 5, 6],
        vec![WIDE],
        vec![WIDE, 8],
        vec![8, WIDE],
        vec![ENDLESS],
        vec![ENDLESS, 2],
    ];
    let floods = [
        "model.diffusion_model.input_blocks.{}.0.out_layers.3.weight",
        "model.diffusion_model.input_blocks.{}.0.op.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.{}.norm1.weight",
        "model.diffusion_model.middle_block.1.transformer_blocks.{}.norm1.weight",
        "model.diffusion_model.output_blocks.{}.0.in_layers.0.weight",
        "first_stage_model.encoder.down.{}.block.0.norm1.weight",
        "first_stage_model.encoder.down.0.block.{}.norm1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.{}.layer_norm1.weight",
        "conditioner.embedders.1.model.transformer.resblocks.{}.ln_1.weight",
    ];
    prop_oneof![
        2 => Just(Change::Drop),
        2 => prop::sample::select(vec![0, 1, 2, 12, 999]).prop_map(Change::Renumber),
        4 => prop::sample::select(shapes.to_vec()).prop_map(Change::Shape),
        2 => any::<Index>().prop_map(Change::Swap),
        2 => prop::sample::select(vec!["F32", "F64", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64"])
            .prop_map(Change::Dtype),
        1 => prop::sample::select(floods.to_vec()).prop_map(Change::Flood),
    ]
}

/// Everything that a file of this header is asked for, in little memory: an error, or a folder of which every part
/// can be built. Nothing is written beside that folder.
fn read(header: &Header) -> Result<Checkpoint, ModelError> {
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    let (file, output) = (sandbox.path().join("model.safetensors"), sandbox.path().join("output"));
    header.write(&file);
    bounded(|| {
        let checkpoint = Checkpoint::open(&file)?;
        assert!(checkpoint.unet_config().inventory().parameters() > 0);
        checkpoint.save(&output, Some(Prediction::Epsilon), Some(&folder().join("tokenizer")))?;
        let directory = ModelDirectory::open(&output)?;
        directory.unet(DType::F32, &Device::Cpu).expect("what was saved can be built");
        if directory.has(Part::Vae) {
            directory.vae(DType::F32, &Device::Cpu).expect("as above");
        }
        for part in [Part::TextEncoder, Part::TextEncoder2].into_iter().filter(|part| directory.has(*part)) {
            directory.text_encoder(part, DType::F32, &Device::Cpu).expect("as above");
        }
        Ok(checkpoint)
    })
    .inspect_err(|_| assert!(!output.exists(), "a file that is refused leaves nothing behind"))
    .inspect(|_| {
        let entries = fs::read_dir(sandbox.path()).expect("a folder").count();
        assert_eq!(entries, 2, "the file and its folder");
    })
}

#[test]
fn every_family_survives_changes_of_its_header() {
    for family in ["sd1", "sd2", "sdxl"] {
        let header = Header::of(family);
        read(&header).unwrap_or_else(|error| panic!("{family}: {error}"));
        let changes = prop::collection::vec((any::<Index>(), any::<Index>(), change()), 1..4);
        let ended = runner().run(&changes, |changes| {
            let mut changed = header.clone();
            changes.iter().for_each(|(model, tensor, change)| changed.apply(*model, *tensor, change));
            drop(read(&changed));
            Ok(())
        });
        ended.unwrap_or_else(|error| panic!("{family}: {error}"));
    }
}

/// A hole in the numbers must not pass for a smaller U-Net.
#[test]
fn every_tensor_of_the_unet_is_needed() {
    // In turn, for time's sake: a layer's weight and bias are neighbours, and three are never a period of the names.
    for (start, family) in ["sd1", "sdxl"].into_iter().enumerate() {
        let header = Header::of(family);
        let names = header.0.keys().filter(|name| name.starts_with("model."));
        for name in names.skip(start).step_by(3) {
            let mut changed = header.clone();
            changed.0.remove(name);
            assert!(read(&changed).is_err(), "{family} without {name}");
        }
    }
}

#[test]
fn every_tensor_has_the_shape_that_the_others_ask_for() {
    let header = Header::of("sd1");
    for (index, (name, (dtype, shape))) in header.0.iter().enumerate() {
        // In turn, for time's sake; a layer's tensors come next to each other and so does each kind of change.
        let others = [vec![], vec![0], [shape.as_slice(), &[1]].concat(), vec![WIDE], vec![ENDLESS]];
        let other = &others[index % others.len()];
        let mut changed = header.clone();
        changed.0.insert(name.clone(), (dtype.clone(), other.clone()));
        assert!(read(&changed).is_err(), "{name} of {other:?}");
    }
}

#[test]
fn what_has_no_place_in_the_unet_is_named() {
    let mut header = Header::of("sd1");
    let name = "model.diffusion_model.input_blocks.1.0.in_layers.2.scale_weight";
    header.0.insert(name.to_owned(), ("F32".to_owned(), vec![]));
    let error = read(&header).err().expect("weights that need a scale are not read").to_string();
    assert!(error.contains(name), "{error}");
}
