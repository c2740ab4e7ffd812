//! Selections improved by measuring on a small random U-Net: never worse, within the evaluations, and resumable.

use std::collections::BTreeSet;
use std::path::Path;

use crate::small_unets::{configs, points, weights};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, UnitId};
use laptop_diff::data::Calibration;
use laptop_diff::model::network::UnitKind;
use laptop_diff::model::unet::{UNet, UNetConfig};
use laptop_diff::score::{
    Gram, Limits, ScoreError, Scores, ScoringContext, UnitScores, joint_losses, joint_products, traverse,
};
use laptop_diff::select::{Method, Refinement, Refiner, SOLVERS, Selection, SelectionRequest};

struct Sandbox {
    unet: UNet,
    points: Calibration,
    scores: Scores,
}

impl Sandbox {
    fn new(config: &serde_json::Value) -> miette::Result<Self> {
        let config = UNetConfig::parse(&config.to_string())?;
        let vb = VarBuilder::from_tensors(weights(&config, 5).expect("weights"), DType::F32, &Device::Cpu);
        let unet = UNet::new(config, vb).expect("the weights fit");
        let points = points(unet.config(), 4, 2).expect("points");
        let folder = tempfile::tempdir().expect("a folder");
        let gram = traverse(&unet, &points, None, &context(folder.path(), &Interrupt::default()))?.gram;
        let unit = |(place, unit): (usize, &laptop_diff::model::network::Unit)| UnitScores {
            id: unit.id.clone(),
            kind: unit.kind,
            parameters: unit.parameters,
            macs: unit.macs,
            parent: unit.parent.clone(),
            scores: [("output-loss".to_owned(), gram.at(place, place))].into(),
        };
        let scores = Scores {
            criteria: vec!["output-loss".to_owned()],
            unet_parameters: unet.parameters(),
            units: unet.units().iter().enumerate().map(unit).collect(),
            gram: Some(Gram::clone(&gram)),
            ..Scores::default()
        };
        Ok(Self { unet, points, scores })
    }

    /// Refines the additive selection of half the parameters with checkpoints in `folder`, and counts the measured sets.
    fn refine(
        &self,
        evaluations: usize,
        folder: &Path,
        mut before: impl FnMut(usize) -> Result<(), ScoreError>,
    ) -> miette::Result<(BTreeSet<UnitId>, Refinement, usize)> {
        let request = SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), Some(0.5));
        let selection = Selection::make(&self.scores, &request, &Random::new(1, "selection"))?;
        let mut measured = 0;
        let (removed, refinement) =
            Refiner::new(&self.scores, &request, &selection)?.refine(evaluations, &mut |sets| {
                before(measured)?;
                measured += sets.len();
                joint_products(&self.unet, &self.points, sets, &context(folder, &Interrupt::default()))
            })?;
        Ok((removed, refinement, measured))
    }
}

fn context<'a>(checkpoint: &'a Path, interrupt: &'a Interrupt) -> ScoringContext<'a> {
    ScoringContext { limits: Limits::default(), weights: None, checkpoint, progress: &Silent, interrupt }
}

#[test]
fn refining_is_never_worse_and_uses_no_more_than_its_evaluations() -> miette::Result<()> {
    for (name, config) in configs().into_iter().take(2) {
        let sandbox = Sandbox::new(&config)?;
        for evaluations in [0, 1, 3, 7, 30, 61] {
            let folder = tempfile::tempdir().expect("a folder");
            let (removed, refinement, measured) = sandbox.refine(evaluations, folder.path(), |_| Ok(()))?;
            assert_eq!(measured, refinement.candidates.len() + refinement.evaluations, "{name}");
            assert!(
                refinement.evaluations <= evaluations,
                "{name}: {} of {evaluations}",
                refinement.evaluations
            );
            assert_eq!(refinement.candidates[0].name, "additive");
            assert!(refinement.candidates.iter().all(|one| refinement.measured <= one.measured), "{name}");
            assert!(refinement.history.windows(2).all(|pair| pair[1].measured < pair[0].measured));
            assert!(sandbox.scores.parameters(&removed) * 2 >= sandbox.scores.unet_parameters, "{name}");
            // What it says was measured is what removing those units does.
            let found = joint_losses(
                &sandbox.unet,
                &sandbox.points,
                &[removed],
                &context(folder.path(), &Interrupt::default()),
            )?[0];
            assert!(
                (found / refinement.measured - 1.0).abs() < 1e-6,
                "{name}: {found} {}",
                refinement.measured
            );
        }
    }
    Ok(())
}

/// Units of one parameter each, with effects that add exactly; their scores are the losses of each alone.
fn units_of(effects: &[[f64; 4]]) -> Scores {
    let unit = |(place, effect): (usize, &[f64; 4])| UnitScores {
        id: format!("unit.{place}").into(),
        kind: UnitKind::Resnet,
        parameters: 1,
        macs: 1,
        parent: None,
        scores: [("output-loss".to_owned(), effect.iter().map(|one| one * one).sum())].into(),
    };
    Scores {
        criteria: vec!["output-loss".to_owned()],
        unet_parameters: effects.len() as u64,
        units: effects.iter().enumerate().map(unit).collect(),
        ..Scores::default()
    }
}

#[test]
fn an_optimum_that_no_surrogate_proposes_is_found_by_exchanges() -> miette::Result<()> {
    // The first two are the most expensive alone and cost nothing together; without a Gram matrix no surrogate shows that.
    let effects = [
        [10.0, 0.0, 0.0, 0.0],
        [-10.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 1.1, 0.0],
        [0.0, 0.0, 0.0, 1.2],
        [0.0, 1.3, 0.0, 0.0],
        [0.0, 0.0, 1.4, 0.0],
        [0.0, 0.0, 0.0, 1.5],
    ];
    let scores = units_of(&effects);
    let request = SelectionRequest::new("output-loss", Method::Solver(SOLVERS[0]), Some(0.5));
    let mut selection = Selection::make(&scores, &request, &Random::new(1, "selection"))?;
    let effect = |set: &BTreeSet<UnitId>| {
        let gone = effects.iter().zip(&scores.units).filter(|(_, unit)| set.contains(&unit.id));
        gone.fold([0.0; 4], |sum, (effect, _)| std::array::from_fn(|at| sum[at] + effect[at]))
    };
    let found = Refiner::new(&scores, &request, &selection)?.refine(20, &mut |sets| {
        let pairs = sets.iter().flat_map(|one| sets.iter().map(move |two| (effect(one), effect(two))));
        Ok(pairs.map(|(one, two)| one.iter().zip(two).map(|(a, b)| a * b).sum()).collect())
    })?;
    let best: BTreeSet<UnitId> = [0, 1, 2, 3].map(|place| format!("unit.{place}").into()).into();
    assert_eq!(found.0, best, "{:?}", found.1);
    assert!((found.1.measured - 2.21).abs() < 1e-12);
    assert!(
        found.1.candidates.iter().all(|one| one.removed.iter().cloned().collect::<BTreeSet<_>>() != best)
    );
    selection.apply_refinement(&scores, &request, found)?;
    let folder = tempfile::tempdir().expect("a folder");
    selection.save(folder.path()).expect("a selection");
    let read = Selection::open(folder.path()).expect("a selection");
    assert_eq!((read.removed(), read.ratio_reached, read.budgets[0].reached), (best, 0.5, 0.5));
    assert_eq!(read.refinement.map(|one| one.history), selection.refinement.map(|one| one.history));
    assert_eq!(selection.baselines[0].name, "additive-knapsack");
    Ok(())
}

#[test]
fn an_interrupted_refinement_resumes_to_the_same_selection() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(1);
    let sandbox = Sandbox::new(&config)?;
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let whole = sandbox.refine(30, folders[0].path(), |_| Ok(()))?;
    let stopped = sandbox.refine(30, folders[1].path(), |measured| match measured {
        0..20 => Ok(()),
        _ => Err(ScoreError::Interrupted(laptop_diff::base::Interrupted)),
    });
    assert!(stopped.is_err());
    assert_eq!(sandbox.refine(30, folders[1].path(), |_| Ok(()))?, whole);
    Ok(())
}
