//! A new metric and a new criterion are one file, one `mod` line and one row each, as CONTRIBUTING says: both are added to
//! a copy of the source, which must build, list them, and take the criterion's parameter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::source::{files, root};

/// The build reuses the dependencies of this test. Only our own code is built anew, without optimisation.
const MANIFEST: &str = "
[workspace]

[[bin]]
name = \"extended\"
path = \"src/main.rs\"

[profile.release.package.laptop-diff]
opt-level = 0
debug = false
";

#[test]
#[ignore = "needs a build of its own"]
fn a_metric_and_a_criterion_are_one_file_and_one_row() {
    let copy = Copy::new();
    copy.add(
        "metric",
        ["parameters", "Parameters", "parameters"],
        ["weight_count", "WeightCount", "weight-count"],
    );
    copy.add(
        "score",
        ["diff_pruning", "DiffPruning", "diff-pruning"],
        ["new_pruning", "NewPruning", "new-pruning"],
    );
    copy.build();

    let list = copy.run(&["list"]);
    for name in ["weight-count", "new-pruning"] {
        assert!(list.contains(&format!("\n  {name} ")), "{name} is not in {list}");
    }
    assert!(
        copy.run(&["schema", "pipeline"]).contains("\"new-pruning\": {"),
        "its parameters are in the schema"
    );
    copy.expect_plan("threshold: 0.05", 0, "\"result\"");
    copy.expect_plan("treshold: 0.05", 3, "did you mean `threshold`");
}

/// A copy of the source with a program called `extended`.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    /// Copies the source into the folder for temporary files under `target`: a fixed place, so that cargo replaces what an
    /// earlier copy built.
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("extended");
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("the copy is ours");
        }
        copy_all(&root().join("src"), &folder.join("src"));
        fs::create_dir(folder.join("tests")).expect("a new folder");
        // `cargo test` builds dependencies with the features that the tests ask for, and so can reuse what is there.
        fs::write(folder.join("tests/program.rs"), "//! Needs the program.\n").expect("writable");
        fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
        let (before, rest) = manifest.split_once("[[bench]]").expect("benchmarks");
        let (_, features) = rest.split_once("[features]").expect("features after the benchmarks");
        let manifest = format!("{before}[features]{features}{MANIFEST}");
        let manifest = manifest.replace("default-run = \"laptop-diff\"\n", "");
        fs::write(folder.join("Cargo.toml"), manifest).expect("writable");
        Self { folder }
    }

    /// Copies the file of a row under another name and repeats its `mod` line and its row. Names are those of the file, of
    /// the type and in pipelines.
    fn add(&self, room: &str, old: [&str; 3], new: [&str; 3]) {
        let renamed = |text: &str| text.replace(old[0], new[0]).replace(old[1], new[1]);
        let room = self.folder.join("src").join(room);
        let file = files(&room).into_iter().find(|file| file.file_stem().is_some_and(|stem| stem == old[0]));
        let file = file.expect("the file of the row");
        let text = fs::read_to_string(&file).expect("source");
        let text = text.replace(old[1], new[1]).replace(&format!("\"{}", old[2]), &format!("\"{}", new[2]));
        fs::write(file.with_file_name(new[0]).with_extension("rs"), text).expect("writable");
        let (declared, row) = (format!("mod {};", old[0]), format!("{}::{},", old[0], old[1]));
        let mut repeated = 0;
        for file in files(&room) {
            let text = fs::read_to_string(&file).expect("source");
            let mut changed = String::new();
            for line in text.lines() {
                changed += &format!("{line}\n");
                if line.ends_with(&declared) || line.trim_start_matches([' ', '&']) == row {
                    changed += &format!("{}\n", renamed(line));
                    repeated += 1;
                }
            }
            fs::write(&file, changed).expect("writable");
        }
        assert_eq!(repeated, 2, "one `{declared}` and one row `{row}`");
    }

    fn target() -> &'static Path {
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder")
    }

    fn build(&self) {
        let mut command = Command::new(env!("CARGO"));
        let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        command.args(["test", "--no-run", "--quiet", "--test", "program"]).args(profile);
        command.current_dir(&self.folder).env("CARGO_TARGET_DIR", Self::target());
        let output = command.output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let mut command = Command::new(Self::target().join(profile).join("extended"));
        let places =
            [("LAPTOP_DIFF_CACHE", "cache"), ("LAPTOP_DIFF_RUNS", "runs"), ("LAPTOP_DIFF_DEVICE", "cpu")];
        command.args(arguments).current_dir(&self.folder).envs(places).output().expect("the program starts")
    }

    /// What a command prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the program prints UTF-8")
    }

    /// Plans a pipeline that uses both, with a parameter of the criterion.
    fn expect_plan(&self, parameter: &str, code: i32, words: &str) {
        let nano = root().join("examples/nano-sd");
        let nano = nano.display();
        let text = format!(
            "format: 1\nname: extended\nstages:\n\
             - {{ id: teacher, use: load, with: {{ model: '{nano}' }} }}\n\
             - {{ id: points, use: calibrate, with: {{ model: teacher, prompts: '{nano}/prompts/evaluation.txt' }} }}\n\
             - id: scores\n  use: score\n  \
               with: {{ model: teacher, calibration: points, criteria: [new-pruning], new-pruning: {{ {parameter} }} }}\n\
             - id: result\n  use: evaluate\n  with: {{ models: {{ teacher: teacher }}, \
             prompts: '{nano}/prompts/evaluation.txt', metrics: [weight-count] }}\n"
        );
        fs::write(self.folder.join("extended.yaml"), text).expect("writable");
        let output = self.command(&["plan", "extended.yaml", "--json"]);
        let text =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.code() == Some(code) && text.contains(words), "{parameter}: {text}");
    }
}

/// Copies a folder with everything in it.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable folder");
    for entry in fs::read_dir(from).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let copy = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_all(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("a file to copy");
        }
    }
}
