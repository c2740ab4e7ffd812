//! A run in shares: what processes that know nothing of each other make of it together.

use super::*;
use crate::run::{Ended, ExitCode, Last, Part};

/// Two chains on one stage.
fn stages() -> Vec<Fake> {
    let broken = fake("broken", &["a"])
        .act(|_| Err(StageError::file(Path::new("absent"))(std::io::ErrorKind::NotFound.into())));
    vec![fake("a", &[]), fake("b", &["a"]), fake("c", &["b"]), broken, fake("needs-it", &["broken"])]
}

impl Sandbox {
    /// Makes the stages with these indices, as a job does.
    fn part(&mut self, stages: &[Fake], own: &[usize]) -> Result<RunRecord, RunError> {
        let log = self.run_folder().join(format!("{own:?}.jsonl"));
        self.share = Share::Part(Part { own: own.iter().copied().collect(), log });
        self.options.keep_going = true;
        self.try_run(stages).0
    }

    /// Finishes the run.
    fn last(&mut self, stages: &[Fake], ended: &[(&str, Ended)]) -> Ran {
        let ended = ended.iter().map(|(stage, ended)| ((*stage).into(), ended.clone())).collect();
        let record = RunRecord::read(&self.run_folder()).expect("the parts have written it");
        let logs = ["[0].jsonl", "[1, 2].jsonl"].map(|name| self.run_folder().join(name)).to_vec();
        self.share = Share::Last(Box::new(Last { record, ended, logs }));
        self.run(stages)
    }
}

/// A sandbox with the record of a run that begins.
fn begun(stages: &[Fake]) -> Sandbox {
    let sandbox = Sandbox { share: Share::Survey, ..Sandbox::new() };
    let (record, _) = sandbox.with_job(stages, survey);
    record.expect("nothing fails").write(&sandbox.run_folder()).expect("writable");
    sandbox
}

/// What must not differ between a run in shares and a whole one.
fn essence(record: &RunRecord) -> Vec<String> {
    let of = |stage: &super::super::StageRecord| {
        let digest = stage.artefact.as_ref().map(|artefact| artefact.digest);
        format!(
            "{} {} {:?} {digest:?} {:?} {:?}",
            stage.id, stage.state, stage.key, stage.error, stage.exit_code
        )
    };
    std::iter::once(format!("{:?}", record.exit_code)).chain(record.stages.iter().map(of)).collect()
}

#[test]
fn parts_in_any_order_that_fits_make_the_record_of_a_whole_run() {
    let stages = stages();
    let mut whole = Sandbox::new();
    whole.options.keep_going = true;
    let whole = whole.run(&stages);

    let mut sandbox = begun(&stages);
    assert!(
        matches!(sandbox.part(&stages, &[1, 2]), Err(RunError::NotMade { stage }) if stage.as_str() == "a")
    );
    sandbox.part(&stages, &[0]).expect("it reads nothing");
    sandbox.part(&stages, &[3]).expect_err("it is broken");
    sandbox.part(&stages, &[1, 2]).expect("what it reads is there");
    // In a second turn, what a job made in its first is still what it made.
    sandbox.part(&stages, &[1, 2]).expect("all is there");
    let last = sandbox.last(&stages, &[]);
    assert_eq!(essence(&last.record), essence(&whole.record));
    assert_eq!(last.exit_code(), whole.exit_code());
    assert_eq!(sandbox.text("c"), "value of a;value of b;value of c;");
    let log = fs::read_to_string(sandbox.run_folder().join("events.jsonl")).expect("a log");
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is not in {log}"));
    assert!(at(r#""stage-started","stage":"a""#) < at(r#""stage-started","stage":"c""#));
    assert!(!sandbox.run_folder().join("[0].jsonl").exists(), "its events are in the log of the run");
}

#[test]
fn a_job_that_could_not_say_how_it_ended_is_told_of() {
    let stages = vec![fake("a", &[]), fake("b", &["a"])];
    for (code, state) in
        [(ExitCode::Memory, StageState::Failed), (ExitCode::Interrupted, StageState::Interrupted)]
    {
        let mut sandbox = begun(&stages);
        sandbox.part(&stages, &[0]).expect("it reads nothing");
        let ended = Ended { text: "job 17 ended".to_owned(), code, log: "b.log".into() };
        let last = sandbox.last(&stages, &[("b", ended)]);
        assert_eq!((last.exit_code(), last.record.stages[1].state), (code.number(), state));
        assert_eq!(last.record.stages[0].state, StageState::Done);
    }
}

#[test]
fn a_survey_makes_nothing_and_knows_what_is_cached() {
    let stages = vec![fake("a", &[]), fake("b", &["a"])];
    let mut sandbox = Sandbox::new();
    sandbox.until("a").run(&stages);
    sandbox.options.until = None;
    sandbox.share = Share::Survey;
    let (record, events) = sandbox.with_job(&stages, survey);
    let states: Vec<_> = record.expect("nothing fails").stages.iter().map(|stage| stage.state).collect();
    assert_eq!(states, [StageState::Cached, StageState::Waiting]);
    assert!(!events.iter().any(|event| matches!(event, Event::StageStarted { .. })), "{events:?}");
}
