//! Several processes that train together: they agree with one process, stop together, survive each other, and ignore strangers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, safetensors};
use laptop_diff::distill::history::{self, HistoryLine};
use laptop_diff::distill::validation;
use serde_json::Value;

use crate::common::{Sandbox, expect, expect_code};

const PIPELINE: &str = r#"
format: 1
name: together
seed: 7
stages:
  - { id: teacher, use: load, with: { model: "{nano}" } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: "{nano}/prompts/calibration.txt", samples: 4, drawing: { steps: 1, guidance-scale: 1, batch: 4, size: 16x16 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.6 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: words, use: encode-texts, with: { model: teacher, prompts: "{nano}/prompts/training.txt", samples: 5 } }
  - id: retrained
    use: distill
    with:
      teacher: teacher
      student: student
      data: points
      texts: words
      training: { steps: 8, batch-size: 2, normalisation-batches: 1, gradient-norms-every: 4, random-conditioning-lambda: 0.5 }
"#;

/// A sandbox in which everything before the training is done.
fn prepared() -> (Sandbox, String) {
    static BEFORE: LazyLock<Sandbox> = LazyLock::new(|| {
        let sandbox = Sandbox::new();
        let file = sandbox.write("together.yaml", PIPELINE);
        expect_code(&sandbox.run(&["run", &file.to_string_lossy(), "--until", "student"]), 0);
        sandbox
    });
    let sandbox = Sandbox::new();
    copy(&BEFORE.path("cache"), &sandbox.path("cache"));
    let file = sandbox.write("together.yaml", PIPELINE);
    (sandbox, file.to_string_lossy().into_owned())
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().expect("cp is there");
    assert!(status.success());
}

/// What two processes train without a disturbance.
static TWO: LazyLock<(Sandbox, Vec<(String, String)>)> = LazyLock::new(|| {
    let (sandbox, file) = prepared();
    expect_code(&sandbox.run(&["run", &file, "--ranks", "2"]), 0);
    let digests = sandbox.digests("together");
    (sandbox, digests)
});

fn retrained(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("runs/together/retrained")
}

/// Relative: sums in f32 have another order.
const TOLERANCE: f64 = 1e-5;

/// The trained weights of a run, one after the other, in f64.
fn weights(model: &Path) -> Vec<f64> {
    let file = model.join("unet/diffusion_pytorch_model.safetensors");
    let tensors = safetensors::load(file, &Device::Cpu).expect("the weights are there");
    let sorted: BTreeMap<_, _> = tensors.into_iter().collect();
    let numbers = |tensor: Tensor| tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>();
    sorted.into_values().flat_map(|tensor| numbers(tensor).expect("numbers")).collect()
}

/// Fails unless two trainings agree but for rounding: the weights, which moved much farther, and each line.
fn agree(one: &Sandbox, other: &Sandbox, steps: usize) {
    let [expected, found, before] =
        [retrained(one), retrained(other), one.path("runs/together/student")].map(|model| weights(&model));
    let distance = |other: &[f64]| {
        assert_eq!(expected.len(), other.len());
        expected.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let length = expected.iter().map(|number| number * number).sum::<f64>().sqrt();
    let (off, moved) = (distance(&found), distance(&before));
    assert!(off <= TOLERANCE * length && 10.0 * off < moved, "off by {off} of {length}, moved by {moved}");
    let lines = |sandbox| history::read(&retrained(sandbox).join("losses.jsonl")).expect("a history");
    let (expected, found) = (lines(one), lines(other));
    assert_eq!(expected.len(), steps);
    assert_eq!(found.len(), steps);
    for (expected, found) in expected.iter().zip(&found) {
        let numbers = |line: &HistoryLine| {
            let norms = line.gradient_norms.map(|norms| [norms.task, norms.output, norms.features]);
            let terms = [line.task, line.output, line.total, line.gradient_norm];
            let features = line.features.values().map(|feature| feature.weighted);
            terms.into_iter().chain(norms.into_iter().flatten()).chain(features).collect::<Vec<f32>>()
        };
        close(&numbers(found), &numbers(expected));
    }
}

/// Fails unless all numbers agree but for rounding.
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (one, other) in found.iter().zip(expected) {
        // What is nearly zero is a difference of nearly equal numbers.
        let (off, size) = (f64::from((one - other).abs()), f64::from(other.abs()).max(1e-3));
        assert!(off <= TOLERANCE * size, "{found:?} is not {expected:?}");
    }
}

#[test]
fn two_ranks_train_as_one_with_the_whole_batch() {
    let (one, file) = prepared();
    expect_code(&one.run(&["run", &file]), 0);
    agree(&one, &TWO.0, 8);

    // The number of ranks enters no key.
    let again = one.run(&["run", &file, "--ranks", "2", "--json"]);
    expect_code(&again, 0);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    let done = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = done.map(|line| line["event"].clone()).find(|event| event["type"] == "run-done");
    assert!(done.is_some_and(|event| event["ran"] == 0 && event["cached"] == 7), "{text}");
}

/// A run of two ranks whose events are read.
struct Run {
    child: Child,
    events: Box<dyn Iterator<Item = Value>>,
}

impl Run {
    fn start(sandbox: &Sandbox, file: &str) -> Self {
        Self::start_with(sandbox, file, &[])
    }

    fn start_with(sandbox: &Sandbox, file: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = sandbox.command(&["run", file, "--ranks", "2", "--json"]);
        command.envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let events = lines
            .map_while(Result::ok)
            .map(|line| serde_json::from_str::<Value>(&line).expect("each line is JSON")["event"].clone());
        Self { child, events: Box::new(events) }
    }

    /// Waits until so many steps are done; says whether the training was resumed.
    fn until(&mut self, steps: u64) -> bool {
        let mut resumed = false;
        for event in &mut self.events {
            resumed |= event["type"] == "stage-resumed";
            if event["type"] == "stage-progress"
                && event["unit"] == "steps"
                && event["done"].as_u64() >= Some(steps)
            {
                return resumed;
            }
        }
        panic!("the run ended before step {steps}: {:?}", self.child.wait_with_stderr());
    }

    /// The process of rank 1.
    fn second(&self) -> i32 {
        let id = self.child.id();
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("Linux says so");
        text.split_whitespace().next().expect("rank 0 has a child").parse().expect("a number")
    }

    fn signal(process: i32, signal: i32) {
        // SAFETY: the process is a child of this test's child, which has not waited for it yet.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// The end of the run, and how long it took from now.
    fn end(mut self) -> (Output, Duration) {
        let begun = Instant::now();
        self.events.by_ref().for_each(drop);
        (self.child.wait_with_output().expect("it was started"), begun.elapsed())
    }
}

trait Stderr {
    fn wait_with_stderr(&mut self) -> String;
}

impl Stderr for Child {
    fn wait_with_stderr(&mut self) -> String {
        let mut text = String::new();
        let _ = self.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
        text
    }
}

#[test]
fn all_ranks_stop_at_one_step_survive_a_killed_one_and_end_with_the_same_bytes() {
    let (sandbox, file) = prepared();
    // The wish of one rank stops both.
    let mut run = Run::start(&sandbox, &file);
    assert!(!run.until(1));
    Run::signal(run.second(), libc::SIGTERM);
    let (output, took) = run.end();
    expect_code(&output, 130);
    assert!(took < Duration::from_secs(60), "{took:?}");

    // A rank is killed after the training was resumed.
    let mut run = Run::start(&sandbox, &file);
    assert!(run.until(3), "the checkpoint of all ranks was there");
    Run::signal(run.second(), libc::SIGKILL);
    let (output, took) = run.end();
    expect(&output, 6, &["stage `retrained` failed", "rank 1 on", "is gone", "run the same command again"]);
    assert!(took < Duration::from_secs(60), "{took:?}");

    let mut run = Run::start(&sandbox, &file);
    assert!(run.until(3), "the checkpoint from before is still there");
    let (output, _) = run.end();
    expect_code(&output, 0);
    assert_eq!(sandbox.digests("together"), TWO.1);
}

#[test]
fn a_training_of_two_ranks_is_watched_like_one_and_goes_on_with_one() {
    let validated = PIPELINE.replace(
        "training: { steps: 8,",
        "training: { steps: 8, validation: { every: 4, rows: 2, prompts: [a star], steps: 1, guidance-scale: 1 },",
    );
    let [one, other] = [(); 2].map(|()| {
        let (sandbox, _) = prepared();
        sandbox.write("together.yaml", &validated);
        sandbox
    });
    let file = other.path("together.yaml").to_string_lossy().into_owned();
    expect_code(&one.run(&["run", &one.path("together.yaml").to_string_lossy()]), 0);
    let mut run = Run::start_with(&other, &file, &[("LAPTOP_DIFF_TENSORBOARD", "true")]);
    assert!(!run.until(4));
    Run::signal(run.second(), libc::SIGTERM);
    expect_code(&run.end().0, 130);
    expect(&other.run(&["run", &file]), 0, &["resum"]);
    agree(&one, &other, 8);
    let validated = |sandbox| -> Vec<f32> {
        let lines = validation::read(&retrained(sandbox)).expect("a history");
        lines.iter().flat_map(|line| [line.step as f32, line.task, line.output, line.total]).collect()
    };
    assert_eq!(validated(&one).len(), 3 * 4);
    close(&validated(&other), &validated(&one));
    let events = fs::read_dir(other.path("runs/together/tensorboard/retrained")).expect("event files");
    assert_eq!(events.count(), 1, "one of the ranks writes");
}

#[test]
fn a_batch_that_cannot_be_divided_is_refused_with_its_values() {
    let (sandbox, file) = prepared();
    let output = sandbox.run(&["run", &file, "--ranks", "3"]);
    expect(&output, 3, &["`batch-size` is 2; 3 ranks need a multiple of 3", "training.batch-size"]);
}

/// A process as a launcher would start it.
fn launched(sandbox: &Sandbox, arguments: &[&str], rank: usize, port: u16) -> Command {
    let mut command = sandbox.command(arguments);
    command
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".to_owned())])
        .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn ranks_of_a_launcher_find_each_other_among_strangers_and_end_alike() {
    let (sandbox, file) = prepared();
    for (arguments, code) in [(vec!["run", &file, "--until", "student"], 0), (vec!["run", "absent.yaml"], 3)]
    {
        let port = free_port();
        let first = launched(&sandbox, &arguments, 0, port).spawn().expect("it starts");
        let mut stranger = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        let _silent = TcpStream::connect(("127.0.0.1", port));
        let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let second = launched(&sandbox, &arguments, 1, port).output().expect("it starts");
        expect_code(&first.wait_with_output().expect("it was started"), code);
        expect_code(&second, code);
        assert!(second.stdout.is_empty() && second.stderr.is_empty(), "{second:?}");
    }
    let left =
        fs::read_dir(sandbox.path("runs")).expect("a folder").map(|entry| entry.expect("one").file_name());
    assert!(!left.map(|name| name.to_string_lossy().into_owned()).any(|name| name.starts_with(".ranks-")));
}

#[test]
fn two_numbers_of_ranks_are_refused() {
    let sandbox = Sandbox::new();
    let mut command = launched(&sandbox, &["run", "p.yaml", "--ranks", "3"], 0, 1);
    let output = command.output().expect("it starts");
    expect(&output, 2, &["`--ranks 3` was given, but torchrun started 2 processes"]);
}

/// The program with `arguments`, started by a launcher.
fn under(launcher: &[&str], sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let plain = sandbox.command(arguments);
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(sandbox.path(".")).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs Open MPI's mpirun"]
fn mpirun_starts_ranks_that_find_each_other() {
    let (sandbox, file) = prepared();
    let mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"];
    expect_code(&under(&mpirun, &sandbox, &["run", &file]).output().expect("mpirun is there"), 0);
    assert_eq!(sandbox.digests("together"), TWO.1);
}

#[test]
#[ignore = "needs a Slurm cluster with two nodes"]
fn two_nodes_of_slurm_stop_at_a_signal_and_end_with_the_bytes_of_two_ranks_here() {
    let (sandbox, file) = prepared();
    let srun = ["srun", "--nodes=2", "--ntasks=2", "--job-name=laptop-diff-ranks"];
    let mut command = under(&srun, &sandbox, &["run", &file, "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("srun is there");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let is_second_step = |line: &String| line.contains("\"done\":2,") && line.contains("\"steps\"");
    assert!(lines.map_while(Result::ok).any(|line| is_second_step(&line)), "two steps are done");
    let cancel = ["--signal=TERM", "--name=laptop-diff-ranks"];
    assert!(Command::new("scancel").args(cancel).status().expect("Slurm is there").success());
    assert_eq!(child.wait().expect("it was started").code(), Some(130));
    let output = under(&srun, &sandbox, &["run", &file]).output().expect("srun is there");
    expect(&output, 0, &["resum"]);
    assert_eq!(sandbox.digests("together"), TWO.1);
}
