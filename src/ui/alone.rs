//! The progress of a command other than `run`: one bar on a terminal, with notes above it.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::bars::style;
use crate::base::{Progress, shown};

/// As the bar of a stage, without its name.
const TEMPLATE: &str = "[{bar:24}] {pos}/{len} {unit}, {pace}";

/// Draws on stderr until it is dropped; without a terminal, only notes are written.
#[derive(Debug)]
pub struct Alone {
    bar: ProgressBar,
}

impl Default for Alone {
    fn default() -> Self {
        Self { bar: ProgressBar::hidden() }
    }
}

impl Progress for Alone {
    fn length(&self, total: u64, unit: &'static str) {
        self.bar.set_style(style(TEMPLATE, unit));
        self.bar.set_length(total);
        // Only now: without a length there is nothing to show.
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }

    fn position(&self, done: u64) {
        self.bar.set_position(done);
    }

    fn note(&self, text: &str) {
        // A closed terminal must not stop the work.
        let text = shown::message(text);
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
