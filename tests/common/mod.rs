//! A sandbox for tests that run the real program: a folder of its own, no settings from outside.

#![cfg_attr(
    test,
    allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part of this module")
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with a cache, a runs folder and pipeline files.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; `{nano}` becomes the small model's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a writable folder");
        let nano = root().join("examples/nano-sd");
        fs::write(&path, text.replace("{nano}", &nano.to_string_lossy())).expect("a writable file");
        path
    }

    /// The program with `arguments`, in the sandbox, with nothing of the user's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laptop-diff"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LAPTOP_DIFF_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("LAPTOP_DIFF_CACHE", self.path("cache"))
            .env("LAPTOP_DIFF_RUNS", self.path("runs"))
            .env("LAPTOP_DIFF_DEVICE", "cpu")
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Starts the program and does not wait.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
    }

    /// The artefact digests of a finished run, by stage id.
    pub(crate) fn digests(&self, name: &str) -> Vec<(String, String)> {
        self.digests_in("runs", name)
    }

    /// The same of a run in another runs folder.
    pub(crate) fn digests_in(&self, runs: &str, name: &str) -> Vec<(String, String)> {
        let text = fs::read(self.path(runs).join(name).join("run.json")).expect("run.json");
        let record: serde_json::Value = serde_json::from_slice(&text).expect("run.json is JSON");
        let stages = record["stages"].as_array().expect("stages");
        let digest = |stage: &serde_json::Value| {
            let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
            (text(&stage["id"]), text(&stage["artefact"]["digest"]))
        };
        stages.iter().map(digest).collect()
    }
}

/// Fails with what the program printed unless it ended with `code`.
#[track_caller]
pub(crate) fn expect_code(output: &Output, code: i32) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}

/// Fails unless the program ended with `code` and stderr holds each of `words`. miette breaks lines and draws a bar before
/// each, so all white space counts as one blank.
#[track_caller]
pub(crate) fn expect(output: &Output, code: i32, words: &[&str]) {
    expect_code(output, code);
    let plain = |text: &str| text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let text = plain(&String::from_utf8_lossy(&output.stderr));
    words.iter().for_each(|word| assert!(text.contains(&plain(word)), "{word:?} is not in {text}"));
}
