//! How long-running work reports its progress: a few calls, independent of how it is shown.

/// Receives the progress of one piece of work.
pub trait Progress: Sync {
    /// The work now consists of `total` pieces, called `unit` ("points", "steps", "pictures").
    fn length(&self, total: u64, unit: &'static str);
    /// `done` pieces are done, counted from the start (a resumed stage begins above zero).
    fn position(&self, done: u64);
    /// `done` pieces were found whole in a checkpoint and are not done again.
    fn resumed(&self, _done: u64) {}
    /// A file of a checkpoint cannot be used, and was removed.
    fn dropped(&self, file: &str, reason: &str) {
        self.note(&format!("{file} of the checkpoint {reason}; it is not used"));
    }
    /// A note, or a short status such as `loss 0.123`.
    fn note(&self, text: &str);
}

/// Discards the progress.
pub struct Silent;

impl Progress for Silent {
    fn length(&self, _total: u64, _unit: &'static str) {}
    fn position(&self, _done: u64) {}
    fn note(&self, _text: &str) {}
}

/// Remembers the notes, for tests.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Notes(pub(crate) std::sync::Mutex<Vec<String>>);

#[cfg(test)]
impl Progress for Notes {
    fn length(&self, _total: u64, _unit: &'static str) {}
    fn position(&self, _done: u64) {}
    fn note(&self, text: &str) {
        self.0.lock().expect("nobody panicked").push(text.to_owned());
    }
}
