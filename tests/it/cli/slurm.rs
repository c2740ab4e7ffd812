//! `--executor slurm` against commands that stand in for Slurm's: what is submitted, found again, cancelled and recorded.
//! `tests/slurm/run.sh` does it on a real cluster.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{Sandbox, expect, expect_code, root};

const PIPELINE: &str = "\
format: 1
name: sweep
seed: 7
stages:
  - { id: teacher, use: load, with: { model: \"{nano}\" } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: \"{nano}/prompts/calibration.txt\", samples: 4, drawing: { steps: 1, guidance-scale: 1, batch: 1 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude, random], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
sweep:
  selection.ratio: [0.3, 0.5]
";

/// Long enough to be interrupted.
const LONG: &str = "points.samples=100";

/// A sandbox with a stand-in for a cluster.
struct Cluster {
    sandbox: Sandbox,
    file: String,
    /// The address of an MLflow server, or nothing.
    mlflow: String,
}

impl Cluster {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.write("sweep.yaml", PIPELINE).to_string_lossy().into_owned();
        fs::create_dir(sandbox.path("bin")).expect("a folder");
        for name in ["sbatch", "squeue", "scontrol", "scancel", "sacct", "srun", "play"] {
            let link = sandbox.path("bin").join(name);
            symlink(root().join("tests/slurm/stub.sh"), link).expect("a link");
        }
        Self { sandbox, file, mlflow: String::new() }
    }

    fn with_commands(&self, mut command: Command) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.sandbox.path("bin");
        command.env("PATH", format!("{}:{path}", bin.display())).env("STUB", self.sandbox.path("stub"));
        command.env("LAPTOP_DIFF_MLFLOW", &self.mlflow);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.with_commands(self.sandbox.command(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    fn submit(&self, arguments: &[&str]) -> Output {
        self.run(&[&["run", &self.file, "--executor", "slurm"], arguments].concat())
    }

    /// Runs the jobs that may start, with the environment that they were submitted with.
    fn play(&self) {
        let mut play = Command::new(self.sandbox.path("bin").join("play"));
        for (name, value) in self.command(&[]).get_envs() {
            match value {
                Some(value) => play.env(name, value),
                None => play.env_remove(name),
            };
        }
        assert!(play.status().expect("it starts").success());
    }

    /// The states of all jobs, in the order of their numbers.
    fn jobs(&self) -> Vec<String> {
        let mut folders: Vec<PathBuf> = fs::read_dir(self.sandbox.path("stub/jobs"))
            .expect("jobs")
            .map(|entry| entry.expect("a job").path())
            .collect();
        folders.sort();
        folders
            .iter()
            .map(|job| fs::read_to_string(job.join("state")).expect("a state").trim().to_owned())
            .collect()
    }

    fn count(&self, state: &str) -> usize {
        self.jobs().iter().filter(|job| *job == state).count()
    }

    fn record(&self, runs: &str) -> Value {
        let text = fs::read(self.sandbox.path(runs).join("sweep/run.json")).expect("run.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn status(&self) -> String {
        let output = self.run(&["status", "sweep"]);
        expect_code(&output, 0);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn events(&self) -> String {
        fs::read_to_string(self.sandbox.path("runs/sweep/events.jsonl")).expect("a log")
    }
}

/// What must not differ between two records.
fn essence(record: &Value) -> Vec<String> {
    let stages = record["stages"].as_array().expect("stages").iter();
    let stages = stages.map(|stage| {
        let [id, state, key, error] = ["id", "state", "key", "error"].map(|name| stage[name].to_string());
        format!("{id} {state} {key} {} {error} {}", stage["artefact"]["digest"], stage["exit_code"])
    });
    std::iter::once(record["exit_code"].to_string()).chain(stages).collect()
}

#[test]
fn a_sweep_in_jobs_has_the_bytes_and_the_record_of_a_run() {
    let cluster = Cluster::new();
    let local = ["run", &cluster.file, "--runs", "local", "--cache", "local-cache"];
    expect_code(&cluster.sandbox.run(&local), 0);

    let words = ["submitted 4 jobs for 7 stages; cached: 0", "laptop-diff status sweep"];
    expect(&cluster.submit(&[]), 0, &words);
    assert_eq!(cluster.count("PENDING"), 4);
    let again = cluster.submit(&[]);
    expect(&again, 0, &["in the queue already: 3 jobs of this run"]);
    assert_eq!(cluster.jobs().len(), 4, "nothing is submitted twice");
    let waiting = cluster.status();
    assert!(waiting.contains("queued: 0 of 7 stages are made; 4 jobs are in the queue"), "{waiting}");
    assert!(waiting.contains("PENDING (Dependency)"), "{waiting}");
    let runs = cluster.run(&["runs"]);
    assert!(String::from_utf8_lossy(&runs.stdout).contains("submitted"), "{runs:?}");
    expect(&cluster.run(&["clean", "sweep"]), 4, &["cli::run_is_running"]);

    // The file may change meanwhile; what was submitted stands in the run folder.
    cluster.sandbox.write("sweep.yaml", "format: 1\n");
    cluster.play();
    assert_eq!(cluster.count("COMPLETED"), 4, "{:?}", cluster.jobs());
    assert_eq!(essence(&cluster.record("runs")), essence(&cluster.record("local")));
    let report = fs::read_to_string(cluster.sandbox.path("runs/sweep/report.html")).expect("a report");
    assert!(report.contains("selection@ratio=0.3"));
    assert!(fs::read_link(cluster.sandbox.path("runs/sweep/student@ratio=0.5")).is_ok());
    for id in ["teacher", "points", "student@ratio=0.5"] {
        let started = format!("\"stage-started\",\"stage\":\"{id}\"");
        assert_eq!(cluster.events().matches(&started).count(), 1, "{id}");
    }
    let done = cluster.status();
    assert!(done.contains("done: 7 of 7 stages are made; logs: "), "{done}");

    cluster.sandbox.write("sweep.yaml", PIPELINE);
    expect(&cluster.submit(&[]), 0, &["no job is needed"]);
    assert_eq!(cluster.jobs().len(), 4);
    // One value more needs one branch more.
    let more = cluster.submit(&["--over", "selection.ratio=0.3,0.4,0.5"]);
    expect(&more, 0, &["submitted 2 jobs for 2 stages; cached: 7"]);
    cluster.play();
    assert_eq!(cluster.record("runs")["exit_code"], 0);
    expect_code(&cluster.run(&["clean", "sweep"]), 0);
    assert!(!cluster.sandbox.path("runs/sweep").exists());
}

#[test]
fn a_branch_that_fails_stops_what_needs_it_and_nothing_else() {
    let cluster = Cluster::new();
    let over = ["--over", "selection.ratio=0.3,0.999"];
    let local =
        [&["run", &cluster.file, "--runs", "local", "--cache", "local-cache", "--keep-going"], &over[..]];
    let code = cluster.sandbox.run(&local.concat()).status.code();
    expect_code(&cluster.submit(&over), 0);
    cluster.play();
    assert_eq!(essence(&cluster.record("runs")), essence(&cluster.record("local")));
    assert_eq!(cluster.record("runs")["exit_code"].as_i64(), code.map(i64::from));
    assert!(code.is_some_and(|code| code != 0));
    let log = cluster.sandbox.path("runs/sweep/slurm/_finish.log");
    let log = fs::read_to_string(log).expect("the last job printed");
    assert!(log.contains("run::job") && log.contains("student@ratio=0.999.log"), "{log}");
    // The same command tries that branch again.
    expect(&cluster.submit(&over), 0, &["submitted 2 jobs for 2 stages; cached: 5"]);
}

#[test]
#[cfg(feature = "hub")]
fn all_jobs_tell_the_same_runs_of_mlflow() {
    let server = super::tracking::testing::Mlflow::start().expect("a server");
    let cluster = Cluster { mlflow: server.address.clone(), ..Cluster::new() };
    expect_code(&cluster.submit(&["--over", "selection.ratio=0.3,0.999"]), 0);
    cluster.play();
    assert_eq!(server.runs().len(), 3);
    let [whole, good, bad] = ["sweep", "ratio=0.3", "ratio=0.999"].map(|name| server.run(name));
    assert_eq!([&whole, &good, &bad].map(|run| run.status.as_str()), ["FAILED", "FINISHED", "FAILED"]);
    assert!(bad.tags["laptop-diff.error"].contains("selection@ratio=0.999"), "{:?}", bad.tags);
    assert_eq!([&whole.tags["stage.scores"], &good.tags["stage.student"]], ["done", "done"]);
    assert_eq!((whole.steps("scores/units"), good.steps("selection/ratio_reached")), (vec![0], vec![0]));
    assert!(whole.files.contains_key("report.html"), "{:?}", whole.files.keys());
}

#[test]
fn an_interrupted_job_queues_itself_again_and_resumes() {
    let cluster = Cluster::new();
    expect_code(&cluster.submit(&["--until", "points", "--force", "points", "--set", LONG]), 0);
    fs::write(cluster.sandbox.path("stub/interrupt"), "points").expect("writable");
    cluster.play();
    assert_eq!(cluster.jobs(), ["PENDING", "PENDING"]);
    let status = cluster.status();
    assert!(status.contains("interrupted") && status.contains("trajectories"), "{status}");
    cluster.play();
    assert_eq!(cluster.jobs(), ["COMPLETED", "COMPLETED"]);
    let events = cluster.events();
    assert!(events.contains("\"stage-resumed\",\"stage\":\"points\""), "{events}");
    assert_eq!(cluster.record("runs")["exit_code"], 0);
}

#[test]
fn a_job_that_is_killed_is_told_of_and_tried_again() {
    let cluster = Cluster::new();
    expect_code(&cluster.submit(&["--until", "points", "--set", LONG]), 0);
    fs::write(cluster.sandbox.path("stub/kill"), "points").expect("writable");
    cluster.play();
    assert_eq!(cluster.jobs(), ["FAILED", "FAILED"], "the last one has the exit code of the run");
    let record = cluster.record("runs");
    assert_eq!(record["exit_code"], 6, "{record}");
    assert!(cluster.status().contains("stage `points`: job 101 ended: FAILED"), "{}", cluster.status());
    expect(
        &cluster.submit(&["--until", "points", "--set", LONG]),
        0,
        &["submitted 2 jobs for 1 stage; cached: 1"],
    );
    cluster.play();
    assert_eq!(cluster.record("runs")["exit_code"], 0);
}

#[test]
fn a_submission_that_fails_or_is_killed_leaves_no_job_behind() {
    let cluster = Cluster::new();
    let mut command = cluster.command(&["run", &cluster.file, "--executor", "slurm"]);
    // The branches are one array, so there are four jobs in three submissions.
    let refused = command.env("STUB_FAIL_AT", "2").output().expect("it starts");
    expect(&refused, 3, &["slurm::refused", "`sbatch` says: invalid partition specified: nowhere", "sinfo"]);
    assert_eq!(cluster.jobs(), ["CANCELLED"; 3]);

    let mut command = cluster.command(&["run", &cluster.file, "--executor", "slurm"]);
    let killed = command.env("STUB_KILL_AT", "3").output().expect("it starts");
    assert_eq!(killed.status.code(), None, "{killed:?}");
    assert_eq!(cluster.count("PENDING"), 3, "all are held, and the array is in no record");
    cluster.play();
    assert_eq!(cluster.count("COMPLETED"), 0);
    expect(&cluster.submit(&[]), 0, &["submitted 4 jobs for 7 stages"]);
    assert_eq!((cluster.count("CANCELLED"), cluster.count("PENDING")), (6, 4));
    cluster.play();
    assert_eq!(cluster.record("runs")["exit_code"], 0);
}

#[test]
fn branches_are_arrays_whose_tasks_wait_for_their_own_branch() {
    let cluster = Cluster::new();
    let axes = ["--over", "selection.ratio=0.3,0.4,0.999,0.5"];
    cluster
        .sandbox
        .write("laptop-diff.yaml", "slurm: { prune: { cpus: 2, partition: other, branches-at-once: 2 } }\n");
    expect(&cluster.submit(&axes), 0, &["submitted 10 jobs for 11 stages"]);
    let folder = |job: &str| cluster.sandbox.path("stub/jobs").join(job);
    let after = |job: &str| fs::read_to_string(folder(job).join("after")).expect(job).trim().to_owned();
    assert_eq!(
        (after("102_0").as_str(), after("103_3").as_str()),
        ("afterok:101", "afterok:101,aftercorr:102")
    );
    let script = fs::read_to_string(folder("103_1").join("script")).expect("a script");
    assert!(script.contains("#SBATCH --array=0,1,2,3%2\n"), "{script}");
    assert!(cluster.status().contains("103_2"), "{}", cluster.status());
    // One task is interrupted, and queues itself again and none of the others.
    fs::write(cluster.sandbox.path("stub/interrupt"), "student@ratio=0.4").expect("writable");
    cluster.play();
    cluster.play();
    let requeued: Vec<bool> =
        (0..4).map(|task| folder(&format!("103_{task}")).join("requeued").exists()).collect();
    let state = |job: &str| fs::read_to_string(folder(job).join("state")).expect(job).trim().to_owned();
    assert_eq!((state("102_2").as_str(), state("103_2").as_str()), ("FAILED", "CANCELLED"));
    assert_eq!([0, 1, 3].map(|task| state(&format!("103_{task}"))), ["COMPLETED"; 3]);
    assert!(!requeued[0] && !requeued[3], "{requeued:?}");
    let log = fs::read_to_string(cluster.sandbox.path("runs/sweep/slurm/student@ratio=0.5.log"));
    assert!(log.expect("its own log").contains("student@ratio=0.5"));
    // What is left is a job of its own.
    expect(&cluster.submit(&axes), 0, &["submitted 3 jobs for 2 stages; cached: 9"]);
}

#[test]
fn a_cluster_with_small_arrays_gets_several() {
    let cluster = Cluster::new();
    let axes = ["--over", "selection.ratio=0.3,0.4,0.5"];
    let mut submit = cluster.command(&[&["run", &cluster.file, "--executor", "slurm"], &axes[..]].concat());
    expect(&submit.env("STUB_MOST", "3").output().expect("it starts"), 0, &["submitted 5 jobs"]);
    let names: Vec<String> = fs::read_dir(cluster.sandbox.path("stub/jobs"))
        .expect("jobs")
        .map(|entry| entry.expect("a job").file_name().to_string_lossy().into_owned())
        .collect();
    for name in ["102_0", "102_1", "103", "104"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    cluster.play();
    assert_eq!(cluster.record("runs")["exit_code"], 0);
}

#[test]
fn a_run_is_cancelled_and_another_version_is_refused_meanwhile() {
    let cluster = Cluster::new();
    expect_code(&cluster.submit(&[]), 0);
    let other = cluster.submit(&["--set", "points.samples=9"]);
    expect(&other, 4, &["slurm::other_run", "another pipeline", "laptop-diff cancel sweep"]);
    let cancelled = cluster.run(&["cancel", "sweep"]);
    expect_code(&cancelled, 0);
    assert!(String::from_utf8_lossy(&cancelled.stdout).contains("cancelled 4 jobs"), "{cancelled:?}");
    assert_eq!((cluster.count("CANCELLED"), &cluster.record("runs")["exit_code"]), (4, &Value::from(130)));
    assert!(cluster.status().contains("interrupted: 0 of 7 stages"), "{}", cluster.status());
    expect(&cluster.run(&["cancel", "sweep"]), 0, &["no job of", "is in the queue"]);
    expect(&cluster.submit(&["--set", "points.samples=9"]), 0, &["submitted 4 jobs"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let cluster = Cluster::new();
    for flag in [&["--jobs", "2"][..], &["--devices", "cpu"], &["--json"]] {
        expect(&cluster.submit(flag), 2, &["cli::flag_of_local", flag[0]]);
    }
    let run = ["run", &cluster.file, "--executor", "slurm"];
    let absent = cluster.sandbox.command(&run).env("PATH", cluster.sandbox.path("none")).output();
    let absent = absent.expect("it starts");
    expect(&absent, 4, &["slurm::absent", "there is no `sbatch` on this machine", "login node"]);
    expect_code(&cluster.sandbox.run(&["run", &cluster.file, "--until", "teacher"]), 0);
    expect(&cluster.run(&["cancel", "sweep"]), 2, &["slurm::no_jobs", "was not submitted"]);
    cluster.sandbox.write("laptop-diff.yaml", "slurm: { distil: { gpus: 1 } }\n");
    expect(&cluster.submit(&[]), 3, &["`distil` is no kind of stage", "did you mean `distill`"]);
    cluster.sandbox.write(
        "laptop-diff.yaml",
        "slurm: { distill: { ranks: 3, nodes: 2 }, load: { ranks: 3, nodes: 2 } }\n",
    );
    expect(
        &cluster.submit(&["--set", "name=other", "--cache", "fresh"]),
        3,
        &["slurm::ranks", "3 ranks on 2 nodes"],
    );
}
