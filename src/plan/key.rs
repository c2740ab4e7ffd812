//! THE table of what enters a stage's key. Nothing else decides whether a stage runs again.
//!
//! | value | enters | because |
//! |---|---|---|
//! | the layout of keys | always | a change of this table must not find old artefacts |
//! | stage name and version | always | other code, other bytes |
//! | parameters that can change bytes ([`Stage::describe`]) | always | dtype is one of them |
//! | digest of each input artefact, by parameter | always | contents decide, not which stage made them |
//! | digest of each file or folder, by parameter | always | contents decide, not where they lie |
//! | pipeline seed and stage id | if the stage is seeded | both name its random streams |
//! | device class (`cpu`, `cuda`) | if the stage computes | kernels round differently |
//!
//! What must never enter, and what would go wrong:
//!
//! | value | accident |
//! |---|---|
//! | a path, a modification time, a host or user name | moving or cloning a project runs everything again |
//! | device index, thread count, memory budget | the next free GPU, or a bigger machine, misses the cache |
//! | other stages, their order, the pipeline's name | adding a stage runs the others again |
//! | comments, layout and key order of the file | tidying a file costs a night |
//! | a default written out | stating what holds anyway runs it again |
//!
//! A setting ([`crate::config::Settings`]) must therefore never change an artefact's bytes.

use std::collections::BTreeMap;

use crate::backend::DeviceClass;
use crate::base::{Digest, Manifest};
use crate::config::StageEntry;
#[expect(unused_imports, reason = "the table above links to it")]
use crate::stage::Stage;

/// Raised when the table changes.
const LAYOUT: u32 = 1;

/// Everything the bytes of one stage's artefact depend on; its key is [`Manifest::key`].
///
/// `inputs` are digests of artefacts by the names of [`Stage::inputs`], `files` digests of files and
/// folders by the names of [`Stage::files`].
pub fn manifest(
    entry: &StageEntry,
    seed: u64,
    device: DeviceClass,
    inputs: &BTreeMap<String, Digest>,
    files: &BTreeMap<String, Digest>,
) -> Manifest {
    let info = entry.stage.info();
    let mut manifest = Manifest::default();
    manifest.field("key layout", LAYOUT).field("stage", format_args!("{}@{}", info.name, info.version));
    entry.stage.describe(&mut manifest);
    for (name, digest) in inputs {
        manifest.input(name, digest);
    }
    for (name, digest) in files {
        manifest.field(&format!("file {name}"), digest);
    }
    if info.seeded {
        manifest.field("seed", seed).field("id", &entry.id);
    }
    if info.computes {
        manifest.field("device class", device);
    }
    manifest
}
