//! Bars for terminals: one per running stage, with rate and time left; lines above them for the rest.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::words::{self, Teller};
use crate::base::{StageId, shown};
use crate::run::{Event, Sink};

/// A stage that has not given its length.
const WITHOUT_LENGTH: &str = "running     {prefix} {spinner} {elapsed} {wide_msg}";

/// A stage that has given its length.
const WITH_LENGTH: &str = "running     {prefix} [{bar:24}] {pos}/{len} {unit}, {pace} {wide_msg}";

/// A large file, of whose bytes the digest is computed.
const HASHING: &str = "hashing     {prefix} [{bar:24}] {bytes}/{total_bytes}, {eta} left";

/// A stage whose id is too long to leave room for a bar, as ids of sweeps can be.
const WITH_LONG_NAME: &str = "running     {prefix} {pos}/{len} {unit}, {pace} {wide_msg}";
const LONG_NAME: usize = 32;

/// Draws on stderr.
pub struct Bars {
    all: MultiProgress,
    running: Mutex<HashMap<StageId, ProgressBar>>,
    /// The file that is being hashed.
    hashing: Mutex<Option<ProgressBar>>,
    teller: Mutex<Teller>,
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Bars {
    /// Bars on stderr.
    pub fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            running: Mutex::default(),
            hashing: Mutex::default(),
            teller: Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<StageId, ProgressBar>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, stage: &StageId) {
        let bar =
            ProgressBar::new_spinner().with_prefix(stage.to_string()).with_style(style(WITHOUT_LENGTH, ""));
        let bar = self.all.add(bar);
        bar.enable_steady_tick(Duration::from_millis(200));
        self.running().insert(stage.clone(), bar);
    }

    /// Shows how far a file is hashed. Any other event ends the bar: nothing else happens meanwhile.
    fn hash(&self, event: &Event) {
        let mut hashing = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Hashing { path, done, total } if done < total => {
                let bar = hashing.get_or_insert_with(|| {
                    self.all.add(ProgressBar::new(*total).with_style(style(HASHING, "")))
                });
                bar.set_length(*total);
                bar.set_prefix(words::hashed_file(path));
                bar.set_position(*done);
            }
            _ => {
                if let Some(bar) = hashing.take() {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
        }
    }

    fn advance(&self, stage: &StageId, done: u64, total: u64, unit: &str) {
        let running = self.running();
        let Some(bar) = running.get(stage) else { return };
        if bar.length() == Some(total) {
            bar.set_position(done);
            return;
        }
        let template = if stage.as_str().len() > LONG_NAME { WITH_LONG_NAME } else { WITH_LENGTH };
        bar.set_style(style(template, unit));
        bar.set_length(total);
        // A resumed stage begins above zero; its rate counts from there.
        bar.set_position(done);
        bar.reset_eta();
    }
}

impl Sink for Bars {
    fn event(&self, event: &Event) {
        self.hash(event);
        match event {
            Event::StageStarted { stage, .. } => return self.start(stage),
            Event::StageProgress { stage, done, total, unit } => {
                return self.advance(stage, *done, *total, unit);
            }
            Event::StageNote { stage, text } => {
                if let Some(bar) = self.running().get(stage) {
                    bar.set_message(shown::line(text).into_owned());
                }
                return;
            }
            _ => {}
        }
        if let Some(bar) = words::ended(event).and_then(|stage| self.running().remove(stage)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        let line = self.teller.lock().unwrap_or_else(PoisonError::into_inner).line(event);
        if let Some(line) = line {
            // A closed terminal must not stop the work.
            let _ = self.all.println(line);
        }
    }
}

/// The style of a bar. The unit is a word of the stage, which is put into the template.
pub(super) fn style(template: &str, unit: &str) -> ProgressStyle {
    let template = template.replace("{unit}", &unit.replace(['{', '}'], ""));
    let pace = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = out.write_str(&words::pace(state.per_sec(), state.eta().as_secs_f64()));
    };
    let style = ProgressStyle::with_template(&template).expect("the templates are well formed");
    style.progress_chars("=> ").with_key("pace", pace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::io;
    use std::sync::Arc;

    /// Remembers all that was drawn, one frame after the other.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl Terminal {
        fn take(&self) -> String {
            std::mem::take(&mut self.0.lock().expect("no test panics while it holds this"))
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("no test panics while it holds this").push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_shows_rate_and_time_left_until_its_stage_ends() {
        let terminal = Terminal::default();
        let bars = Bars::new();
        bars.all.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let (stage, key, digest) = (StageId::from("scores"), Digest::of(b"key"), Digest::of(b"files"));
        bars.event(&Event::StageCached { stage: "points".into(), key, digest, seconds: 41.0 });
        let cached = format!("cached      points: key {}, saves 41.0 s", key.short());
        assert!(terminal.take().contains(&cached));

        bars.event(&Event::StageStarted { stage: stage.clone(), name: "score".into(), key });
        let progress =
            |done| Event::StageProgress { stage: stage.clone(), done, total: 256, unit: "points".into() };
        bars.event(&progress(1));
        bars.event(&progress(128));
        bars.event(&Event::StageNote { stage: stage.clone(), text: "down_blocks.0".into() });
        bars.running().values().for_each(ProgressBar::tick);
        let shown = terminal.take();
        for part in ["running     scores [===========", " 128/256 points, ", "/s, ", " left down_blocks.0"] {
            assert!(shown.contains(part), "`{part}` is not in {shown}");
        }

        bars.event(&Event::StageDone { stage, key, digest, seconds: 2.0, bytes: 10, peak_bytes: None });
        let last = terminal.take();
        assert!(last.contains("done        scores: key"), "{last}");
        assert!(bars.running().is_empty());
    }

    #[test]
    fn a_file_that_is_hashed_has_a_bar_until_its_end() {
        let terminal = Terminal::default();
        let bars = Bars::new();
        bars.all.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let event = |done| Event::Hashing { path: "/sd/unet/model.safetensors".into(), done, total: 8 << 30 };
        bars.event(&event(1 << 30));
        let shown = terminal.take();
        assert!(shown.contains("hashing     unet/model.safetensors [==="), "{shown}");
        bars.event(&event(8 << 30));
        assert!(bars.hashing.lock().expect("no test panics while it holds this").is_none());
    }
}
