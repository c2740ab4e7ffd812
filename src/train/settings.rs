//! How a training is kept and watched on this machine. Nothing here changes a result or enters a key.

/// How a training is kept and watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingSettings {
    /// A checkpoint after so many steps.
    pub checkpoint_every_steps: Option<u64>,
    /// A checkpoint after so many minutes.
    pub checkpoint_every_minutes: Option<u64>,
    /// How many checkpoints are kept while it trains.
    pub keep_checkpoints: usize,
    /// Whether the state at the end is kept, so that more steps can go on from there.
    pub keep_state: bool,
    /// Whether event files for TensorBoard are written into the run folder.
    pub tensorboard: bool,
}
