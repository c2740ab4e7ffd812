//! The walk over the graph: order, states, failures, what is left in the run folder.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::run::Stamped;

/// `a` is read by `b`, `b` by `d`; `c` stands alone.
fn diamond() -> [Fake; 4] {
    [fake("a", &[]), fake("b", &["a"]), fake("c", &[]), fake("d", &["b", "c"])]
}

fn fails(_: &Context<'_>) -> Result<(), StageError> {
    Err(candle_core::Error::Msg("shapes differ".into()).into())
}

#[test]
fn a_run_leaves_record_log_and_links() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&diamond());
    assert_eq!(ran.exit_code(), 0);
    assert_eq!(ran.are(StageState::Done), ["a", "b", "c", "d"]);
    assert_eq!(sandbox.text("d"), "value of a;value of b;value of c;value of d;");
    let record = ran.record.stage("d").expect("it is a stage");
    let artefact = record.artefact.as_ref().expect("it is done");
    assert_eq!(record.manifest.as_ref().map(Manifest::key), record.key);
    assert_eq!(fs::read_link(sandbox.run_folder().join("d")).expect("a link"), artefact.path);
    assert_eq!(ran.record.graph.order(), [0, 1, 2, 3]);

    let log = fs::read_to_string(sandbox.run_folder().join("events.jsonl")).expect("a log");
    let events: Result<Vec<Stamped<Event>>, _> = log.lines().map(serde_json::from_str).collect();
    let events = events.expect("each line is an event");
    assert_eq!(events.into_iter().map(|stamped| stamped.event).collect::<Vec<_>>(), ran.events);
    assert!(matches!(ran.events.first(), Some(Event::RunStarted { .. })));
    assert!(matches!(ran.events.last(), Some(Event::RunDone { code: 0, ran: 4, cached: 0, failed: 0, .. })));
}

#[test]
fn a_cached_run_runs_nothing() {
    let sandbox = Sandbox::new();
    let count = Arc::new(AtomicUsize::new(0));
    let chain: Vec<_> = (0..7)
        .map(|i| {
            let (id, before) = (format!("stage{i}"), format!("stage{}", i.max(1) - 1));
            let counted = Arc::clone(&count);
            fake(&id, &[before.as_str()][..i.min(1)]).act(move |context| {
                counted.fetch_add(1, Ordering::Relaxed);
                put(context, &id)
            })
        })
        .collect();
    assert_eq!(sandbox.run(&chain).are(StageState::Done).len(), 7);
    let ran = sandbox.run(&chain);
    assert_eq!(ran.are(StageState::Cached).len(), 7);
    assert!(!ran.events.iter().any(|event| matches!(event, Event::StageStarted { .. })));
    assert_eq!(count.load(Ordering::Relaxed), 7, "each stage ran once, in the first run");
}

#[test]
fn until_runs_a_stage_and_what_it_needs() {
    let mut sandbox = Sandbox::new();
    let ran = sandbox.until("b").run(&diamond());
    assert_eq!(ran.are(StageState::Done), ["a", "b"]);
    assert_eq!(ran.are(StageState::Waiting), ["c", "d"]);
}

#[test]
fn force_runs_a_stage_again_and_equal_bytes_end_it_there() {
    let mut sandbox = Sandbox::new();
    sandbox.run(&diamond());
    let ran = sandbox.force("b").run(&diamond());
    assert_eq!(ran.are(StageState::Done), ["b"]);
    assert_eq!(ran.are(StageState::Cached), ["a", "c", "d"]);
}

#[test]
fn an_unknown_stage_in_a_flag_is_a_wrong_argument() {
    let mut sandbox = Sandbox::new();
    let (result, events) = sandbox.until("nowhere").try_run(&diamond());
    let error = result.expect_err("there is no such stage");
    assert_eq!(error.exit_code().number(), 2);
    assert_eq!(error.to_string(), "`--until nowhere`: this pipeline has no such stage");
    assert!(events.is_empty() && !sandbox.folder.join("runs").exists());
}

#[test]
fn a_failure_stops_the_run() {
    let sandbox = Sandbox::new();
    let mut stages = diamond();
    stages[0] = fake("a", &[]).act(fails);
    let ran = sandbox.run(&stages);
    assert_eq!(ran.exit_code(), 6);
    assert_eq!(ran.are(StageState::Failed), ["a"]);
    assert_eq!(ran.are(StageState::Skipped), ["b", "d"]);
    assert_eq!(ran.are(StageState::Waiting), ["c"]);
    let error = ran.record.stage("a").and_then(|stage| stage.error.clone()).unwrap_or_default();
    assert_eq!(error, "stage `a` failed: shapes differ");
    assert_eq!(entries(&sandbox), 0);
}

#[test]
fn keep_going_runs_what_does_not_need_the_failure() {
    let mut sandbox = Sandbox::new();
    sandbox.options.keep_going = true;
    let mut stages = diamond();
    stages[1] = fake("b", &["a"]).act(fails);
    let ran = sandbox.run(&stages);
    assert_eq!(ran.exit_code(), 6);
    assert_eq!((ran.are(StageState::Done), ran.are(StageState::Failed)), (vec!["a", "c"], vec!["b"]));
    assert!(ran.events.contains(&Event::StageSkipped { stage: "d".into(), because: "b".into() }));
}

#[test]
fn a_panic_is_a_bug_and_stops_only_its_stage() {
    let mut sandbox = Sandbox::new();
    sandbox.options.keep_going = true;
    let mut stages = diamond();
    stages[0] = fake("a", &[]).act(|_| panic!("BUG: {} is odd", 3));
    stages[2] = fake("c", &[]).act(fails);
    let ran = sandbox.run(&stages);
    assert_eq!(ran.exit_code(), 1);
    let RunError::Several { errors } = ran.error() else { panic!("two stages failed") };
    assert_eq!(errors[0].to_string(), "BUG: stage `a` panicked: 3 is odd");
}

#[test]
fn a_deep_recursion_fits_the_stack_of_a_stage() {
    fn down(depth: u32) -> u64 {
        let frame = std::hint::black_box([u64::from(depth); 64]);
        if depth == 0 { frame[0] } else { down(depth - 1) + frame[63] }
    }
    let sandbox = Sandbox::new();
    // 40,000 frames of more than 512 bytes: ten times the stack of a thread of the tests.
    let deep = fake("deep", &[]).act(|context| put(context, &down(40_000).to_string()));
    assert_eq!(sandbox.run(&[deep]).exit_code(), 0);
}

#[test]
fn a_missing_file_is_told_before_anything_runs() {
    let sandbox = Sandbox::new();
    let (result, _) = sandbox.try_run(&[fake("a", &[]), fake("b", &["a"]).file("prompts.txt")]);
    assert_eq!(result.expect_err("there is no such file").exit_code().number(), 4);
    assert!(!sandbox.folder.join("cache").exists() && !sandbox.folder.join("runs").exists());
}

/// Waits until one of the runs in a folder says that it waits for another.
fn await_a_waiting_run(runs: &Path) {
    let begun = Instant::now();
    let waits = || {
        let logs = fs::read_dir(runs).into_iter().flatten().flatten();
        let mut logs = logs.filter_map(|run| fs::read_to_string(run.path().join("events.jsonl")).ok());
        logs.any(|log| log.contains("\"stage-waiting\""))
    };
    while !waits() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no run waits for the other");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn two_runs_at_once_make_a_stage_once() {
    let sandbox = Sandbox::new();
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, runs) = (Arc::clone(&count), sandbox.folder.join("runs"));
    // The run that comes first holds the stage until the second has met it there.
    let slow = fake("a", &[]).act(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        await_a_waiting_run(&runs);
        put(context, "slow")
    });
    let states = std::thread::scope(|scope| {
        let run = |name| {
            let other = Sandbox { name, ..Sandbox::at(sandbox.folder.clone()) };
            let stages = [slow.clone()];
            scope.spawn(move || {
                let ran = other.run(&stages);
                (
                    ran.record.stages[0].state,
                    ran.events.iter().any(|e| matches!(e, Event::StageWaiting { .. })),
                )
            })
        };
        let runs = [run("one"), run("two")];
        runs.map(|handle| handle.join().expect("the run does not panic"))
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);
    let mut expected = [(StageState::Done, false), (StageState::Cached, true)];
    if states[0].0 == StageState::Cached {
        expected.reverse();
    }
    assert_eq!(states, expected);
}

#[test]
fn links_of_stages_that_are_gone_go_and_a_users_files_stay() {
    let sandbox = Sandbox::new();
    sandbox.run(&diamond());
    write(&sandbox.run_folder().join("notes.txt"), "mine");
    std::os::unix::fs::symlink("/", sandbox.run_folder().join("mine")).expect("links work");
    sandbox.run(&[fake("a", &[])]);
    let mut names: Vec<_> = fs::read_dir(sandbox.run_folder())
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "events.jsonl", "mine", "notes.txt", "run.json"]);
}

#[test]
fn an_error_names_files_of_inputs_by_the_run_folder() {
    let sandbox = Sandbox::new();
    let reads = fake("b", &["a"]).act(|context| {
        let path = context.input("reads.0").path.join("absent.json");
        fs::read(&path).map(drop).map_err(StageError::file(&path))
    });
    let ran = sandbox.run(&[fake("a", &[]), reads]);
    assert_eq!(ran.exit_code(), 6);
    let text = ran.record.stage("b").and_then(|stage| stage.error.clone()).expect("it failed");
    let named = sandbox.run_folder().join("a/absent.json");
    assert!(text.contains(&named.display().to_string()) && !text.contains("artefacts"), "{text}");
}
