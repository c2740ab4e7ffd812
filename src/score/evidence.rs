//! What criteria look at: the teacher, and measurements of it that several criteria share.

use super::context::ScoringContext;
use super::error::ScoreError;
use super::gradients::{Gradients, gradients};
use super::gram::Gram;
use super::need::Need;
use super::teacher::Teacher;
use super::traversal::{TaskEffects, Traversal, traverse};

/// What criteria look at. A criterion may read only what it lists among its needs.
pub struct Evidence<'a> {
    /// The model that is scored.
    pub teacher: &'a Teacher<'a>,
    /// For criteria that measure by themselves.
    pub context: &'a ScoringContext<'a>,
    traversal: Option<Traversal>,
    gradients: Option<Gradients>,
}

impl<'a> Evidence<'a> {
    /// Gathers what the criteria of these names need, after checking that all of it can be gathered.
    pub(super) fn gather(
        teacher: &'a Teacher<'a>,
        needs: &[(&'static str, &'static [Need])],
        context: &'a ScoringContext<'a>,
    ) -> Result<Self, ScoreError> {
        for &(criterion, needs) in needs {
            needs.iter().try_for_each(|&need| teacher.check(criterion, need))?;
        }
        let needed = |need| needs.iter().any(|(_, needs)| needs.contains(&need));
        let task = teacher.schedule.filter(|_| needed(Need::Task));
        let traversal = match task.is_some() || needed(Need::Traversal) {
            true => Some(traverse(teacher.unet, teacher.points, task, context)?),
            false => None,
        };
        let gradients = match teacher.schedule.filter(|_| needed(Need::Gradients)) {
            Some(schedule) => {
                context.progress.note("differentiating the task loss");
                Some(gradients(teacher.unet, teacher.weights, teacher.points, schedule, context)?)
            }
            None => None,
        };
        Ok(Self { teacher, context, traversal, gradients })
    }

    /// The results of the traversal; for [`Need::Traversal`] and [`Need::Task`].
    pub fn traversal(&self) -> &Traversal {
        self.traversal.as_ref().expect("BUG: a criterion reads the traversal without needing it")
    }

    /// The results of the traversal that concern the task; for [`Need::Task`].
    pub fn task(&self) -> &TaskEffects {
        self.traversal().task.as_ref().expect("BUG: a criterion reads the task without needing it")
    }

    /// The gradients; for [`Need::Gradients`].
    pub fn gradients(&self) -> &Gradients {
        self.gradients.as_ref().expect("BUG: a criterion reads gradients without needing them")
    }

    pub(super) fn into_gram(self) -> Option<Gram> {
        self.traversal.map(|traversal| traversal.gram)
    }
}
