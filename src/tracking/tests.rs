//! A run folder is told to a server of our own, step by step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::example::{Sweep, Tested, key, losses};
use super::teller::Role;
use super::testing::Mlflow;
use super::thread::Tracker;
use crate::base::{FileError, kept};
use crate::distill::history::HISTORY_FILE;
use crate::run::{EVENTS, Event, Sink};

#[test]
fn a_sweep_is_one_run_with_one_below_it_for_each_branch() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    let mut teller = sweep.teller(&server);
    sweep.starts();
    sweep.done("teacher", true, &[])?;
    sweep.done("student@ratio=0.3", false, &[])?;
    teller.look(false)?;
    assert_eq!((server.runs().len(), server.run("ratio=0.3").status.as_str()), (2, "RUNNING"));
    sweep.done("retrained@ratio=0.3", false, &[(HISTORY_FILE, &losses(0..1500))])?;
    sweep.log(&Event::StageFailed { stage: "student@ratio=0.5".into(), error: "no units left".into() });
    sweep.log(&Event::StageSkipped {
        stage: "retrained@ratio=0.5".into(),
        because: "student@ratio=0.5".into(),
    });
    sweep.ends(3);
    fs::write(sweep.folder().join("report.html"), "<p>all")?;
    teller.look(true)?;

    let (whole, good, bad) = (server.run("nano"), server.run("ratio=0.3"), server.run("ratio=0.5"));
    assert_eq!([&whole, &good, &bad].map(|run| run.status.as_str()), ["FAILED", "FINISHED", "FAILED"]);
    assert_eq!([&good, &bad].map(|run| run.tags["mlflow.parentRunId"].as_str()), ["run0", "run0"]);
    assert!(good.ended.is_some() && !whole.tags.contains_key("mlflow.parentRunId"));
    // The values of the branch by the names of the axes, and all parameters of the stages that it needs.
    for (name, value) in [("ratio", "0.3"), ("seed", "7"), ("student.ratio", "0.3"), ("teacher.ratio", "")] {
        assert_eq!(good.parameters.get(name).map(String::as_str), Some(value), "{name}: {good:?}");
    }
    assert!(!good.parameters.keys().any(|name| name.contains("input") || name.ends_with(".stage")));
    assert_eq!(whole.parameters.keys().collect::<Vec<_>>(), ["seed", "teacher.ratio"]);
    let error = "stage `student@ratio=0.5`: no units left";
    assert_eq!([&whole, &bad].map(|run| run.tags["laptop-diff.error"].as_str()), [error, error]);
    assert!(bad.tags["mlflow.note.content"].contains(error) && !good.tags.contains_key("laptop-diff.error"));
    assert_eq!([&whole.tags["stage.teacher"], &good.tags["stage.student"]], ["cached", "done"]);
    assert_eq!(good.tags["key.retrained"], key("retrained@ratio=0.3").to_string());
    // Names are the same in all branches.
    assert_eq!(good.steps("retrained/loss/total"), (0..1500).collect::<Vec<_>>());
    assert_eq!((good.steps("student/seconds"), whole.steps("teacher/bytes")), (vec![0], vec![0]));
    assert_eq!(whole.files.keys().collect::<Vec<_>>(), ["pipeline.yaml", "report.html", "run.json"]);
    Ok(())
}

#[test]
fn a_repeated_run_goes_on_in_its_runs_and_tells_nothing_twice() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    let mut first = sweep.teller(&server);
    sweep.starts();
    sweep.done("teacher", false, &[])?;
    sweep.log(&Event::StageFailed { stage: "student@ratio=0.3".into(), error: "full disk".into() });
    sweep.ends(3);
    first.look(true)?;
    assert_eq!(server.run("ratio=0.3").status, "FAILED");

    let mut second = sweep.teller(&server);
    sweep.cached(&losses(0..3))?;
    second.look(true)?;
    let run = server.run("ratio=0.3");
    assert_eq!((run.status.as_str(), server.runs().len()), ("FINISHED", 3));
    assert!(!run.tags.contains_key("laptop-diff.error") && !run.tags.contains_key("mlflow.note.content"));
    assert_eq!(server.run("nano").tags["stage.teacher"], "done", "the run made it");
    assert_eq!(
        (run.tags["stage.retrained"].as_str(), run.steps("retrained/loss/total")),
        ("cached", vec![0, 1, 2])
    );

    let numbers = || server.runs().iter().map(|run| run.numbers.len()).sum::<usize>();
    let (told, mut third) = (numbers(), sweep.teller(&server));
    sweep.cached(&losses(0..3))?;
    third.look(true)?;
    assert_eq!((numbers(), server.runs().len()), (told, 3));

    // A run that somebody removed begins again, with all runs below it.
    server.held().iter_mut().for_each(|run| run.deleted = true);
    let mut fourth = sweep.teller(&server);
    sweep.cached(&losses(0..3))?;
    fourth.look(true)?;
    assert_eq!(
        (server.runs().len(), server.run("ratio=0.3").steps("retrained/loss/total")),
        (6, vec![0, 1, 2])
    );

    // A changed pipeline is another run.
    sweep.record.pipeline = "format: 1\nseed: 8".to_owned();
    let mut fifth = sweep.teller(&server);
    sweep.cached(&losses(0..3))?;
    fifth.look(true)?;
    assert_eq!(server.runs().len(), 9);
    Ok(())
}

#[test]
fn an_interrupted_run_was_killed_until_it_goes_on() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    let mut first = sweep.teller(&server);
    let id = || "student@ratio=0.3".into();
    sweep.starts();
    sweep.done("teacher", false, &[])?;
    sweep.log(&Event::StageStarted { stage: id(), name: "prune".into(), key: key("student@ratio=0.3") });
    first.look(false)?;
    assert_eq!(server.run("ratio=0.3").status, "RUNNING");
    sweep.log(&Event::StageInterrupted { stage: id() });
    sweep.ends(130);
    first.look(true)?;
    let states = || server.runs().iter().map(|run| run.status.clone()).collect::<Vec<_>>();
    // Nothing has begun of the other branch.
    assert_eq!(states(), ["KILLED", "KILLED"]);

    let mut second = sweep.teller(&server);
    sweep.starts();
    sweep.done("teacher", true, &[])?;
    second.look(false)?;
    assert_eq!(states(), ["RUNNING", "KILLED"]);
    sweep.cached(&losses(0..3))?;
    second.look(true)?;
    assert_eq!(states(), ["FINISHED", "FINISHED", "FINISHED"]);
    Ok(())
}

#[test]
fn a_server_that_fails_gets_everything_later() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    let mut teller = sweep.teller(&server);
    sweep.cached(&losses(0..2500))?;
    let mut looks = 0;
    loop {
        // It serves three requests and fails again.
        server.left.store(3, Ordering::SeqCst);
        looks += 1;
        match teller.look(true) {
            Ok(()) => break,
            Err(error) => {
                assert!(error.contains("the server answers 500") && looks < 100, "{looks}: {error}")
            }
        }
    }
    assert!(looks > 10, "{looks}");
    let run = server.run("ratio=0.5");
    assert_eq!(run.steps("retrained/loss/total"), (0..2500).collect::<Vec<_>>());
    assert_eq!((run.status.as_str(), server.runs().len()), ("FINISHED", 3));
    Ok(())
}

#[test]
fn what_a_killed_process_was_sending_is_sent_again_as_it_was() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    sweep.cached(&losses(0..0))?;
    let mut first = sweep.teller(&server);
    sweep.cached(&losses(0..3))?;
    first.look(true)?;
    let numbers = server.run("ratio=0.3").numbers;
    // As if it had been killed before it knew that the last request, or that for the run, had arrived.
    for entry in fs::read_dir(sweep.folder().join(".mlflow"))?.flatten() {
        let Ok(text) = fs::read(entry.path()) else { continue };
        let Ok(mut run) = serde_json::from_slice::<Value>(&text) else { continue };
        let own = server.runs().iter().position(|one| run["tag"] == json!(one.tags["laptop-diff.id"]));
        let curves = server.runs()[own.expect("a run")].numbers.clone().into_iter();
        let curves = curves.filter(|(key, ..)| key.starts_with("retrained/") && key.matches('/').count() > 1);
        let sending = curves.map(|(key, timestamp, step, value)| {
            json!({"key": key, "value": value.parse::<f64>().ok(), "step": step, "timestamp": timestamp})
        });
        (run["sending"], run["sent"], run["id"]) = (sending.collect(), json!({}), Value::Null);
        fs::write(entry.path(), run.to_string())?;
    }
    let mut second = sweep.teller(&server);
    sweep.cached(&losses(0..4))?;
    second.look(true)?;
    assert_eq!(server.runs().len(), 3, "they are found by their tags");
    let run = server.run("ratio=0.3");
    // The same numbers with the same timestamps, which the server takes once, and one step that it has not seen.
    assert_eq!(
        (run.steps("retrained/loss/total"), &run.numbers[..numbers.len()]),
        (vec![0, 1, 2, 3], &numbers[..])
    );
    Ok(())
}

#[test]
fn pictures_arrive_once_as_the_pages_expect_them() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    let png = |side: u32| -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(side, side, image::Rgb([200, 30, 60]));
        picture.write_to(&mut bytes, image::ImageFormat::Png)?;
        Ok(bytes.into_inner())
    };
    let (large, small, lines) = (png(300)?, png(8)?, losses(0..1));
    let files: [(&str, &[u8]); 3] = [
        (HISTORY_FILE, &lines),
        ("validation/000000000-000.png", &large),
        ("validation/000000005-000.png", &small),
    ];
    for _ in 0..2 {
        let mut teller = sweep.teller(&server);
        sweep.starts();
        sweep.done("teacher", true, &[])?;
        sweep.done("student@ratio=0.3", true, &[])?;
        sweep.done("retrained@ratio=0.3", true, &files)?;
        sweep.ends(0);
        let before = server.requests.load(Ordering::SeqCst);
        teller.look(true)?;
        let sent = server.requests.load(Ordering::SeqCst) - before;
        assert!(before == 0 || sent < 8, "{sent} requests of a run that has everything");
    }
    let run = server.run("ratio=0.3");
    assert_eq!(run.tags["mlflow.loggedImages"], "True");
    let files: BTreeMap<&str, &Vec<u8>> =
        run.files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix("images/")?, bytes))).collect();
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    let expected =
        [(0, "+compressed.webp", 256), (0, ".png", 300), (5, "+compressed.webp", 8), (5, ".png", 8)];
    for (step, ending, side) in expected {
        // The pages read key, step and time from the name: key+step+N+timestamp+N+id, and +compressed.
        let start = format!("retrained~validation~000+step+{step}+timestamp+");
        let found = files.iter().find(|(name, _)| name.starts_with(&start) && name.ends_with(ending));
        let (name, bytes) = found.unwrap_or_else(|| panic!("no {start} {ending} in {:?}", files.keys()));
        let rest: Vec<&str> = name[start.len()..].trim_end_matches(ending).split('+').collect();
        assert!(rest.len() == 2 && rest[0].parse::<u64>().is_ok() && rest[1].len() == 32, "{name}");
        let picture = image::load_from_memory(bytes)?.to_rgb8();
        assert_eq!((picture.dimensions(), picture.get_pixel(1, 1).0), ((side, side), [200, 30, 60]));
    }
    Ok(())
}

#[test]
fn the_jobs_of_a_run_tell_the_same_runs() -> Tested {
    let (server, mut sweep) = (Mlflow::start()?, Sweep::new()?);
    for ratio in ["0.3", "0.5"] {
        (sweep.events, sweep.role) = (format!("job-{ratio}.jsonl"), Role::Part);
        let mut job = sweep.teller(&server);
        let [student, retrained] = ["student", "retrained"].map(|stage| format!("{stage}@ratio={ratio}"));
        sweep.starts_with(&["teacher", &student, &retrained]);
        sweep.done("teacher", true, &[])?;
        sweep.done(&student, false, &[])?;
        sweep.done(&retrained, false, &[(HISTORY_FILE, &losses(0..3))])?;
        sweep.ends(0);
        job.look(true)?;
        let (whole, branch) = (server.run("nano"), server.run(&format!("ratio={ratio}")));
        assert_eq!([&whole, &branch].map(|run| run.status.as_str()), ["RUNNING", "RUNNING"]);
        assert_eq!((branch.steps("retrained/loss/total"), whole.files.len()), (vec![0, 1, 2], 0));
    }
    (sweep.events, sweep.role) = (EVENTS.to_owned(), Role::Last);
    let mut last = sweep.teller(&server);
    sweep.cached(&losses(0..3))?;
    last.look(true)?;
    assert_eq!(server.runs().len(), 3);
    for name in ["nano", "ratio=0.3", "ratio=0.5"] {
        let run = server.run(name);
        assert_eq!(
            (run.status.as_str(), run.steps("retrained/loss/total").len() % 3),
            ("FINISHED", 0),
            "{name}"
        );
    }
    assert_eq!(server.run("ratio=0.3").tags["stage.student"], "done");
    Ok(())
}

/// Keeps the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Sink for Notes {
    fn event(&self, event: &Event) {
        if let Event::RunNote { text } = event {
            self.0.lock().expect("nobody panicked").push(text.clone());
        }
    }
}

#[test]
fn a_server_that_is_away_delays_no_end_and_is_noted_once() -> Tested {
    let mut sweep = Sweep::new()?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let notes = Arc::new(Notes::default());
    let server = format!("http://{closed}").parse()?;
    let tracker = Tracker::begin(&server, sweep.source(), Arc::clone(&notes) as Arc<dyn Sink>);
    sweep.starts();
    sweep.done("teacher", false, &[])?;
    let begun = std::time::Instant::now();
    while notes.0.lock().expect("nobody panicked").is_empty() {
        assert!(begun.elapsed().as_secs() < 60, "the trouble is not noted");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    sweep.ends(0);
    let ended = std::time::Instant::now();
    assert_eq!(tracker.end(), Vec::<String>::new());
    assert!(ended.elapsed().as_secs() < 5);
    let notes = notes.0.lock().expect("nobody panicked");
    assert!(notes.len() == 1 && notes[0].contains("sent when it is back"), "{notes:?}");
    Ok(())
}

/// A picture beside a checkpoint is sent only if it is whole.
#[test]
fn a_damaged_picture_of_a_checkpoint_is_left_out() -> Tested {
    use super::mlflow::Picture;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.png");
    let picture = image::RgbImage::new(4, 4);
    let save =
        |path: &Path| picture.save_with_format(path, image::ImageFormat::Png).map_err(std::io::Error::other);
    kept::write(&path, |path| save(path).map_err(FileError::at(path)))?;
    let picture = Picture { name: "a".into(), step: 0, path: path.clone(), unfinished: true };
    assert_eq!(picture.files(1).map(|files| files.len()), Some(2));
    fs::write(&path, b"half")?;
    assert!(picture.files(1).is_none());
    Ok(())
}
