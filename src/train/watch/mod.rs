//! Those who watch a training while it runs: TensorBoard's event files, an MLflow server.
//!
//! A watcher changes nothing of a training, never delays it and never ends it: what goes wrong is noted once.

mod client;
mod mlflow;
mod mlflow_picture;
mod mlflow_run;
mod record;
mod server;
mod tensorboard;
#[cfg(all(test, feature = "hub"))]
mod tests;

use std::path::Path;

pub use mlflow::{MlFlow, Told};
pub use server::Server;
pub use tensorboard::TensorBoard;

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did all its steps.
    Done,
    /// It was asked to stop, and will resume.
    Interrupted,
    /// It failed.
    Failed,
}

/// A picture.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// Steps done.
    pub step: u64,
    /// Its name, which those of other steps share.
    pub name: &'a str,
    /// Its bytes as PNG.
    pub png: &'a [u8],
    /// The file with the same bytes, which outlives a crash.
    pub path: &'a Path,
    /// Width and height.
    pub size: (u32, u32),
}

/// Receives what a training measures.
pub trait Watcher: Sync {
    /// The training does this step next; what a killed attempt measured from there on is measured again.
    fn begin(&self, step: u64);
    /// Numbers that an earlier attempt measured before that step. A watcher that keeps at once what it is told need not look at them.
    fn earlier(&self, _step: u64, _numbers: &dyn Fn() -> Vec<(String, f64)>) {}
    /// Numbers measured at a step, by names such as `loss/total`.
    fn numbers(&self, step: u64, numbers: &[(String, f64)]);
    /// A picture that was drawn.
    fn picture(&self, picture: &Drawn<'_>);
    /// A picture that an earlier attempt drew before the first step of this one, in this file.
    fn earlier_picture(&self, _step: u64, _name: &str, _path: &Path) {}
    /// The training is over.
    fn end(&self, end: End);
}

/// Several watchers, or none.
#[derive(Default)]
pub struct Watchers<'a>(pub Vec<Box<dyn Watcher + 'a>>);

impl Watcher for Watchers<'_> {
    fn begin(&self, step: u64) {
        self.0.iter().for_each(|one| one.begin(step));
    }

    fn earlier(&self, step: u64, numbers: &dyn Fn() -> Vec<(String, f64)>) {
        self.0.iter().for_each(|one| one.earlier(step, numbers));
    }

    fn numbers(&self, step: u64, numbers: &[(String, f64)]) {
        self.0.iter().for_each(|one| one.numbers(step, numbers));
    }

    fn picture(&self, picture: &Drawn<'_>) {
        self.0.iter().for_each(|one| one.picture(picture));
    }

    fn earlier_picture(&self, step: u64, name: &str, path: &Path) {
        self.0.iter().for_each(|one| one.earlier_picture(step, name, path));
    }

    fn end(&self, end: End) {
        self.0.iter().for_each(|one| one.end(end));
    }
}
