//! The memory that a full-size model takes before any computation. Its weights are a hole in a sparse file, which the system
//! reads as zeros: reading them fills memory with their pages.

mod common;
mod small_unets;

use std::fs::{self, File};
use std::io::Write;

use candle_core::{DType, Device};
use common::{Sandbox, expect_code, root};
use laptop_diff::backend::{Random, memory};
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::model::ModelDirectory;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::score::{Limits, ScoreError, ScoringContext, criterion, score};
use serde_json::{Map, json};

/// Writes a bare SDXL U-Net in f16; returns the bytes of its weights.
fn sparse_sdxl(sandbox: &Sandbox) -> u64 {
    let text =
        fs::read_to_string(root().join("tests/golden/configs/sdxl-base.json")).expect("the file is in git");
    let config = UNetConfig::parse(&text).expect("diffusers wrote it");
    sandbox.write("sdxl/config.json", &text);
    let (mut header, mut end) = (Map::new(), 0);
    for entry in config.inventory().tensors() {
        let start = end;
        end += 2 * entry.parameters();
        let info = json!({ "dtype": "F16", "shape": entry.shape, "data_offsets": [start, end] });
        header.insert(entry.name.clone(), info);
    }
    let header = serde_json::Value::from(header).to_string();
    let path = sandbox.path("sdxl/diffusion_pytorch_model.safetensors");
    let mut file = File::create(path).expect("a writable folder");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("a writable file");
    file.write_all(header.as_bytes()).expect("a writable file");
    file.set_len(8 + header.len() as u64 + end).expect("a file system that knows holes");
    end
}

/// A single test, because memory is counted per process.
#[test]
fn only_a_walk_reads_weights() {
    let sandbox = Sandbox::new();
    let bytes = sparse_sdxl(&sandbox);
    assert!(bytes > 5_000_000_000);

    let output = sandbox.run(&["inspect", "sdxl"]);
    expect_code(&output, 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("2567463684"), "all of it was inspected");
    let peak = peak_bytes_of_children();
    assert!(peak < 200_000_000, "inspect took {peak} bytes");

    memory::allow(1_000_000_000);
    let directory = ModelDirectory::open(&sandbox.path("sdxl")).expect("a bare U-Net");
    let unet = directory.unet(DType::F16, &Device::Cpu).expect("every tensor is there");
    assert_eq!(unet.parameters(), 2_567_463_684);
    directory.unet_weights().and_then(|weights| Ok(weights.check_finite()?)).expect("zeros are finite");
    expect_no_memory_for_gradients(&directory, &unet);
    let peak = memory::peak_bytes().expect("Linux says so");
    assert!(peak < 500_000_000, "loading and checking took {peak} bytes");
}

/// The error comes before any weight is read.
fn expect_no_memory_for_gradients(directory: &ModelDirectory, unet: &UNet) {
    let (weights, random) = (directory.unet_weights().expect("opened before"), Random::new(1, "scores"));
    let points = small_unets::points(unet.config(), 1, 1).expect("points");
    let schedule = small_unets::schedule("epsilon");
    let teacher = small_unets::teacher(unet, &weights, &points, &schedule, &random);
    let interrupt = Interrupt::default();
    let folder = tempfile::tempdir().expect("a folder");
    let context = ScoringContext {
        limits: Limits::default(),
        weights: None,
        checkpoint: folder.path(),
        progress: &Silent,
        interrupt: &interrupt,
    };
    let criteria = ["output-loss", "taylor"].map(|name| criterion(name).expect("a criterion"));
    match score(&teacher, &criteria, &context) {
        Err(ScoreError::NoMemoryForGradients { criterion: "taylor", needed, .. }) => {
            assert_eq!(needed, 8 * unet.parameters());
        }
        other => panic!("{:?}", other.map(|scores| scores.units.len())),
    }
}

fn peak_bytes_of_children() -> u64 {
    // SAFETY: the struct is plain numbers, and the call fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}
