//! Of a file or folder enters the key what is read of it, and nothing else: a stage does not run again because of a
//! README, another line ending, or a prompt that is not drawn.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use laptop_diff::backend::DeviceClass;
use laptop_diff::base::Digest;
use laptop_diff::cache::Store;
use laptop_diff::config::PipelineFile;
use laptop_diff::model::ScorerFolders;
use laptop_diff::model::clip::scorer_files;
use laptop_diff::plan::ResolvedPipeline;

use crate::common::root;

/// A stage that reads files, the file that a change writes, and what it writes.
type Change<'a> = (&'a str, &'a str, &'a [u8]);

struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// Small files of every kind that a stage reads.
    fn new() -> Self {
        let sandbox = Self(tempfile::tempdir().expect("a temporary folder"));
        let nano = root().join("examples/nano-sd");
        copy(&nano.join("scorer"), &sandbox.path("scorer"));
        copy(&nano.join("tokenizer"), &sandbox.path("tokenizer"));
        for (name, text) in [
            ("model/model_index.json", "{ \"unet\": [], \"vae\": [] }"),
            ("model/unet/config.json", "{}"),
            ("model/unet/diffusion_pytorch_model.safetensors", "weights"),
            ("model/vae/config.json", "{}"),
            ("single.safetensors", "weights"),
            ("prompts.txt", "a red circle\n a blue square \n\na star\n"),
            ("captions.txt", "a red circle\na ring\n"),
            ("pictures/a.png", "one"),
            ("pictures/a.txt", "a red\r\ncircle\n"),
            ("pictures/b.JPG", "two"),
            ("pictures/b.txt", "a star"),
            ("tars/0.tar", "archive"),
            ("tars/1.tar", "archive"),
        ] {
            sandbox.write(name, text.as_bytes());
        }
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("writable");
        fs::write(path, bytes).expect("writable");
    }

    /// The key of each stage.
    fn keys(&self) -> BTreeMap<String, Digest> {
        let text = "\
format: 1
name: files
stages:
  - { id: folder, use: load, with: { model: model } }
  - { id: single, use: load, with: { model: single.safetensors, tokenizer: tokenizer } }
  - { id: points, use: calibrate, with: { model: folder, prompts: prompts.txt, samples: 4, points-per-trajectory: 2 } }
  - { id: shots, use: calibrate, with: { model: folder, pictures: pictures } }
  - { id: archives, use: encode, with: { model: folder, webdataset: 'tars/{0..0}.tar' } }
  - { id: some, use: encode, with: { model: folder, prompts: prompts.txt, samples: 2 } }
  - { id: all, use: encode, with: { model: folder, prompts: prompts.txt } }
  - id: scores
    use: score
    with:
      { model: folder, calibration: points, criteria: [delta-clip],
        delta-clip: { scorer: scorer, prompts: prompts.txt, pictures: 2 } }
  - id: result
    use: evaluate
    with:
      { models: { teacher: folder }, metrics: [attribute-accuracy], prompts: prompts.txt, pictures: 2,
        scorer: scorer, captions: captions.txt, attributes: { shape: [circle, square] } }
  - id: bare
    use: evaluate
    with: { models: { teacher: folder }, metrics: [macs], prompts: prompts.txt, pictures: 2, scorer: scorer }
";
        let file = PipelineFile::parse(&self.path("files.yaml"), text, &[]).expect("it is right");
        let pipeline = ResolvedPipeline::new(file).expect("it can be resolved");
        let store = Store::open(&self.path("cache")).expect("a cache");
        let key = |(index, planned): (usize, &laptop_diff::plan::PlannedStage)| {
            let files = pipeline.files(index).expect("the files are there");
            let manifest = pipeline.manifest(index, DeviceClass::Cpu, &BTreeMap::new(), &files, &store);
            (planned.id.to_string(), manifest.expect("the files can be read").key())
        };
        pipeline.stages.iter().enumerate().map(key).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("readable");
    }
}

/// The stages whose keys a change of one file changes.
fn changed(name: &str, bytes: &[u8]) -> Vec<String> {
    let sandbox = Sandbox::new();
    let before = sandbox.keys();
    sandbox.write(name, bytes);
    let after = sandbox.keys();
    before.into_iter().filter(|(id, key)| after[id] != *key).map(|(id, _)| id).collect()
}

#[test]
fn what_is_not_read_enters_no_key() {
    let changes: &[Change<'_>] = &[
        ("a README", "scorer/README.md", b"x"),
        ("a hidden file", "scorer/.model.safetensors", b"x"),
        ("weights for another program", "scorer/pytorch_model.bin", b"x"),
        ("a folder", "scorer/onnx/model.onnx", b"x"),
        ("a README", "tokenizer/README.md", b"x"),
        ("a README", "model/README.md", b"x"),
        ("a checkpoint beside the parts", "model/v1-5.safetensors", b"x"),
        ("another precision", "model/unet/diffusion_pytorch_model.fp16.safetensors", b"x"),
        ("line endings", "captions.txt", b"\xef\xbb\xbfa red circle\r\n\r\n  a ring"),
        ("a hidden picture", "pictures/.c.png", b"x"),
        ("a Mac's second half of a picture", "pictures/._a.png", b"x"),
        ("a folder like a picture", "pictures/c.png/readme.md", b"x"),
        ("a pickle", "pictures/a.pt", b"x"),
        ("line ends in a caption", "pictures/a.txt", b"a red\n\ncircle"),
        ("a preview", "pictures/Thumbs.db", b"x"),
        ("an archive that is not named", "tars/1.tar", b"x"),
        ("the index of an archive", "tars/0.parquet", b"x"),
        ("a text without a picture", "pictures/c.txt", b"x"),
        ("the end of a caption", "pictures/b.txt", b"a star\r\n"),
    ];
    for (what, name, bytes) in changes {
        assert_eq!(changed(name, bytes), [""; 0], "{what}: {name}");
    }
    let line = changed("prompts.txt", b"a red circle\r\na blue square\r\na moon");
    assert_eq!(line, ["all"], "a prompt that only one stage draws");
    let more = changed("prompts.txt", b"a red circle\na blue square\na star\na moon");
    assert_eq!(more, ["all"], "a prompt more");
}

#[test]
fn what_is_read_enters_the_keys_of_its_readers() {
    let scoring: &[&str] = &["result", "scores"];
    let changes: &[(&str, &[u8], &[&str])] = &[
        ("scorer/model.safetensors", b"x", scoring),
        ("scorer/merges.txt", b"x", scoring),
        ("scorer/tokenizer.json", b"x", scoring),
        ("scorer/preprocessor_config.json", b"{}", scoring),
        ("tokenizer/merges.txt", b"x", &["single"]),
        ("model/unet/config.json", b"{ }", &["folder"]),
        ("model/unet/diffusion_pytorch_model.safetensors", b"x", &["folder"]),
        ("single.safetensors", b"x", &["single"]),
        ("captions.txt", b"a red circle", &["result"]),
        ("pictures/a.png", b"x", &["shots"]),
        ("pictures/a.txt", b"a red ring", &["shots"]),
        ("tars/0.tar", b"x", &["archives"]),
        (
            "prompts.txt",
            b"a red circle\na blue ring\na star",
            &["all", "bare", "points", "result", "scores", "some"],
        ),
    ];
    for (name, bytes, readers) in changes {
        assert_eq!(changed(name, bytes), *readers, "{name}");
    }
}

#[test]
fn a_scorer_needs_no_file_that_is_not_in_its_key() -> Result<(), Box<dyn std::error::Error>> {
    let (scorer, copied) = (root().join("examples/nano-sd/scorer"), tempfile::tempdir()?);
    for name in scorer_files(&scorer)? {
        fs::copy(scorer.join(&name), copied.path().join(&name))?;
    }
    ScorerFolders::one(copied.path()).load(DType::F32, &Device::Cpu)?;
    Ok(())
}
