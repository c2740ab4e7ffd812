//! The table of everything that is part of a stage's key. Nothing else decides whether a stage runs again.
//!
//! | value | part of the key | reason |
//! |---|---|---|
//! | the layout version of keys | always | after a change of this table, old artefacts must not be found |
//! | stage name and version | always | different code gives different bytes |
//! | parameters that can change bytes ([`Stage::describe`]) | always | they determine the result; dtype is one of them |
//! | digest of each input artefact, by parameter | always | the contents matter, not which stage produced them |
//! | digest of what is read of each file or folder, by parameter ([`Excerpt`]) | always | the contents matter, not their location |
//! | commit of each repository of the hub, by parameter | always | it identifies the contents without a download |
//! | pipeline seed and stage `id:` | if the stage is seeded | both name its random streams |
//! | device class (`cpu`, `cuda`) | if the stage computes | devices round differently |
//! | version of the kernels | if the stage computes | versions of kernels round differently |
//!
//! Values that must never be part of the key, and the consequence if they were:
//!
//! | value | consequence |
//! |---|---|
//! | the name of a repository, its branch or tag | a branch that has moved would find the old artefact |
//! | a path, a modification time, a host or user name | moving or cloning a project would run everything again |
//! | files that are not read, prompts that are not drawn, line endings | a README would run everything again |
//! | parameters that permit a stage to do its work (`allow-unrecognised`) | a permission would change the bytes that it permits |
//! | device index, thread count, memory budget | another GPU or a larger machine would miss the cache |
//! | other stages, their order, the pipeline's name | adding a stage would run the others again |
//! | a sweep, and the id derived from it | adding a value would run the others again |
//! | comments, layout and key order of the file | reformatting a file would run everything again |
//! | whether a default is written out | writing a default explicitly would run the stage again |
//!
//! A setting ([`crate::config::Settings`]) must therefore never change an artefact's bytes.

use std::collections::BTreeMap;

use super::expand::PlannedStage;
use crate::backend::DeviceClass;
use crate::base::{Digest, Manifest};
use crate::nn;
use crate::stage::Contents;
#[expect(unused_imports, reason = "the table above links to them")]
use crate::stage::{Excerpt, Stage};

/// Increased when the table changes.
const LAYOUT: u32 = 1;

/// Everything that determines the bytes of one stage's artefact; its key is [`Manifest::key`].
///
/// `inputs` are digests of artefacts by the names of [`Stage::inputs`], `files` the contents of files, folders and
/// repositories by the names of [`Stage::files`].
pub fn manifest(
    planned: &PlannedStage,
    device: DeviceClass,
    inputs: &BTreeMap<String, Digest>,
    files: &BTreeMap<String, Contents>,
) -> Manifest {
    let info = planned.stage.info();
    let mut manifest = Manifest::default();
    manifest.field("key layout", LAYOUT).field("stage", format_args!("{}@{}", info.name, info.version));
    planned.stage.describe(&mut manifest);
    for (name, digest) in inputs {
        manifest.input(name, digest);
    }
    for (name, contents) in files {
        manifest.field(&format!("file {name}"), contents);
    }
    if info.seeded {
        manifest.field("seed", planned.seed).field("id", &planned.origin);
    }
    if info.computes {
        manifest.field("device class", device).field("kernels", nn::VERSION);
    }
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::resolve;

    /// The keys of a stage that loads, a seeded stage and a stage that computes.
    fn keys(text: &str, device: DeviceClass, content: &str) -> Vec<Digest> {
        let pipeline = resolve(text).expect("the pipeline is right");
        let digest = Digest::of(content.as_bytes());
        let inputs = BTreeMap::from([("model".to_owned(), digest)]);
        let files = BTreeMap::from([("model".to_owned(), Contents::Digest(digest))]);
        let key = |planned| manifest(planned, device, &inputs, &files).key();
        pipeline.stages.iter().map(key).collect()
    }

    const TEXT: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: m, use: load, with: { model: nano } }
  - { id: p, use: select, with: { model: m, ratio: 0.5 } }
  - { id: e, use: evaluate, with: { models: { model: m } } }
";

    /// Which of the three keys change when `old` is replaced by `new`.
    fn changed(old: &str, new: &str) -> Vec<bool> {
        assert!(TEXT.contains(old), "{old:?}");
        let before = keys(TEXT, DeviceClass::Cpu, "x");
        let after = keys(&TEXT.replace(old, new), DeviceClass::Cpu, "x");
        before.iter().zip(&after).map(|(a, b)| a != b).collect()
    }

    #[test]
    fn what_changes_bytes_changes_the_key() {
        assert_eq!(changed("ratio: 0.5", "ratio: 0.5000000000000001"), [false, true, false]);
        assert_eq!(changed("model: nano", "model: nano, dtype: bf16"), [true, false, false]);
        assert_eq!(changed("seed: 1", "seed: 2"), [false, true, false]);
        assert_eq!(changed("id: p", "id: q"), [false, true, false]);
        assert_ne!(keys(TEXT, DeviceClass::Cpu, "x")[0], keys(TEXT, DeviceClass::Cpu, "y")[0]);
        assert_ne!(keys(TEXT, DeviceClass::Cpu, "x")[2], keys(TEXT, DeviceClass::Cuda, "x")[2]);
    }

    #[test]
    fn what_does_not_change_bytes_does_not_change_the_key() {
        let none = [false; 3];
        assert_eq!(changed("name: small", "name: other"), none);
        assert_eq!(changed("model: nano", "model: moved/elsewhere"), none);
        assert_eq!(changed(", ratio: 0.5", ""), none, "a default written out");
        assert_eq!(changed("model: m, ratio: 0.5", "ratio: 5.0e-1, model: m"), none, "key order and layout");
        assert_eq!(changed("id: e", "id: f"), none, "the id of a stage without randomness");
        assert_eq!(keys(TEXT, DeviceClass::Cpu, "x")[1], keys(TEXT, DeviceClass::Cuda, "x")[1]);
    }
}
