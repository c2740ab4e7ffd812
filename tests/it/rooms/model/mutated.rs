//! Configurations of models with weights, changed in a few places on purpose or by a broken disk: reading them may fail,
//! but does not panic and takes no memory that the file does not justify. `tests/mutations` does the same with
//! files alone, and with many more changes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

use candle_core::{DType, Device};
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::model::{ModelDirectory, Part, ScorerFolders};
use laptop_diff::train::Trainable;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::golden::{Golden, folder};

/// The small models here take about a megabyte; the list of tensors of the largest shape that is accepted, some
/// twenty. What a config alone can ask for begins at gigabytes.
const MOST_BYTES: isize = 64 << 20;
const CASES: u32 = 128;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees after its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One change of a JSON file, at one of its nodes.
#[derive(Clone, Debug)]
enum Change {
    Set(Value),
    Remove,
    /// A list becomes so many of its first element.
    Repeat(usize),
}

/// Numbers that no honest file has, or not everywhere.
fn numbers() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0),
        json!(1),
        json!(7),
        json!(255),
        json!(1 << 16),
        json!(1u64 << 32),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(1e-320),
        json!(-1e308),
    ]
}

fn change() -> impl Strategy<Value = (Index, Change)> {
    let others = [
        Value::Null,
        json!(true),
        json!(""),
        json!("silu"),
        json!("../../etc/passwd"),
        json!("\u{0}\u{10ffff}"),
        json!("a".repeat(10_000)),
        json!([]),
        json!([[]]),
        json!([1, [2, [3]], null]),
        json!(vec![256; 16]),
        json!({}),
        json!({ "content": 1 }),
    ];
    let change = prop_oneof![
        4 => prop::sample::select(numbers()).prop_map(Change::Set),
        4 => prop::sample::select(others.to_vec()).prop_map(Change::Set),
        1 => Just(Change::Remove),
        1 => prop::sample::select(vec![2, 16, 17, 256, 10_000]).prop_map(Change::Repeat),
    ];
    (any::<Index>(), change)
}

/// JSON pointers to every node; of a long list or map, such as a vocabulary, to the first.
fn nodes(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    match value {
        Value::Array(values) => {
            values
                .iter()
                .take(16)
                .enumerate()
                .for_each(|(key, value)| nodes(value, &format!("{place}/{key}"), found));
        }
        Value::Object(values) => values.iter().take(64).for_each(|(key, value)| {
            nodes(value, &format!("{place}/{}", key.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

fn apply(file: &mut Value, index: Index, change: Change) {
    let mut places = Vec::new();
    nodes(file, "", &mut places);
    let place = &places[index.index(places.len())];
    match (change, place.rsplit_once('/')) {
        (Change::Remove, Some((parent, key))) => {
            if let Some(Value::Object(parent)) = file.pointer_mut(parent) {
                parent.remove(&key.replace("~1", "/").replace("~0", "~"));
            }
        }
        (change, _) => {
            let Some(node) = file.pointer_mut(place) else { return };
            match (change, node) {
                (Change::Repeat(times), Value::Array(values)) if !values.is_empty() => {
                    *values = vec![values[0].clone(); times];
                }
                (Change::Set(value), node) => *node = value,
                _ => {}
            }
        }
    }
}

/// Fails if `read` takes much memory.
pub(crate) fn bounded<T>(read: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let result = read();
    let taken = PEAK.get() - before;
    assert!(taken < MOST_BYTES, "{} MiB were taken", taken >> 20);
    result
}

/// A runner counts its cases over all its runs: one each.
pub(crate) fn runner() -> TestRunner {
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

/// Reads `valid`, then what changes of its bytes make of it, and where it is JSON every number at every node and
/// random changes of several nodes.
fn survives(valid: &[u8], read: impl Fn(&[u8])) {
    let bounded = |bytes: &[u8]| bounded(|| read(bytes));
    bounded(valid);
    let byte = (any::<Index>(), any::<u8>());
    let bytes = (prop::collection::vec(byte, 0..8), any::<Index>(), any::<bool>());
    let ended = runner().run(&bytes, |(bytes, end, cut)| {
        let mut changed = valid.to_vec();
        bytes.into_iter().for_each(|(index, byte)| changed[index.index(valid.len())] = byte);
        if cut {
            changed.truncate(end.index(valid.len()));
        }
        bounded(&changed);
        Ok(())
    });
    ended.unwrap_or_else(|error| panic!("{error}"));
    let Ok(json) = serde_json::from_slice::<Value>(valid) else { return };
    let mut places = Vec::new();
    nodes(&json, "", &mut places);
    for place in &places {
        for number in numbers() {
            let mut changed = json.clone();
            if let Some(node) = changed.pointer_mut(place) {
                *node = number;
            }
            bounded(changed.to_string().as_bytes());
        }
    }
    let ended = runner().run(&prop::collection::vec(change(), 1..4), |changes| {
        let mut changed = json.clone();
        changes.into_iter().for_each(|(index, change)| apply(&mut changed, index, change));
        bounded(changed.to_string().as_bytes());
        Ok(())
    });
    ended.unwrap_or_else(|error| panic!("{error}"));
}

/// A folder with a part of a model, of which one file is changed and `read` reads all.
fn part_survives(golden: &str, part: &str, read: impl Fn(&ModelDirectory)) {
    let golden = Golden::open(golden);
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    golden.write_folder(&sandbox.path().join(part));
    fs::write(sandbox.path().join("model_index.json"), "{}").expect("as above");
    survives(golden.config.as_bytes(), |bytes| {
        fs::write(sandbox.path().join(part).join("config.json"), bytes).expect("as above");
        read(&ModelDirectory::open(sandbox.path()).expect("it has an index"));
    });
}

#[test]
fn config_of_a_unet() {
    for golden in ["unet_sd15", "unet_sdxl", "unet_nested"] {
        part_survives(golden, "unet", |directory| {
            drop(directory.unet(DType::F32, &Device::Cpu));
            drop(Trainable::open(directory, |_| false, DType::F32, &Device::Cpu));
        });
    }
}

#[test]
fn numbers_that_are_possible_each_but_not_together() {
    let mut config: Value =
        serde_json::from_str(&Golden::open("unet_sd15").config).expect("diffusers wrote it");
    let levels = config["block_out_channels"].as_array().expect("a list").len();
    config["layers_per_block"] = json!(200);
    config["transformer_layers_per_block"] = json!(vec![200; levels]);
    let error = UNetConfig::parse(&config.to_string()).expect_err("tens of thousands of blocks").to_string();
    assert!(error.contains("transformer_layers_per_block") && error.contains("4096"), "{error}");
}

#[test]
fn config_of_an_autoencoder() {
    part_survives("vae", "vae", |directory| drop(directory.vae(DType::F32, &Device::Cpu)));
}

#[test]
fn config_of_a_text_encoder() {
    for (golden, part) in [("text_encoder", Part::TextEncoder), ("text_encoder_2", Part::TextEncoder2)] {
        part_survives(golden, part.folder(), |directory| {
            drop(directory.text_encoder(part, DType::F32, &Device::Cpu));
        });
    }
}

#[test]
fn config_of_a_scorer() {
    let golden = Golden::open("scorer");
    let sandbox = tempfile::tempdir().expect("a temporary folder can be written");
    golden.write_folder(sandbox.path());
    for file in ["vocab.json", "merges.txt"] {
        fs::copy(folder().join("tokenizer").join(file), sandbox.path().join(file)).expect("as above");
    }
    survives(golden.config.as_bytes(), |bytes| {
        fs::write(sandbox.path().join("config.json"), bytes).expect("as above");
        drop(ScorerFolders::one(sandbox.path()).load(DType::F32, &Device::Cpu));
    });
}
