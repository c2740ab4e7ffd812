//! Events for programs: one JSON object per line, as in `events.jsonl`, with progress.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::base::shown;
use crate::run::{Event, Sink};

/// Writes every event as a line of JSON.
pub struct Json<W> {
    out: Mutex<W>,
}

impl<W: Write + Send> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn event(&self, event: &Event) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed pipe must not stop the work.
        let _ = writeln!(out, "{}", shown::json(&event.line())).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Stamped;

    #[test]
    fn each_event_is_a_line() -> serde_json::Result<()> {
        let json = Json::new(Vec::new());
        let event = Event::StageNote { stage: "scores".into(), text: "two\nlines".into() };
        json.event(&event);
        json.event(&event);
        let text = String::from_utf8(json.out.into_inner().unwrap_or_default()).unwrap_or_default();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert_eq!(serde_json::from_str::<Stamped<Event>>(line)?.event, event);
        }
        Ok(())
    }
}
