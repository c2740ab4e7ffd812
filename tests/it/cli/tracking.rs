//! What an MLflow server is told of a run and of a sweep: by a server of our own, and by the real one.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use crate::common::{Sandbox, expect, expect_code};

#[path = "../../../src/tracking/testing.rs"]
#[cfg(feature = "hub")]
pub(super) mod testing;

/// A retraining and its evaluation at two ratios, of which the second cannot be reached.
const SWEEP: &str = r#"
format: 1
name: small
seed: 7
stages:
  - { id: teacher, use: load, with: { model: "{nano}" } }
  - id: points
    use: calibrate
    with: { model: teacher, prompts: prompts.txt, samples: 4, drawing: { steps: 1, guidance-scale: 1, batch: 4 } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude], additivity-sets: 0, batch: 4 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - id: retrained
    use: distill
    with: { teacher: teacher, student: student, data: points, training: { steps: 3, batch-size: 2, normalisation-batches: 1 } }
  - id: result
    use: evaluate
    with: { models: { teacher: teacher, retrained: retrained }, metrics: [output-loss, clip-score], prompts: prompts.txt, points: points, scorer: "{nano}/scorer", drawing: { steps: 1, guidance-scale: 1 } }
sweep: { selection.ratio: [0.3, 0.5, 0.999] }
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    sandbox.write("small.yaml", SWEEP);
    sandbox
}

/// The sweep with two stages at a time.
fn swept(sandbox: &Sandbox, server: &str) -> Output {
    let mut command = sandbox.command(&["sweep", "small.yaml", "--jobs", "2", "--keep-going"]);
    command.env("LAPTOP_DIFF_MLFLOW", server).output().expect("the program starts")
}

#[test]
#[cfg(feature = "hub")]
fn a_sweep_is_told_branch_by_branch_and_only_once() {
    let (sandbox, server) = (sandbox(), testing::Mlflow::start().expect("a server"));
    expect(&swept(&sandbox, &server.address), 3, &["1 failed", "ratio_unreachable"]);
    let names: Vec<String> = server.runs().iter().map(|run| run.name.clone()).collect();
    assert_eq!((names.len(), names[0].as_str()), (4, "small"), "{names:?}");
    let [whole, good, bad] = ["small", "ratio=0.3", "ratio=0.999"].map(|name| server.run(name));
    assert_eq!([&whole, &good, &bad].map(|run| run.status.as_str()), ["FAILED", "FINISHED", "FAILED"]);
    assert!(
        bad.tags["laptop-diff.error"].starts_with("stage `selection@ratio=0.999` failed: "),
        "{:?}",
        bad.tags
    );
    assert_eq!(whole.tags["laptop-diff.error"], bad.tags["laptop-diff.error"]);
    for (name, value) in
        [("ratio", "0.3"), ("selection.ratio", "0.3"), ("retrained.steps", "3"), ("points.samples", "4")]
    {
        assert_eq!(
            good.parameters.get(name).map(String::as_str),
            Some(value),
            "{name}: {:?}",
            good.parameters
        );
    }
    assert_eq!(good.steps("retrained/loss/total"), [0, 1, 2]);
    for name in ["clip-score", "clip-score.low", "clip-score.high", "output-loss"] {
        assert_eq!(good.steps(&format!("result/retrained/{name}")), [0], "{name}: {:?}", good.numbers);
    }
    for name in ["selection/ratio_reached", "student/seconds"] {
        assert_eq!((good.steps(name), bad.steps(name)), (vec![0], Vec::new()), "{name}");
    }
    assert_eq!((whole.steps("scores/units"), good.steps("scores/units")), (vec![0], Vec::new()));
    assert_eq!(
        whole.files["report.html"],
        fs::read(sandbox.path("runs/small/report.html")).expect("a report")
    );
    assert!(
        good.files.contains_key("result/metrics.json") && good.files.contains_key("selection/selection.json")
    );

    // Again, with everything in the cache: nothing is there twice.
    let numbers = || server.runs().iter().map(|run| run.numbers.len()).sum::<usize>();
    let told = numbers();
    expect_code(&swept(&sandbox, &server.address), 3);
    assert_eq!((server.runs().len(), numbers()), (4, told));
    assert_eq!(server.run("ratio=0.3").tags["stage.student"], "done");

    // Another folder has the artefacts from the cache, and says so.
    let alone = SWEEP.split("sweep:").next().unwrap_or_default();
    sandbox.write(
        "other.yaml",
        &alone.replace("name: small", "name: other").replace("ratio: 0.5", "ratio: 0.3"),
    );
    let mut command = sandbox.command(&["run", "other.yaml"]);
    expect_code(&command.env("LAPTOP_DIFF_MLFLOW", &server.address).output().expect("it starts"), 0);
    let other = server.run("other");
    assert_eq!((other.status.as_str(), other.tags["stage.retrained"].as_str()), ("FINISHED", "cached"));
    assert_eq!(other.steps("retrained/loss/total"), [0, 1, 2]);
    assert!(!other.tags.contains_key("mlflow.parentRunId"));
}

/// An MLflow server, which ends with the test.
pub(super) struct MlflowServer {
    child: Child,
    pub(super) address: String,
}

impl MlflowServer {
    /// Starts one and waits until it answers.
    pub(super) fn start(python: &str, sandbox: &Sandbox) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port().to_string();
        let log = fs::File::create(sandbox.path("mlflow.log")).expect("a log");
        let child = std::process::Command::new(python)
            .args(["-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--port", &port])
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", sandbox.path("mlflow.db").display()))
            .current_dir(sandbox.path(""))
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            // The server starts workers of its own.
            .process_group(0)
            .spawn()
            .expect("the server starts");
        let server = Self { child, address: format!("http://127.0.0.1:{port}") };
        let begun = Instant::now();
        // The port is open before the workers are there.
        while !server.answers(&port) {
            let log = || fs::read_to_string(sandbox.path("mlflow.log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(300), "the server does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
        server
    }

    fn answers(&self, port: &str) -> bool {
        let asked = || -> std::io::Result<String> {
            let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for MlflowServer {
    fn drop(&mut self) {
        // SAFETY: signals the process group of the server alone.
        unsafe { libc::kill(-(self.child.id() as libc::pid_t), libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs Python with mlflow, named by LAPTOP_DIFF_TEST_WATCH_PYTHON"]
fn mlflow_shows_a_sweep_with_its_branches() {
    let python =
        std::env::var("LAPTOP_DIFF_TEST_WATCH_PYTHON").expect("LAPTOP_DIFF_TEST_WATCH_PYTHON is set");
    let sandbox = sandbox();
    let server = MlflowServer::start(&python, &sandbox);
    expect(&swept(&sandbox, &server.address), 3, &["1 failed"]);
    // The second time everything is in the cache.
    expect_code(&swept(&sandbox, &server.address), 3);
    let script = crate::common::root().join("tests/golden_distill/tracked.py");
    let run = sandbox.path("runs/small");
    let read = std::process::Command::new(&python).arg(script).arg(run).arg(&server.address).output();
    expect_code(&read.expect("Python starts"), 0);
}
