//! What criteria require.

/// An input that a criterion requires. Criteria with the same needs share what is gathered for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Evidence::traversal`](super::Evidence::traversal).
    Traversal,
    /// [`Evidence::task`](super::Evidence::task): a traversal, and the schedule that gives the target of each prediction.
    Task,
    /// [`Evidence::gradients`](super::Evidence::gradients): those of the task loss with respect to every weight.
    Gradients,
    /// [`Teacher::clip_score`](super::Teacher::clip_score).
    Pictures,
}

impl Need {
    /// What to give to the stage.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Traversal => "calibration points",
            Self::Task | Self::Gradients => "the noise schedule: a model directory with a `scheduler`",
            Self::Pictures => "pictures: a scorer and prompts, under `delta-clip`",
        }
    }
}
