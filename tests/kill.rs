//! A run that is killed and started again ends with the same bytes as one that was left alone. Each kill waits for an
//! event of the run, so that it hits a known stage at work.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Sandbox, expect_code};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const PIPELINE: &str = include_str!("pipelines/small.yaml");

/// When a run is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The stage has begun.
    Started,
    /// The first progress of an attempt in this unit, after the beginning and before the end. With the flag, the next
    /// attempt finds a checkpoint.
    Progress(&'static str, bool),
    /// The first progress beyond so many pieces.
    Beyond(u64),
    /// A note of the stage that begins with this text.
    Note(&'static str),
}
use Moment::{Beyond, Note, Progress, Started};

/// In the order of the stages. Stages that take milliseconds are left out: such a kill could hit the next stage.
/// So is the last progress of `result`: its few points may pass within the pause between two events.
const MOMENTS: [(&str, Moment); 12] = [
    ("points", Started),
    ("points", Progress("trajectories", true)),
    ("points", Progress("trajectories", true)),
    ("scores", Started),
    ("scores", Progress("points", true)),
    ("scores", Progress("points", true)),
    ("scores", Note("measuring additivity")),
    ("retrained", Started),
    ("retrained", Progress("steps", false)),
    ("retrained", Note("loss")),
    ("result", Started),
    ("result", Progress("pictures", false)),
];

impl Moment {
    /// Whether an event of a run is this moment in `stage`.
    fn is(self, stage: &str, event: &Value) -> bool {
        let is_type = |name: &str| event["type"] == name;
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        event["stage"] == stage
            && match self {
                Started => is_type("stage-started"),
                Progress(unit, _) => {
                    is_type("stage-progress")
                        && text("unit") == unit
                        && event["done"].as_u64() > Some(0)
                        && event["done"].as_u64() < event["total"].as_u64()
                }
                Beyond(done) => {
                    is_type("stage-progress")
                        && event["done"].as_u64() > Some(done)
                        && event["done"].as_u64() < event["total"].as_u64()
                }
                Note(start) => is_type("stage-note") && text("text").starts_with(start),
            }
    }
}

/// Starts the run and kills it `pause` after a moment; gives whether the stage resumed from a checkpoint.
fn kill_at(sandbox: &Sandbox, file: &str, stage: &str, moment: Moment, pause: Duration) -> bool {
    let mut command = sandbox.command(&["run", file, "--json"]);
    command.env("LAPTOP_DIFF_CHECKPOINT_EVERY_STEPS", "2");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut resumed = false;
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let events = lines.map(|line| -> Value {
        serde_json::from_str(&line.expect("the program writes text")).expect("each line is JSON")
    });
    let met = events.map(|line| line["event"].clone()).any(|event| {
        resumed |= event["type"] == "stage-resumed" && event["stage"] == stage;
        moment.is(stage, &event)
    });
    std::thread::sleep(pause);
    child.kill().expect("SIGKILL is allowed");
    let status = child.wait().expect("a child to wait for");
    assert!(met, "the run ended ({status}) without {moment:?} of {stage}");
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{moment:?} of {stage}");
    assert_eq!(running(sandbox), [stage], "{moment:?}");
    resumed
}

/// The stages that were at work when the record of the run was last written.
fn running(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read(sandbox.path("runs/small/run.json")).expect("a record");
    let record: Value = serde_json::from_slice(&text).expect("the record is whole");
    let stages = record["stages"].as_array().expect("stages").iter();
    let running = stages.filter(|stage| stage["state"] == "running");
    running.map(|stage| stage["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_killed_run_resumes_and_ends_with_the_same_bytes() {
    let calm = Sandbox::new();
    let file = calm.write("small.yaml", PIPELINE);
    expect_code(&calm.run(&["run", &file.to_string_lossy()]), 0);

    let stormy = Sandbox::new();
    let file = stormy.write("small.yaml", PIPELINE);
    let file = file.to_string_lossy();
    let mut before = None;
    for (stage, moment) in MOMENTS {
        let resumed = kill_at(&stormy, &file, stage, moment, Duration::ZERO);
        if let Some((last, Progress(_, true))) = before
            && last == stage
        {
            assert!(resumed, "{moment:?} of {stage}: the attempt began at the start of the stage");
        }
        before = Some((stage, moment));
    }
    expect_code(&stormy.run(&["run", &file]), 0);
    assert_eq!(stormy.digests("small"), calm.digests("small"));
}

/// The whole way from archives to a retrained student.
const ARCHIVE: &str = "\
format: 1
name: small
stages:
  - { id: teacher, use: load, with: { model: \"{nano}\" } }
  - { id: latents, use: encode, with: { model: teacher, webdataset: \"{0..1}.tar\", aspect-buckets: true } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: \"{nano}/prompts/calibration.txt\", samples: 4, drawing: { steps: 1, guidance-scale: 1, batch: 4 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude] } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - id: retrained
    use: distill
    with:
      teacher: teacher
      student: student
      data: latents
      training: { steps: 40, batch-size: 2, normalisation-batches: 2 }
";

/// Two archives with pictures of several shapes.
fn write_archives(sandbox: &Sandbox) {
    for archive in 0..2 {
        let mut builder = tar::Builder::new(Vec::new());
        let mut append = |name: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes).expect("memory takes it");
        };
        for index in 0..150_u32 {
            let (width, height) = [(64, 64), (40, 70)][index as usize % 2];
            let colour = |x: u32, y: u32| image::Rgb([(x + index) as u8, (y * 3) as u8, archive as u8]);
            let mut png = std::io::Cursor::new(Vec::new());
            let picture = image::RgbImage::from_fn(width, height, colour);
            picture.write_to(&mut png, image::ImageFormat::Png).expect("memory takes it");
            append(format!("{index:05}.png"), png.get_ref());
            append(format!("{index:05}.txt"), format!("picture {}", index % 7).as_bytes());
        }
        let bytes = builder.into_inner().expect("memory takes it");
        fs::write(sandbox.path(&format!("{archive}.tar")), bytes).expect("writable");
    }
}

/// Twelve moments at which a run of [`ARCHIVE`] is killed: the stage, and how many pictures or steps it has behind it. They
/// end before the stage does, because progress is told now and then only.
fn random_moments(random: &mut impl Rng) -> Vec<(&'static str, u64)> {
    let mut moments = Vec::new();
    for (stage, kills, last) in [("latents", 5, 240), ("retrained", 7, 32)] {
        let mut done: Vec<u64> = (0..kills).map(|_| random.random_range(0..last)).collect();
        done.sort_unstable();
        moments.extend(done.into_iter().map(|done| (stage, done)));
    }
    moments
}

#[test]
fn twelve_kills_at_random_leave_no_trace_in_a_training_on_an_archive() {
    let start = || {
        let sandbox = Sandbox::new();
        write_archives(&sandbox);
        let file = sandbox.write("small.yaml", ARCHIVE);
        (sandbox, file.to_string_lossy().into_owned())
    };
    let (calm, file) = start();
    expect_code(&calm.run(&["run", &file]), 0);
    let (stormy, file) = start();
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let mut before = None;
    for (stage, done) in random_moments(&mut random) {
        // Some time after the event, so that the kill hits anything: a step, or the writing of a checkpoint or shard.
        let pause = Duration::from_micros(random.random_range(0..20_000));
        let resumed = kill_at(&stormy, &file, stage, Beyond(done), pause);
        // A shard has 128 pictures, and a checkpoint is written every second step.
        let kept = if stage == "latents" { 128 } else { 3 };
        if let Some((last, done_before)) = before
            && last == stage
            && done_before >= kept
        {
            assert!(resumed, "after {done_before} in {stage}, the attempt began at the start of the stage");
        }
        before = Some((stage, done));
    }
    expect_code(&stormy.run(&["run", &file]), 0);
    assert_eq!(stormy.digests("small"), calm.digests("small"));
}

const SWEEP: &str = include_str!("pipelines/side-by-side.yaml");

/// How many kills the test of a shared cache makes. `LAPTOP_DIFF_TEST_KILLS=60` is what was asked of it once.
fn kills() -> usize {
    std::env::var("LAPTOP_DIFF_TEST_KILLS").map_or(6, |kills| kills.parse().expect("a number"))
}

/// Starts the sweep with a runs folder of its own. The second of three has two places.
fn start(sandbox: &Sandbox, file: &str, number: usize) -> Child {
    let mut command = sandbox.command(&["run", file, "--jobs", if number == 1 { "2" } else { "1" }]);
    command.env("LAPTOP_DIFF_RUNS", sandbox.path(&format!("runs-{number}")));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

/// How often each key has this event in the logs of all three.
fn count(sandbox: &Sandbox, kind: &str) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for number in 0..3 {
        let log = sandbox.path(&format!("runs-{number}/side-by-side/events.jsonl"));
        let log = fs::read_to_string(log).unwrap_or_default();
        // The last line of a process that was killed may be half.
        for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if event["event"]["type"] == kind {
                *counts.entry(event["event"]["key"].to_string()).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn three_processes_that_share_a_cache_are_killed_at_random() {
    let digests = |sandbox: &Sandbox, runs: &str| {
        let mut digests = sandbox.digests_in(runs, "side-by-side");
        // Times differ from one making to the next.
        digests.retain(|(stage, _)| stage != "times");
        digests
    };
    let calm = Sandbox::new();
    let file = calm.write("sweep.yaml", SWEEP).to_string_lossy().into_owned();
    let begun = Instant::now();
    expect_code(&calm.run(&["run", &file]), 0);
    let whole = begun.elapsed();

    let stormy = Sandbox::new();
    let file = stormy.write("sweep.yaml", SWEEP).to_string_lossy().into_owned();
    let (mut random, kills) = (ChaCha8Rng::seed_from_u64(60), kills());
    let mut children: Vec<_> = (0..3).map(|number| start(&stormy, &file, number)).collect();
    for _ in 0..kills {
        // Some are killed while they begin or wait, most at work.
        std::thread::sleep(whole.mul_f64(random.random_range(0.05..0.6)) / 2);
        let number = random.random_range(0..3);
        // Without effect on one that has finished.
        let _ = children[number].kill();
        children[number].wait().expect("it is ours");
        // It finds nothing to remove that the others need.
        expect_code(&stormy.run(&["cache", "gc", "--all"]), 0);
        children[number] = start(&stormy, &file, number);
    }
    for mut child in children {
        assert_eq!(child.wait().expect("it is ours").code(), Some(0));
    }
    for number in 0..3 {
        assert_eq!(digests(&stormy, &format!("runs-{number}")), digests(&calm, "runs"), "process {number}");
    }
    let done = count(&stormy, "stage-done");
    assert!(done.values().all(|&times| times == 1), "made twice: {done:?}");
    // A kill may hit two stages of the process that has two places.
    let started: usize = count(&stormy, "stage-started").values().sum();
    assert!(started <= done.len() + 2 * kills, "{started} starts of {} stages", done.len());
    // What killed processes held stays until somebody collects.
    expect_code(&stormy.run(&["cache", "gc", "--all"]), 0);
    for place in ["users", "leases"] {
        let names = fs::read_dir(stormy.path("cache/v1").join(place)).expect("a folder").flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| name.starts_with('.')), "left in {place}: {names:?}");
    }
}
