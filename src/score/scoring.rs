//! Scoring every unit by several criteria.

use std::sync::Arc;

use super::context::ScoringContext;
use super::criterion::Criterion;
use super::error::ScoreError;
use super::evidence::Evidence;
use super::predictions;
use super::scores::{self, Scores, UnitScores};
use super::space::Space;
use super::teacher::Teacher;
use crate::model::network::Unit;

/// Scores every unit of `teacher` by each criterion. Any criterion that needs a traversal also gives the Gram matrix.
pub fn score(
    teacher: &Teacher<'_>,
    criteria: &[Arc<dyn Criterion>],
    context: &ScoringContext<'_>,
) -> Result<Scores, ScoreError> {
    if teacher.unet.units().is_empty() {
        return Err(ScoreError::NoUnits);
    }
    let needs: Vec<_> = criteria.iter().map(|criterion| (criterion.info().name, criterion.needs())).collect();
    let evidence = Evidence::gather(teacher, &needs, context)?;
    let unet = teacher.unet;
    let mut units: Vec<_> = unet.units().iter().map(unscored).collect();
    for criterion in criteria {
        let name = criterion.info().name;
        for (unit, value) in units.iter_mut().zip(criterion.scores(&evidence)?) {
            if !value.is_finite() {
                predictions::check(unet, teacher.points, context.limits.points)?;
                return Err(ScoreError::NotFinite { unit: unit.id.clone(), criterion: name, value });
            }
            unit.scores.insert(name.to_owned(), value);
        }
    }
    Ok(Scores {
        format: scores::FORMAT,
        criteria: criteria.iter().map(|criterion| criterion.info().name.to_owned()).collect(),
        space: Space::default(),
        points: teacher.points.len(),
        unet_parameters: unet.parameters(),
        unet: unet.config().to_json(),
        units,
        additivity: None,
        gram: evidence.into_gram(),
    })
}

fn unscored(unit: &Unit) -> UnitScores {
    UnitScores {
        id: unit.id.clone(),
        kind: unit.kind,
        parameters: unit.parameters,
        macs: unit.macs,
        parent: unit.parent.clone(),
        scores: Default::default(),
    }
}
