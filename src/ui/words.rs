//! The text of events, shared by bars and plain lines. The state is always a word, never only a colour.

use std::path::Path;

use supports_hyperlinks::Stream;

use super::link::linked;
use crate::base::{Digest, StageId, shown, units};
use crate::report;
use crate::run::{Event, ExitCode};

/// Wide enough for `interrupted`.
const STATE_WIDTH: usize = 11;

/// A run with more stages than this is shown in fewer lines. About the number of lines of a terminal.
const MANY: usize = 24;

/// Turns events into lines. In a run of many stages, consecutive cached stages share one line, and the line of each
/// finished stage has the number of stages that have ended.
#[derive(Default)]
pub(super) struct Teller {
    stages: usize,
    over: usize,
    cached: usize,
    saved_seconds: f64,
}

impl Teller {
    /// The line for an event, after the line of cached stages that was held back.
    pub(super) fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::RunStarted { stages, .. } => *self = Self { stages: stages.len(), ..Self::default() },
            Event::StageCached { .. } | Event::StageSkipped { .. } => self.over += 1,
            event => self.over += usize::from(ended(event).is_some()),
        }
        let is_long = self.stages > MANY;
        if let Event::StageCached { seconds, .. } = event
            && is_long
        {
            self.cached += 1;
            self.saved_seconds += seconds;
            return None;
        }
        let mut line = line(event)?;
        if is_long && let Event::StageDone { .. } = event {
            line = format!("{line}; {} of {}", self.over, self.stages);
        }
        if self.cached > 0 {
            let (cached, saved) = (std::mem::take(&mut self.cached), std::mem::take(&mut self.saved_seconds));
            let stages = if cached == 1 { "stage" } else { "stages" };
            line = format!(
                "{:<STATE_WIDTH$} {cached} {stages}, saves {}\n{line}",
                "cached",
                units::seconds(saved)
            );
        }
        Some(line)
    }
}

/// The line for an event; progress and notes have none, since each reader shows them in its own way.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { name, stages, .. } => {
            format!("{name}: {} {}", stages.len(), if stages.len() == 1 { "stage" } else { "stages" })
        }
        Event::DamageFound { stage, path, expected, found } => {
            let (path, expected, found) = (path.display(), short(expected), short(found));
            let what = format!("{path}: expected {expected}, found {found}; it will be made again");
            state("damaged", stage, &what)
        }
        Event::StagePinned { stage, repository } => state("pinned", stage, &repository.to_string()),
        Event::StageWaiting { stage, key, holder } => {
            state("waiting", stage, &format!("for {holder}, which is making key {}", key.short()))
        }
        Event::StageRemote { stage, text } => state("remote", stage, text),
        Event::StageCached { stage, key, seconds, .. } => {
            state("cached", stage, &format!("key {}, saves {}", key.short(), units::seconds(*seconds)))
        }
        Event::StageStarted { stage, key, .. } => state("running", stage, &format!("key {}", key.short())),
        Event::CheckpointDropped { stage, file, reason } => {
            state("damaged", stage, &format!("{file} of its checkpoint {reason}; this work is done again"))
        }
        Event::StageResumed { stage, done, total, unit } => {
            state("resumed", stage, &format!("from its checkpoint, {done} of {total} {unit} are done"))
        }
        Event::StageDone { stage, key, seconds, bytes, peak_bytes, .. } => {
            let peak =
                peak_bytes.map_or(String::new(), |peak| format!(", peak memory {}", units::bytes(peak)));
            let (took, size) = (units::seconds(*seconds), units::bytes(*bytes));
            state("done", stage, &format!("key {} in {took}, {size}{peak}", key.short()))
        }
        Event::GateCompared { stage, verdict } => {
            state(if verdict.met { "gate met" } else { "gate missed" }, stage, &verdict.in_words())
        }
        Event::StageFailed { stage, error } => state("failed", stage, error),
        Event::StageInterrupted { stage } => {
            state("interrupted", stage, "run the same command again to resume")
        }
        Event::StageSkipped { stage, because } => {
            state("skipped", stage, &format!("needs `{because}`, which failed or was skipped"))
        }
        Event::RunNote { text } => format!("note: {}", shown::line(&shown::message(text))),
        Event::RunDone { code, seconds, ran, cached, failed, skipped, folder } => {
            let counts = [
                (ran, "ran", true),
                (cached, "cached", true),
                (failed, "failed", false),
                (skipped, "skipped", false),
            ];
            let counts = counts.into_iter().filter(|(count, _, always)| *always || **count > 0);
            let counts: Vec<_> = counts.map(|(count, word, _)| format!("{count} {word}")).collect();
            let (took, end) = (units::seconds(*seconds), end(*code));
            let name = shown::line(&folder.display().to_string()).into_owned();
            let see = linked(&name, &folder.join(report::FILE), Stream::Stderr);
            format!("{end} in {took}: {}; see {see}", counts.join(", "))
        }
        Event::Hashing { .. } | Event::StageProgress { .. } | Event::StageNote { .. } => return None,
    })
}

fn short(digest: &Option<Digest>) -> String {
    digest.as_ref().map_or("nothing".to_owned(), Digest::short)
}

/// How a run ended, in words.
fn end(code: u8) -> &'static str {
    let is = |known: ExitCode| code == known.number();
    match code {
        _ if is(ExitCode::Done) => "done",
        _ if is(ExitCode::Gate) => "done, but a gate was not met,",
        _ if is(ExitCode::Interrupted) => "interrupted",
        _ => "failed",
    }
}

/// `running     scores: text`. The text can come from files: an error may repeat a caption or a name of a tensor.
pub(super) fn state(word: &str, stage: &StageId, text: &str) -> String {
    format!("{word:<STATE_WIDTH$} {stage}: {}", shown::line(&shown::message(text)))
}

/// The last parts of a path that is being hashed, which say enough on a line.
pub(super) fn hashed_file(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
    shown::line(&parts.into_iter().rev().collect::<Vec<_>>().join("/")).into_owned()
}

/// `hashing     unet/model.safetensors: 1.2 GB of 5.1 GB`.
pub(super) fn hashing(path: &Path, done: u64, total: u64) -> String {
    let (word, file) = ("hashing", hashed_file(path));
    format!("{word:<STATE_WIDTH$} {file}: {} of {}", units::bytes(done), units::bytes(total))
}

/// `3.2/s, 41.0 s left`, or `3.2 s each` of something slow.
pub(super) fn pace(per_second: f64, seconds_left: f64) -> String {
    let left = units::seconds(seconds_left);
    match per_second {
        rate if rate >= 1.0 => format!("{rate:.1}/s, {left} left"),
        rate if rate > 0.0 => format!("{} each, {left} left", units::seconds(rate.recip())),
        _ => "rate not yet known".to_owned(),
    }
}

/// The stage that an event ends, if it does.
pub(super) fn ended(event: &Event) -> Option<&StageId> {
    match event {
        Event::StageDone { stage, .. }
        | Event::StageFailed { stage, .. }
        | Event::StageInterrupted { stage } => Some(stage),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    #[test]
    fn a_long_run_tells_cached_stages_together() {
        let (key, digest) = (Digest::of(b"key"), Digest::of(b"files"));
        let cached = |stage: usize| Event::StageCached {
            stage: format!("s{stage}").into(),
            key,
            digest,
            seconds: 2.0,
        };
        let done =
            Event::StageDone { stage: "s40".into(), key, digest, seconds: 1.0, bytes: 10, peak_bytes: None };
        let tell = |count: usize| {
            let mut teller = Teller::default();
            let stages = (0..count).map(|stage| format!("s{stage}").into()).collect();
            let (name, program) = ("t".to_owned(), "1".to_owned());
            teller.line(&Event::RunStarted { format: 1, name, program, stages });
            let lines: Vec<_> = (0..3).filter_map(|stage| teller.line(&cached(stage))).collect();
            (lines.len(), teller.line(&done).unwrap_or_default())
        };
        let (lines, last) = tell(MANY);
        assert!(lines == 3 && last.ends_with("10 B"), "{last}");
        let (lines, last) = tell(MANY + 1);
        assert!(
            lines == 0 && last.starts_with("cached      3 stages, saves 6.0 s\ndone        s40"),
            "{last}"
        );
        assert!(last.ends_with("; 4 of 25"), "{last}");
    }
}
