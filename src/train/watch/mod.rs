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

/// Receives what a training measures.
pub trait Watcher: Sync {
    /// The training does this step next; what a killed attempt measured from there on is measured again.
    fn begin(&self, step: u64);
    /// Numbers that an earlier attempt measured before that step. A watcher that keeps at once what it is told need not look at them.
    fn earlier(&self, _step: u64, _numbers: &dyn Fn() -> Vec<(String, f64)>) {}
    /// Numbers measured at a step, by names such as `loss/total`.
    fn numbers(&self, step: u64, numbers: &[(String, f64)]);
    /// A picture drawn after so many steps, as PNG of this width and height.
    fn picture(&self, step: u64, name: &str, png: &[u8], size: (u32, u32));
    /// A picture that an earlier attempt drew before the first step of this one; `None` if it cannot be read.
    fn earlier_picture(&self, _step: u64, _name: &str, _png: &dyn Fn() -> Option<Vec<u8>>) {}
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

    fn picture(&self, step: u64, name: &str, png: &[u8], size: (u32, u32)) {
        self.0.iter().for_each(|one| one.picture(step, name, png, size));
    }

    fn earlier_picture(&self, step: u64, name: &str, png: &dyn Fn() -> Option<Vec<u8>>) {
        self.0.iter().for_each(|one| one.earlier_picture(step, name, png));
    }

    fn end(&self, end: End) {
        self.0.iter().for_each(|one| one.end(end));
    }
}
