//! A stage's progress as events, at most as many as a reader can use.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::places::Places;
use super::{Event, Sink};
use crate::base::{Progress, StageId};

/// Bars look smooth at ten pictures a second; a step of a small model takes less than that.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A note that only updates an earlier one (`loss 0.12`, then `loss 0.11`) is emitted this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Receives the progress of one stage.
pub(super) struct Reporter<'a> {
    stage: &'a StageId,
    sink: &'a dyn Sink,
    places: &'a Places,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    total: u64,
    unit: &'static str,
    position: Option<Instant>,
    /// The last position, if no event has it.
    held: Option<u64>,
    note: Option<(String, Instant)>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(stage: &'a StageId, sink: &'a dyn Sink, places: &'a Places) -> Self {
        Self { stage, sink, places, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Reporter<'_> {
    fn length(&self, total: u64, unit: &'static str) {
        *self.seen() = Seen { total, unit, ..Seen::default() };
    }

    fn position(&self, done: u64) {
        let mut seen = self.seen();
        let recent = seen.position.is_some_and(|last| last.elapsed() < PROGRESS_EVERY);
        if recent && done < seen.total {
            seen.held = Some(done);
            return;
        }
        (seen.position, seen.held) = (Some(Instant::now()), None);
        let (total, unit) = (seen.total, seen.unit.to_owned());
        drop(seen);
        self.sink.event(&Event::StageProgress { stage: self.stage.clone(), done, total, unit });
    }

    fn resumed(&self, done: u64) {
        let seen = self.seen();
        let (total, unit) = (seen.total, seen.unit.to_owned());
        drop(seen);
        self.sink.event(&Event::StageResumed { stage: self.stage.clone(), done, total, unit });
    }

    fn dropped(&self, file: &str, reason: &str) {
        let (stage, file, reason) = (self.stage.clone(), file.to_owned(), self.places.rename(reason));
        self.sink.event(&Event::CheckpointDropped { stage, file, reason });
    }

    fn note(&self, text: &str) {
        let mut seen = self.seen();
        let recent =
            |(last, at): &(String, Instant)| topic(last).eq(topic(text)) && at.elapsed() < NOTE_EVERY;
        if seen.note.as_ref().is_some_and(recent) {
            return;
        }
        seen.note = Some((text.to_owned(), Instant::now()));
        drop(seen);
        self.sink.event(&Event::StageNote { stage: self.stage.clone(), text: self.places.rename(text) });
    }
}

/// The last position is emitted in any case: it says where a stage stopped.
impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        let seen = std::mem::take(&mut *self.seen());
        if let Some(done) = seen.held {
            let (stage, unit) = (self.stage.clone(), seen.unit.to_owned());
            self.sink.event(&Event::StageProgress { stage, done, total: seen.total, unit });
        }
    }
}

/// What a note is about: its words without its numbers.
fn topic(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::{Artefact, ArtefactKind, Digest};

    #[derive(Default)]
    struct Told(Mutex<Vec<Event>>);

    impl Sink for Told {
        fn event(&self, event: &Event) {
            self.0.lock().expect("no test panics while it holds this").push(event.clone());
        }
    }

    #[test]
    fn many_steps_are_few_events_but_the_last_one_is_told() {
        let (told, stage, places) = (Told::default(), StageId::from("retrained"), Places::default());
        let reporter = Reporter::new(&stage, &told, &places);
        reporter.length(10_000, "steps");
        for step in 1..=10_000 {
            reporter.position(step);
        }
        drop(reporter);
        let events = told.0.into_inner().expect("nobody panicked");
        assert!(events.len() < 100, "{} events", events.len());
        assert!(matches!(events.last(), Some(Event::StageProgress { done: 10_000, total: 10_000, .. })));
    }

    #[test]
    fn the_position_where_a_stage_stopped_is_told() {
        let (told, stage, places) = (Told::default(), StageId::from("retrained"), Places::default());
        let reporter = Reporter::new(&stage, &told, &places);
        reporter.length(10_000, "steps");
        (1..=7).for_each(|step| reporter.position(step));
        drop(reporter);
        let events = told.0.into_inner().expect("nobody panicked");
        assert!(matches!(events.last(), Some(Event::StageProgress { done: 7, .. })), "{events:?}");
    }

    #[test]
    fn a_note_names_files_as_the_user_knows_them() {
        let (told, stage) = (Told::default(), StageId::from("retrained"));
        let artefact =
            Artefact { kind: ArtefactKind::Model, path: "/c/artefacts/12".into(), digest: Digest::of(b"12") };
        let places = Places::new(Path::new("runs/x"), [(&"student".into(), &artefact)]);
        Reporter::new(&stage, &told, &places).note("/c/artefacts/12/vae: no weights");
        let events = told.0.into_inner().expect("nobody panicked");
        assert!(
            matches!(&events[..], [Event::StageNote { text, .. }] if text == "runs/x/student/vae: no weights")
        );
    }

    #[test]
    fn a_note_is_dropped_only_for_a_newer_one_of_its_kind() {
        let (told, stage, places) = (Told::default(), StageId::from("retrained"), Places::default());
        let reporter = Reporter::new(&stage, &told, &places);
        for text in ["loss 0.3", "loss 0.2", "3 prompts were cut at 77 tokens", "loss 0.1"] {
            reporter.note(text);
        }
        drop(reporter);
        let texts: Vec<_> = told.0.into_inner().expect("nobody panicked");
        let texts = texts.iter().map(|event| match event {
            Event::StageNote { text, .. } => text.as_str(),
            other => panic!("{other:?}"),
        });
        assert_eq!(texts.collect::<Vec<_>>(), ["loss 0.3", "3 prompts were cut at 77 tokens", "loss 0.1"]);
    }
}
