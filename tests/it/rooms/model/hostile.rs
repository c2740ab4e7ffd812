//! Files that a hostile or unlucky hand wrote: each is an error that says so, none a panic.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use laptop_diff::model::files::weights::WeightsError;
use laptop_diff::model::{ModelDirectory, ModelError, Part, Weights};
use laptop_diff::train::Trainable;
use proptest::prelude::*;
use tempfile::TempDir;

use super::golden::{Golden, relative_l2};

fn sandbox() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be written")
}

/// Opens a file of these bytes.
fn open(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let sandbox = sandbox();
    let path = sandbox.path().join("model.safetensors");
    fs::write(&path, bytes).expect("a temporary folder can be written");
    Weights::open(&path)
}

fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn broken_headers_are_errors() {
    let whole = with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    assert!(open(&whole).is_ok());
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("shorter than a length", vec![1, 2, 3]),
        ("truncated data", whole[..whole.len() - 1].to_vec()),
        ("truncated header", whole[..20].to_vec()),
        ("trailing bytes", [whole.as_slice(), &[0]].concat()),
        ("terabytes of header", [&(1u64 << 42).to_le_bytes()[..], b"{}"].concat()),
        ("the largest header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("no JSON", with_header("{not json", 0)),
        ("no text", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
        (
            "overlap",
            with_header(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
            ),
        ),
        ("backwards", with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8)),
        ("beyond the end", with_header(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}"#, 8)),
        (
            "a shape that overflows",
            with_header(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]}}"#, 8),
        ),
        (
            "size and shape differ",
            with_header(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        ),
    ] {
        match open(&bytes) {
            Err(WeightsError::Header { reason, .. }) => assert!(!reason.is_empty()),
            other => panic!("{what}: {:?}", other.map(|weights| weights.names().count())),
        }
    }
}

#[test]
fn a_pickle_is_not_read() {
    for bytes in [&b"PK\x03\x04\x00\x00\x00\x00\x00\x00"[..], b"\x80\x02}q\x00(X\x01\x00\x00\x00a"] {
        assert!(matches!(open(bytes), Err(WeightsError::Pickle { .. })));
    }
    let sandbox = sandbox();
    fs::write(sandbox.path().join("diffusion_pytorch_model.bin"), b"")
        .expect("a temporary folder can be written");
    let error = Weights::open(sandbox.path()).err().expect("there is only a pickle");
    let help = miette::Diagnostic::help(&error).expect("it says how to convert").to_string();
    assert!(help.contains("safe_serialization"), "{help}");
}

#[test]
fn an_index_stays_in_its_folder() {
    let sandbox = sandbox();
    let folder = sandbox.path().join("unet");
    fs::create_dir(&folder).expect("a temporary folder can be written");
    let secret = with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4);
    fs::write(sandbox.path().join("secret.safetensors"), &secret).expect("as above");
    fs::write(folder.join("part.safetensors"), &secret).expect("as above");
    let absolute = sandbox.path().join("secret.safetensors").display().to_string();
    let index = |shard: &str, tensor: &str| {
        let text = serde_json::json!({ "weight_map": { tensor: shard } }).to_string();
        fs::write(folder.join("model.safetensors.index.json"), text).expect("as above");
        Weights::open(&folder)
    };
    for shard in ["../secret.safetensors", &absolute, "..", ".", "", "a/../part.safetensors", "..\\secret"] {
        let error = index(shard, "a").err().unwrap_or_else(|| panic!("{shard} was opened"));
        assert!(matches!(&error, WeightsError::Outside { shard: found, .. } if found == shard), "{error}");
    }
    // Whatever hashes a folder leaves hidden files out.
    fs::write(folder.join(".part.safetensors"), &secret).expect("as above");
    let hidden = index(".part.safetensors", "a").err().expect("it is hidden");
    assert!(matches!(&hidden, WeightsError::Hidden { .. }), "{hidden}");
    assert!(index("part.safetensors", "a").is_ok());
    assert!(matches!(index("part.safetensors", "b"), Err(WeightsError::Missing { .. })));
    assert!(matches!(index("gone.safetensors", "a"), Err(WeightsError::Read { .. })));
    fs::write(folder.join("model.safetensors.index.json"), "{}").expect("as above");
    assert!(matches!(Weights::open(&folder), Err(WeightsError::Index { .. })));
}

#[test]
fn the_full_precision_file_of_a_folder_is_preferred() {
    let sandbox = sandbox();
    let write = |name: &str, tensor: &str| {
        let header = format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        fs::write(sandbox.path().join(name), with_header(&header, 4))
            .expect("a temporary folder can be written");
    };
    let opened = || Weights::open(sandbox.path()).map(|weights| weights.names().collect::<String>());
    assert!(matches!(opened(), Err(WeightsError::NothingFound { .. })));
    write("diffusion_pytorch_model.fp16.safetensors", "half");
    assert_eq!(opened().expect("a variant is better than nothing"), "half");
    write("diffusion_pytorch_model.safetensors", "full");
    assert_eq!(opened().expect("both are there"), "full");
}

fn unet_folder(golden: &Golden) -> TempDir {
    let sandbox = sandbox();
    golden.write_folder(&sandbox.path().join("unet"));
    sandbox
}

#[test]
fn a_directory_gives_the_same_unet_as_its_tensors() {
    let golden = Golden::open("unet_sdxl");
    let sandbox = unet_folder(&golden);
    for path in [sandbox.path(), &sandbox.path().join("unet")] {
        let directory = ModelDirectory::open(path).expect("a pipeline and a bare U-Net");
        let unet = directory.unet(DType::F32, &Device::Cpu).expect("whole weights");
        golden.assert_close("sample", &golden.predict(&unet));
        let trainable =
            Trainable::open(&directory, |_| false, DType::F32, &Device::Cpu).expect("whole weights");
        assert_eq!(trainable.weights().len(), golden.weights().len());
        assert_eq!(relative_l2(&golden.predict(trainable.unet()), &golden.predict(&unet)), 0.0);
        directory.unet_weights().and_then(|weights| Ok(weights.check_finite()?)).expect("random, but finite");
    }
}

#[test]
fn a_missing_part_says_who_needs_it() {
    let sandbox = unet_folder(&Golden::open("unet_no_mid"));
    let directory = ModelDirectory::open(sandbox.path()).expect("it has a U-Net");
    assert!(directory.has(Part::UNet) && !directory.has(Part::Vae));
    let error = directory.vae(DType::F32, &Device::Cpu).expect_err("there is none").to_string();
    assert!(error.contains("`vae`") && error.contains("generate"), "{error}");
    assert!(matches!(ModelDirectory::open(Path::new("/nowhere")), Err(ModelError::NoModel { .. })));
}

#[test]
fn a_wrong_shape_names_the_tensor_and_both_shapes() {
    let golden = Golden::open("unet_no_mid");
    let sandbox = unet_folder(&golden);
    let config = golden.config.replace("\"cross_attention_dim\": 12", "\"cross_attention_dim\": 24");
    fs::write(sandbox.path().join("unet/config.json"), config).expect("a temporary folder can be written");
    let directory = ModelDirectory::open(sandbox.path()).expect("it has a U-Net");
    for error in [
        directory.unet(DType::F32, &Device::Cpu).expect_err("shapes differ").to_string(),
        Trainable::open(&directory, |_| false, DType::F32, &Device::Cpu)
            .err()
            .expect("shapes differ")
            .to_string(),
    ] {
        assert!(
            error.contains("attn2.to_k.weight") && error.contains("[16, 12]") && error.contains("[16, 24]"),
            "{error}"
        );
    }
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    let golden = Golden::open("unet_no_mid");
    for (dtype, value) in
        [(DType::F32, f32::NAN), (DType::F16, f32::INFINITY), (DType::BF16, f32::NEG_INFINITY)]
    {
        let sandbox = sandbox();
        let path = sandbox.path().join("model.safetensors");
        let mut weights = golden.weights();
        let bad =
            candle_core::Tensor::new(&[0.0, 1.0, value, 2.0], &Device::Cpu).and_then(|x| x.to_dtype(dtype));
        weights.insert("bad".to_owned(), bad.expect("floats convert"));
        candle_core::safetensors::save(&weights, &path).expect("a temporary folder can be written");
        let error =
            Weights::open(&path).and_then(|weights| weights.check_finite()).expect_err("one is not finite");
        assert!(matches!(&error, WeightsError::NotFinite { name, index: 2, .. } if name == "bad"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_header_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u64..64) {
        drop(open(&bytes));
        // A plausible length reaches the JSON parser.
        if let Some(head) = bytes.first_chunk_mut::<8>() {
            *head = length.to_le_bytes();
        }
        drop(open(&bytes));
    }

    #[test]
    fn no_flipped_byte_makes_reading_panic(place in 0usize..63, value in any::<u8>()) {
        let mut bytes = with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
        bytes[place] = value;
        if let Ok(weights) = open(&bytes) {
            for name in weights.names() {
                drop(weights.tensor(name, DType::F32, &Device::Cpu));
            }
        }
    }
}
