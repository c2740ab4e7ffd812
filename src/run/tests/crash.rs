//! Runs that are cut off, by SIGKILL, by a wish to stop, by a full disk, and caches that were damaged.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::cache::{CacheError, Lookup, Maker, PendingArtefact, Request};
use crate::run::Stopped;

const FOLDER: &str = "LAPTOP_DIFF_TEST_FOLDER";

/// Counts to ten in its checkpoint, and halts where `halt` says so.
fn counting(halt: impl Fn(u32, &Context<'_>) -> Result<(), StageError> + Send + Sync + 'static) -> [Fake; 2] {
    let count = fake("count", &["first"]).act(move |context| {
        let file = context.checkpoint.join("steps");
        let mut steps = fs::read_to_string(&file).unwrap_or_default();
        context.progress.length(10, "steps");
        if !steps.is_empty() {
            context.progress.resumed(steps.len() as u64);
        }
        for step in steps.len() as u32..10 {
            halt(step, context)?;
            steps.push('x');
            crate::base::files::write_atomic(&file, steps.as_bytes()).map_err(StageError::file(&file))?;
            context.progress.position(u64::from(step) + 1);
        }
        put(context, &steps)
    });
    [fake("first", &[]), count]
}

/// Starts this test program again for one ignored test, with a sandbox's folder.
fn start(test: &str, sandbox: &Sandbox, prepare: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a test runs from a file"));
    command
        .args(["--exact", "--ignored", &format!("run::tests::crash::{test}")])
        .env(FOLDER, &sandbox.folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    prepare(&mut command);
    command.spawn().expect("a program that runs can be started")
}

fn victim() -> Sandbox {
    Sandbox::at(std::env::var_os(FOLDER).expect("only `start` runs this").into())
}

#[test]
#[ignore = "needs to be started by `a_killed_run_goes_on_where_it_was`"]
fn halts_in_the_sixth_step() {
    victim().run(&counting(|step, context| {
        if step == 5 {
            write(&context.output.join("half"), "written");
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    }));
}

/// Waits until a victim stands in the middle of its sixth step.
fn await_sixth_step(sandbox: &Sandbox) {
    let work = sandbox.folder.join("cache/v1/work");
    let half = || fs::read_dir(&work).ok()?.flatten().find(|entry| entry.path().join("output/half").exists());
    let begun = Instant::now();
    while half().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the victim does not come to its sixth step");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "needs to be started by `sigterm_is_a_wish_to_stop`"]
fn stops_when_it_is_asked() {
    let sandbox = Sandbox { interrupt: crate::run::signals::listen(), ..victim() };
    let ran = sandbox.run(&counting(|step, context| {
        if step == 5 {
            write(&context.output.join("half"), "written");
            while !context.interrupt.asked() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(context.interrupt.check()?)
    }));
    assert_eq!(ran.exit_code(), 130);
}

#[test]
fn sigterm_is_a_wish_to_stop() {
    let sandbox = Sandbox::new();
    let mut child = start("stops_when_it_is_asked", &sandbox, |_| {});
    await_sixth_step(&sandbox);
    // SAFETY: the child is ours and not waited for yet, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) }, 0);
    assert!(child.wait().expect("it is ours").success());
    let record = RunRecord::read(&sandbox.run_folder()).expect("the record is whole");
    assert_eq!(record.stages[1].state, StageState::Interrupted);
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let mut child = start("halts_in_the_sixth_step", &sandbox, |_| {});
    await_sixth_step(&sandbox);
    child.kill().expect("it sleeps");
    assert_eq!(child.wait().expect("it is ours").signal(), Some(libc::SIGKILL));
    let cut_off = RunRecord::read(&sandbox.run_folder()).expect("the record is whole");
    assert_eq!(cut_off.stages[1].state, StageState::Running);
    let stopped = Stopped::of(&cut_off, &sandbox.run_folder(), "count").map(|stopped| stopped.stage);
    assert_eq!(stopped, Some("count".into()));

    let ran = sandbox.run(&counting(|step, _| {
        assert!(step >= 5, "step {step} was done before");
        Ok(())
    }));
    assert_eq!((ran.are(StageState::Cached), ran.are(StageState::Done)), (vec!["first"], vec!["count"]));
    let (stage, unit) = ("count".into(), "steps".to_owned());
    assert!(ran.events.contains(&Event::StageResumed { stage, done: 5, total: 10, unit }));
    let undisturbed = Sandbox::new().run(&counting(|_, _| Ok(())));
    let digest = |ran: &Ran| ran.record.stages[1].artefact.as_ref().map(|artefact| artefact.digest);
    assert_eq!(digest(&ran), digest(&undisturbed));
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&counting(|step, context| {
        if step == 5 {
            context.interrupt.ask();
        }
        Ok(context.interrupt.check()?)
    }));
    assert_eq!(ran.exit_code(), 130);
    assert_eq!((ran.are(StageState::Done), ran.are(StageState::Interrupted)), (vec!["first"], vec!["count"]));
    assert!(ran.events.contains(&Event::StageInterrupted { stage: "count".into() }));
    let stopped = Stopped::of(&ran.record, &sandbox.run_folder(), "count").map(|stopped| stopped.to_string());
    assert_eq!(stopped.as_deref(), Some("stage `count` was interrupted after 5 of 10 steps"));

    let again = Sandbox::at(sandbox.folder.clone()).run(&counting(|step, _| {
        assert!(step >= 5, "step {step} was done before");
        Ok(())
    }));
    assert_eq!(again.are(StageState::Done), ["count"]);
    assert_eq!(fs::read_dir(sandbox.folder.join("cache/v1/work")).expect("there").count(), 0);
}

#[test]
fn a_stop_between_stages_leaves_the_next_one_waiting() {
    let sandbox = Sandbox::new();
    let stages = [
        fake("a", &[]).act(|context| {
            context.interrupt.ask();
            put(context, "a")
        }),
        fake("b", &["a"]),
    ];
    let ran = sandbox.run(&stages);
    assert_eq!(ran.exit_code(), 130);
    assert_eq!((ran.are(StageState::Done), ran.are(StageState::Waiting)), (vec!["a"], vec!["b"]));
}

#[test]
fn damage_is_told_and_made_again() {
    let sandbox = Sandbox::new();
    let stages = [fake("a", &[]), fake("b", &["a"])];
    sandbox.run(&stages);
    let file = sandbox.run_folder().join("a/selection.json");
    assert!(fs::metadata(&file).expect("there").permissions().readonly());
    fs::remove_file(&file).expect("folders are writable");
    write(&file, "evil");
    let ran = sandbox.run(&stages);
    assert_eq!((ran.are(StageState::Done), ran.are(StageState::Cached)), (vec!["a"], vec!["b"]));
    let told = ran.events.iter().find_map(|event| match event {
        Event::DamageFound { stage, path, .. } => Some((stage.as_str(), path.ends_with("selection.json"))),
        _ => None,
    });
    assert_eq!(told, Some(("a", true)));
    assert_eq!(sandbox.text("a"), "value of a;");
}

#[test]
fn a_full_disk_is_told_and_enters_nothing() {
    let sandbox = Sandbox::new();
    let full = fake("a", &[]).act(|context| {
        let path = context.output.join("selection.json");
        std::os::unix::fs::symlink("/dev/full", &path).expect("links work");
        fs::write(&path, "too much").map_err(StageError::file(&path))
    });
    let ran = sandbox.run(&[full]);
    assert_eq!(ran.exit_code(), 4);
    assert_eq!(entries(&sandbox), 0);
    assert_eq!(fs::read_dir(sandbox.folder.join("cache/v1/work")).expect("there").count(), 0);
    assert_eq!(sandbox.run(&[fake("a", &[])]).exit_code(), 0);
}

#[test]
#[ignore = "needs to be started by `a_file_that_may_not_grow_enters_nothing`"]
fn writes_more_than_it_may() {
    let (sandbox, large) = (victim(), "x".repeat(1 << 20));
    let ran = sandbox.run(&[fake("a", &[]).act(move |context| put(context, &large))]);
    assert_eq!(ran.exit_code(), 4);
    assert!(matches!(ran.error(), RunError::Stage { .. }));

    // The same in the last step of all, the writing of the entry: its manifest is too large.
    let (store, mut manifest) = (sandbox.store(), Manifest::default());
    manifest.field("value", "x".repeat(1 << 20));
    let (kind, interrupt) = (ArtefactKind::Selection, &Interrupt::default());
    let request = Request { manifest: &manifest, kind, force: false, interrupt };
    assert!(matches!(store.obtain(&request, &mut Small), Err(CacheError::Full { .. })));
    assert!(matches!(store.lookup(&manifest.key()), Ok(Lookup::Absent)));
}

/// Makes a small artefact.
struct Small;

impl Maker for Small {
    type Error = CacheError;

    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), CacheError> {
        write(&pending.output().join("selection.json"), "small");
        Ok(())
    }
}

#[test]
fn a_file_that_may_not_grow_enters_nothing() {
    let sandbox = Sandbox::new();
    // As with a full disk the write fails half-way, here because no file may grow beyond 64 kB.
    let limit = || {
        let limit = libc::rlimit { rlim_cur: 1 << 16, rlim_max: 1 << 16 };
        // SAFETY: both calls are async-signal-safe, and `limit` lives through the first.
        let result = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
        };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes the two calls above, which are allowed between fork and exec.
    let mut child = start("writes_more_than_it_may", &sandbox, |command| unsafe {
        command.pre_exec(limit);
    });
    assert!(child.wait().expect("it is ours").success());
    assert_eq!(entries(&sandbox), 0);
    assert_eq!(sandbox.run(&[fake("a", &[])]).exit_code(), 0);
}

#[test]
#[ignore = "needs to be started by `too_many_open_files_are_no_damage`"]
fn has_no_file_to_open_left() {
    let sandbox = victim();
    let store = sandbox.store();
    let entry = fs::read_dir(sandbox.folder.join("cache/v1/entries")).expect("there").flatten().next();
    let name = entry.expect("that of `a`").file_name().to_string_lossy().replace(".json", "");
    let key = name.parse().expect("a key");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read and write `limit` only.
    let set = |limit: &libc::rlimit| assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) }, 0);
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    // The entry can be opened, but not a file inside the artefact's folder while that is listed.
    for allowed in 0..20 {
        set(&libc::rlimit { rlim_cur: allowed, ..limit });
        let found = store.lookup(&key);
        set(&limit);
        match found {
            Err(CacheError::File(error)) => {
                assert_eq!(error.source.raw_os_error(), Some(libc::EMFILE), "{error}");
            }
            Ok(Lookup::Whole(_)) => {}
            other => panic!("with {allowed} files: {other:?}"),
        }
    }
}

#[test]
fn too_many_open_files_are_no_damage() {
    let sandbox = Sandbox::new();
    sandbox.run(&[fake("a", &[])]);
    let mut child = start("has_no_file_to_open_left", &sandbox, |_| {});
    assert!(child.wait().expect("it is ours").success());
}
