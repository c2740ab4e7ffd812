//! Those who watch a training from inside while it runs: TensorBoard's event files. An MLflow server is told of a training
//! from outside, from what it writes (`tracking`).
//!
//! A watcher changes nothing of a training, never delays it and never ends it: what goes wrong is noted once.

mod record;
mod tensorboard;

pub use record::{What, event};
pub use tensorboard::{FOLDER as TENSORBOARD, TensorBoard};

/// A picture.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// Steps done.
    pub step: u64,
    /// Its name, which those of other steps share.
    pub name: &'a str,
    /// Its bytes as PNG.
    pub png: &'a [u8],
    /// Width and height.
    pub size: (u32, u32),
}

/// Receives what a training measures.
pub trait Watcher: Sync {
    /// The training does this step next; what a killed attempt measured from there on is measured again.
    fn begin(&self, step: u64);
    /// Numbers measured at a step, by names such as `loss/total`.
    fn numbers(&self, step: u64, numbers: &[(String, f64)]);
    /// A picture that was drawn.
    fn picture(&self, picture: &Drawn<'_>);
    /// The training is over.
    fn end(&self);
}

/// Several watchers, or none.
#[derive(Default)]
pub struct Watchers<'a>(pub Vec<Box<dyn Watcher + 'a>>);

impl Watcher for Watchers<'_> {
    fn begin(&self, step: u64) {
        self.0.iter().for_each(|one| one.begin(step));
    }

    fn numbers(&self, step: u64, numbers: &[(String, f64)]) {
        self.0.iter().for_each(|one| one.numbers(step, numbers));
    }

    fn picture(&self, picture: &Drawn<'_>) {
        self.0.iter().for_each(|one| one.picture(picture));
    }

    fn end(&self) {
        self.0.iter().for_each(|one| one.end());
    }
}
