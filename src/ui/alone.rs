//! The progress of a command that is no run: one bar on a terminal, and notes above it.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::bars::style;
use crate::base::Progress;

/// As the bar of a stage, without its name.
const TEMPLATE: &str = "[{bar:24}] {pos}/{len} {unit}, {pace}";

/// Draws on stderr while it lives; off a terminal only notes are written.
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
        // Not before: without a length there is nothing to show.
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }

    fn position(&self, done: u64) {
        self.bar.set_position(done);
    }

    fn note(&self, text: &str) {
        // A terminal that has gone away is no reason to stop the work.
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
