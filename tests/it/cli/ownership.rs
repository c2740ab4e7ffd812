//! What belongs to whom: the cache shares nothing with the files of a user, artefacts are read-only, exports are the user's,
//! and a file that becomes shorter while it is read ends in a message.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Sandbox, expect_code, root};
use crate::small_unets;
use laptop_diff::base::copies;

/// Every way that files go from one artefact to the next, on the small model and on a single file of it.
const STAGES: &str = "\
format: 1
name: small
stages:
  - { id: teacher, use: load, with: { model: model } }
  - { id: file, use: load, with: { model: model.safetensors, tokenizer: model/tokenizer } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: prompts.txt, samples: 2, drawing: { steps: 2, guidance-scale: 1 }, points-per-trajectory: 2 } }
  - { id: data, use: encode, with: { model: teacher, prompts: prompts.txt, drawing: { steps: 2, guidance-scale: 1 } } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.3 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: retrained, use: distill, with: { teacher: teacher, student: student, data: data, training: { steps: 2, batch-size: 2, normalisation-batches: 1 } } }
  - { id: again, use: distill, with: { teacher: teacher, student: retrained, data: points, training: { steps: 1, batch-size: 2, normalisation-batches: 1 } } }
  - id: result
    use: evaluate
    with: { models: { teacher: teacher, retrained: retrained }, metrics: [output-loss, latency], points: points, prompts: prompts.txt, pictures: 1, drawing: { steps: 2, guidance-scale: 1 } }
  - { id: folder, use: export, with: { model: retrained, to: diffusers } }
";

/// A copy of the small model with prompts beside it.
fn model(sandbox: &Sandbox) -> PathBuf {
    let (nano, model) = (root().join("examples/nano-sd"), sandbox.path("model"));
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        copies::transfer_tree(&nano.join(part), &model.join(part), copies::copy).expect("a writable folder");
    }
    copies::copy(&nano.join("model_index.json"), &model.join("model_index.json")).expect("as above");
    sandbox.write("prompts.txt", "a red circle\na small blue star\n");
    model
}

/// `model.safetensors` in the original layout, which nano-sd does not fit.
fn single_file(sandbox: &Sandbox) {
    let (_, mut config) = small_unets::families().swap_remove(0);
    config["sample_size"] = 16.into();
    config["cross_attention_dim"] = 64.into();
    let (nano, small) = (root().join("examples/nano-sd"), sandbox.path("small"));
    small_unets::save(&config, 1, &small.join("unet")).expect("a writable folder");
    for part in ["text_encoder", "tokenizer", "scheduler"] {
        copies::transfer_tree(&nano.join(part), &small.join(part), copies::copy).expect("a writable folder");
    }
    let output = ["--output", "model.safetensors", "--allow-unrecognised"];
    expect_code(&sandbox.run(&[&["export", "small", "--to", "comfyui"], &output[..]].concat()), 0);
}

/// Every file below a folder, with its inode; links are not followed.
fn inodes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let metadata = entry.metadata().expect("it is there");
        if metadata.is_dir() {
            found.extend(inodes(&entry.path()));
        } else if metadata.is_file() {
            found.insert(entry.path(), metadata.ino());
        }
    }
    found
}

fn is_read_only(path: &Path) -> bool {
    fs::metadata(path).expect("it is there").permissions().readonly()
}

#[test]
fn nothing_of_a_run_shares_an_inode_with_an_input_and_artefacts_are_read_only() {
    let sandbox = Sandbox::new();
    let model = model(&sandbox);
    single_file(&sandbox);
    let mut inputs = inodes(&model);
    inputs.insert(
        "model.safetensors".into(),
        fs::metadata(sandbox.path("model.safetensors")).expect("it is there").ino(),
    );
    let before: Vec<_> =
        inputs.keys().map(|path| fs::read(sandbox.path("").join(path)).expect("readable")).collect();
    let file = sandbox.write("small.yaml", STAGES);
    expect_code(&sandbox.run(&["run", &file.to_string_lossy()]), 0);

    let (cache, runs) = (inodes(&sandbox.path("cache")), inodes(&sandbox.path("runs")));
    let theirs: Vec<_> = inputs.values().collect();
    for (path, inode) in cache.iter().chain(&runs) {
        assert!(!theirs.contains(&inode), "{} is a file of the user", path.display());
    }
    let artefacts = sandbox.path("cache/v1/artefacts");
    let committed: Vec<_> = cache.keys().filter(|path| path.starts_with(&artefacts)).collect();
    assert!(committed.len() > 40, "{}", committed.len());
    for path in &committed {
        assert!(is_read_only(path), "{} can be written", path.display());
    }
    let states = |output: &std::process::Output| {
        expect_code(output, 0);
        let record = fs::read(sandbox.path("runs/small/run.json")).expect("a record");
        let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        let stages = record["stages"].as_array().expect("stages").clone();
        stages.iter().map(|stage| stage["state"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    let run = || sandbox.run(&["run", &file.to_string_lossy()]);
    assert!(
        states(&run()).iter().all(|state| state == "cached"),
        "no stage wrote to the artefact of another"
    );
    // What the stage `export` hands out is shared with no other artefact either: users take it away.
    let exported = inodes(&fs::canonicalize(sandbox.path("runs/small/folder")).expect("a link"));
    assert!(exported.len() > 8);
    for (path, inode) in &exported {
        assert_eq!(cache.values().filter(|other| *other == inode).count(), 1, "{}", path.display());
    }

    // As root or after `chmod`, an edit changes the artefact and nothing of the user; the artefact is made again.
    let edited = fs::canonicalize(sandbox.path("runs/small/retrained/scheduler/scheduler_config.json"));
    let edited = edited.expect("it is there");
    fs::remove_file(&edited).expect("folders are writable");
    fs::write(&edited, "{}").expect("as above");
    let after: Vec<_> =
        inputs.keys().map(|path| fs::read(sandbox.path("").join(path)).expect("readable")).collect();
    assert!(before == after);
    let output = run();
    assert_eq!(states(&output).iter().filter(|state| *state == "done").count(), 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"), "it is said");
    assert!(fs::metadata(&edited).expect("made again").len() > 2);
}

#[test]
fn an_export_from_the_cache_belongs_to_the_user() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let text = STAGES.lines().take(4).collect::<Vec<_>>().join("\n");
    expect_code(&sandbox.run(&["run", &sandbox.write("small.yaml", &text).to_string_lossy()]), 0);
    expect_code(&sandbox.run(&["export", "runs/small/teacher", "--to", "diffusers", "--output", "mine"]), 0);
    let (mine, cache) = (inodes(&sandbox.path("mine")), inodes(&sandbox.path("cache")));
    assert!(mine.len() > 8);
    let plain = fs::metadata(sandbox.write("plain", "")).expect("it is there").permissions();
    for (path, inode) in &mine {
        assert!(!cache.values().any(|other| other == inode), "{}", path.display());
        assert_eq!(fs::metadata(path).expect("it is there").permissions(), plain, "{}", path.display());
    }
}

/// Waits for something that another process does.
fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_killed_export_leaves_nothing_under_its_name() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let arguments = ["export", "model", "--to", "diffusers", "--output", "mine"];
    let mut child = sandbox.start(&arguments);
    let begun = sandbox.path(".mine.unfinished/mine/unet");
    wait_until("the export", || begun.exists());
    child.kill().expect("SIGKILL is allowed");
    child.wait().expect("a child to wait for");
    assert!(!sandbox.path("mine").exists());
    assert!(sandbox.path(".mine.unfinished").exists(), "it was killed before its end");
    expect_code(&sandbox.run(&arguments), 0);
    assert!(sandbox.path("mine/unet/diffusion_pytorch_model.safetensors").exists());
    assert!(!sandbox.path(".mine.unfinished").exists());
}

#[test]
fn a_model_that_is_cut_short_while_it_is_read_ends_the_program_with_its_path() {
    let sandbox = Sandbox::new();
    let weights = model(&sandbox).join("unet/diffusion_pytorch_model.safetensors");
    // With this memory, weights are read again for each step.
    let arguments = [
        "generate",
        "model",
        "--prompt",
        "a red circle",
        "--steps",
        "400",
        "--memory",
        "1MB",
        "--output",
        "out",
    ];
    let mut command = sandbox.command(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let maps = format!("/proc/{}/maps", child.id());
    let is_mapped =
        || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("unet/diffusion_pytorch_model"));
    wait_until("the mapping", is_mapped);
    File::options().write(true).open(&weights).and_then(|file| file.set_len(0)).expect("writable");
    let mut text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("UTF-8");
    let status = child.wait().expect("a child to wait for");
    assert_eq!(status.code(), Some(4), "{status}: {text}");
    for word in ["model/unet/diffusion_pytorch_model.safetensors", "became shorter", "help:"] {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn verification_names_what_is_damaged_and_has_an_exit_code() {
    let sandbox = Sandbox::new();
    model(&sandbox);
    let file = sandbox.write("small.yaml", &STAGES.lines().take(4).collect::<Vec<_>>().join("\n"));
    let run = || sandbox.run(&["run", &file.to_string_lossy()]);
    let verify = |options: &[&str]| sandbox.run(&[&["cache", "verify"], options].concat());
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let empty = verify(&[]);
    expect_code(&empty, 0);
    assert_eq!(text(&empty), "0 entries, 0 artefacts, 0 B: no damage\n");
    assert!(!sandbox.path("cache").exists(), "it writes nothing");

    expect_code(&run(), 0);
    let whole = verify(&["--json"]);
    expect_code(&whole, 0);
    let found: serde_json::Value = serde_json::from_slice(&whole.stdout).expect("JSON");
    assert_eq!((&found["entries"], &found["artefacts"]), (&1.into(), &1.into()));
    assert_eq!(found["damaged"].as_array().map(Vec::len), Some(0));

    let damaged = fs::canonicalize(sandbox.path("runs/small/teacher/vae/config.json")).expect("a file");
    let mut bytes = fs::read(&damaged).expect("readable");
    bytes[3] ^= 1;
    fs::remove_file(&damaged).and_then(|()| fs::write(&damaged, bytes)).expect("folders are writable");
    let output = verify(&[]);
    expect_code(&output, 4);
    assert!(text(&output).contains("vae/config.json is damaged"), "{}", text(&output));
    assert!(text(&output).ends_with(": 1 damaged\n"), "{}", text(&output));
    expect_code(&run(), 0);
    expect_code(&verify(&[]), 0);
}
