//! What criteria look at: the teacher, and what is gathered from it once for all of them.

use super::{
    Criterion, Gradients, Gram, ScoreError, Task, TaskEffects, Traversal, Weighting, Work, gradients,
    traverse,
};
use crate::backend::{Random, memory};
use crate::data::Calibration;
use crate::model::files::weights::Weights;
use crate::model::unet::UNet;
use crate::sample::NoiseSchedule;

/// The mean CLIP score of the pictures that a U-Net draws, of the same prompts and from the same noise for each.
pub type ClipScore<'a> = dyn Fn(&UNet) -> Result<f64, ScoreError> + 'a;

/// A U-Net to be scored, and all that criteria may ask about it.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// The U-Net.
    pub unet: &'a UNet,
    /// Its weights as they lie on disk.
    pub weights: &'a Weights,
    /// What it is asked.
    pub points: &'a Calibration,
    /// The schedule that it was trained with.
    pub schedule: Option<&'a NoiseSchedule>,
    /// Draws pictures and judges them.
    pub clip_score: Option<&'a ClipScore<'a>>,
    /// What each timestep counts in `timestep-weighted`.
    pub weighting: Weighting,
    /// `diff-pruning` leaves out timesteps whose task loss is at most this share of the largest.
    pub threshold: f64,
    /// The stage's random streams.
    pub random: &'a Random,
}

/// What a criterion cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Evidence::traversal`].
    Traversal,
    /// [`Evidence::task`]: the traversal, and the schedule that says what the U-Net should have predicted.
    Task,
    /// [`Evidence::gradients`]: those of the task loss with respect to every weight.
    Gradients,
    /// [`Teacher::clip_score`].
    Pictures,
}

/// What criteria look at. What a criterion does not name among its needs may not be there.
pub struct Evidence<'a> {
    /// The U-Net that is scored.
    pub teacher: &'a Teacher<'a>,
    /// What a criterion that measures by itself runs with.
    pub work: &'a Work<'a>,
    traversal: Option<Traversal>,
    gradients: Option<Gradients>,
}

impl<'a> Evidence<'a> {
    /// Gathers what some of `criteria` need, after checking that all of it can be had.
    pub(super) fn gather(
        teacher: &'a Teacher<'a>,
        criteria: &[&dyn Criterion],
        work: &'a Work<'a>,
    ) -> Result<Self, ScoreError> {
        for criterion in criteria {
            for &need in criterion.needs() {
                teacher.check(criterion.info().name, need)?;
            }
        }
        let needed = |need| criteria.iter().any(|criterion| criterion.needs().contains(&need));
        let task = teacher.schedule.map(|schedule| Task { schedule, weighting: teacher.weighting });
        let asked = task.as_ref().filter(|_| needed(Need::Task));
        let traversal = match asked.is_some() || needed(Need::Traversal) {
            true => Some(traverse(teacher.unet, teacher.points, asked, work)?),
            false => None,
        };
        let gradients = match task.filter(|_| needed(Need::Gradients)) {
            Some(task) => {
                work.progress.note("differentiating the task loss");
                Some(gradients(teacher.unet, teacher.weights, teacher.points, &task, work)?)
            }
            None => None,
        };
        Ok(Self { teacher, work, traversal, gradients })
    }

    /// What the traversal found.
    pub fn traversal(&self) -> &Traversal {
        self.traversal.as_ref().expect("BUG: a criterion reads the traversal without saying so")
    }

    /// What the traversal found about the task.
    pub fn task(&self) -> &TaskEffects {
        self.traversal().task.as_ref().expect("BUG: a criterion reads the task without saying so")
    }

    /// What the gradients say.
    pub fn gradients(&self) -> &Gradients {
        self.gradients.as_ref().expect("BUG: a criterion reads gradients without saying so")
    }

    pub(super) fn into_gram(self) -> Option<Gram> {
        self.traversal.map(|traversal| traversal.gram)
    }
}

impl Teacher<'_> {
    /// Before hours of work, not after.
    fn check(&self, criterion: &'static str, need: Need) -> Result<(), ScoreError> {
        let there = match need {
            Need::Traversal => true,
            Need::Task | Need::Gradients => self.schedule.is_some(),
            Need::Pictures => self.clip_score.is_some(),
        };
        if !there {
            return Err(ScoreError::Needs { criterion, need });
        }
        match need {
            Need::Gradients => self.check_room_for_gradients(criterion),
            _ => Ok(()),
        }
    }

    fn check_room_for_gradients(&self, criterion: &'static str) -> Result<(), ScoreError> {
        // A weight and its gradient, four bytes each; the budget is half of what there is.
        let needed = 8 * self.unet.parameters();
        let there = memory::budget(self.points.sample.device()).saturating_mul(2);
        match needed > there {
            true => Err(ScoreError::NoRoomForGradients { criterion, needed, there }),
            false => Ok(()),
        }
    }
}

impl Need {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Traversal => "calibration points",
            Self::Task | Self::Gradients => "the noise schedule: a model directory with a `scheduler`",
            Self::Pictures => "pictures: a scorer and prompts, under `delta-clip`",
        }
    }
}
