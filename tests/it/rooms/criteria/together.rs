//! All criteria at once: as alone, after any interruption, and with their needs checked first.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::model::{CPU, Model, alone, context};
use crate::small_unets;
use crate::small_unets::{brightness, configs, points, schedule};
use candle_core::Tensor;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress};
use laptop_diff::model::unet::UNet;
use laptop_diff::score::{CRITERIA, Need, ScoreError, Scores, Teacher, criterion, score};

/// Asks for a stop whenever something is done.
struct Impatient<'a> {
    interrupt: &'a Interrupt,
    begun: AtomicBool,
}

impl Progress for Impatient<'_> {
    fn length(&self, _total: u64, _unit: &'static str) {
        self.begun.store(false, Relaxed);
    }
    fn position(&self, _done: u64) {
        // The first position is where the work stood.
        if self.begun.swap(true, Relaxed) {
            self.interrupt.ask();
        }
    }
    fn note(&self, _text: &str) {}
}

#[test]
fn criteria_together_are_what_they_are_alone_and_after_any_interruption() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(3);
    let model = Model::new(&config, 7)?;
    let points = points(&model.config, 5, 8).expect("points");
    let schedule = schedule("epsilon");
    let draw = |unet: &UNet| Ok(brightness(unet, &points));
    let teacher = Teacher { clip_score: Some(&draw), ..model.teacher(&points, &schedule) };
    let calm = Interrupt::default();
    let together = tempfile::tempdir().expect("a folder");
    let expected = score(&teacher, &small_unets::criteria(), &context(2, together.path(), &Silent, &calm))?;
    for name in CRITERIA.iter().map(|info| info.name) {
        let of_all: Vec<f64> = expected.units.iter().map(|unit| unit.scores[name]).collect();
        assert_eq!(alone(&teacher, name, 2)?, of_all, "{name}");
        assert!(of_all.iter().collect::<Vec<_>>().windows(2).any(|pair| pair[0] != pair[1]), "{name}");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let mut interruptions = 0;
    let found = loop {
        let interrupt = Interrupt::default();
        let progress = Impatient { interrupt: &interrupt, begun: AtomicBool::new(false) };
        match score(&teacher, &small_unets::criteria(), &context(2, folder.path(), &progress, &interrupt)) {
            Err(ScoreError::Interrupted(_)) => interruptions += 1,
            other => break other?,
        }
    };
    assert_eq!(found, expected);
    // After each of three batches of the pass that fits repairs and of the traversal, of five timesteps, and of all galleries
    // but the last.
    assert_eq!(interruptions, 3 + 3 + 5 + model.unet.units().len());
    Ok(())
}

#[test]
fn what_a_criterion_needs_is_asked_for_before_anything_is_computed() -> miette::Result<()> {
    let (_, config) = configs().swap_remove(0);
    let model = Model::new(&config, 9)?;
    let points = points(&model.config, 2, 10).expect("points");
    let schedule = schedule("epsilon");
    let bare = Teacher { schedule: None, ..model.teacher(&points, &schedule) };
    let folder = tempfile::tempdir().expect("a folder");
    let interrupt = Interrupt::default();
    let context = context(2, folder.path(), &Silent, &interrupt);
    let needy = |found: Result<Scores, ScoreError>| match found {
        Err(ScoreError::Needs { criterion, need }) => Some((criterion, need)),
        _ => None,
    };
    for one in small_unets::criteria() {
        let missing = one.needs().iter().copied().find(|need| *need != Need::Traversal);
        let first = [criterion(CRITERIA[0].name)?, one.clone()];
        let expected = missing.map(|need| (one.info().name, need));
        assert_eq!(needy(score(&bare, &first, &context)), expected);
        if missing.is_some() {
            assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "it computed first");
        }
        for entry in std::fs::read_dir(folder.path()).expect("a folder") {
            std::fs::remove_file(entry.expect("an entry").path()).expect("ours");
        }
    }
    let velocity = small_unets::schedule("v_prediction");
    let mut late = points.clone();
    late.timestep = Tensor::new(&[3i64, 1000], &CPU).expect("two timesteps");
    for name in ["delta-task-loss", "taylor"] {
        let teacher = model.teacher(&late, &velocity);
        let found = score(&teacher, &[criterion(name)?], &context);
        assert!(matches!(found, Err(ScoreError::Sample(_))), "{name} at timestep 1000");
    }
    Ok(())
}
