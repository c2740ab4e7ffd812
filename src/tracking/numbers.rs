//! The numbers that a stage's artefact holds, by names that are the same in all branches of a sweep.

use std::path::Path;

use crate::base::{ArtefactKind, StageId, clock};
use crate::metric::{Measurement, Metrics};
use crate::prune::{RECONSTRUCTION_FILE, Reconstruction};
use crate::run::{ArtefactRecord, StageRecord};
use crate::score::Scores;
use crate::select::Selection;

/// Numbers by their names.
pub(super) type Numbers = Vec<(String, f64)>;

/// What a stage made, cost and found, if it has its artefact: `student/seconds`, `quality/pruned/clip-score`. An artefact that
/// cannot be read has what it cost alone; the report says what is wrong with it.
pub(super) fn of(stage: &StageRecord, kind: ArtefactKind, origin: &StageId) -> Numbers {
    let Some(artefact) = &stage.artefact else { return Numbers::new() };
    let mut numbers =
        vec![("seconds".to_owned(), artefact.seconds), ("bytes".to_owned(), artefact.bytes as f64)];
    numbers.extend(artefact.peak_bytes.map(|bytes| ("peak_bytes".to_owned(), bytes as f64)));
    let path = &artefact.path;
    numbers.extend(
        match kind {
            ArtefactKind::Metrics => measured(path),
            ArtefactKind::Selection => Selection::open(path).ok().map(|found| selected(&found)),
            ArtefactKind::Scores => Scores::open(path).ok().map(|found| scored(&found)),
            ArtefactKind::Model if stage.stage == "reconstruct" => {
                Reconstruction::open(path).ok().map(|found| reconstructed(&found))
            }
            _ => None,
        }
        .unwrap_or_default(),
    );
    if !stage.gates.is_empty() {
        let met = stage.gates.iter().filter(|verdict| verdict.met).count();
        numbers.push(("gates_met".to_owned(), met as f64));
        numbers.push(("gates_missed".to_owned(), (stage.gates.len() - met) as f64));
    }
    numbers.retain(|(_, value)| value.is_finite());
    numbers.into_iter().map(|(name, value)| (format!("{origin}/{name}"), value)).collect()
}

/// When an artefact was made, in milliseconds since 1970.
pub(super) fn made(artefact: &ArtefactRecord) -> u64 {
    clock::seconds_of(&artefact.finished).map_or(0, |seconds| seconds.max(0) as u64 * 1000)
}

/// The small files of an artefact that say what it holds.
pub(super) fn files(stage: &StageRecord, kind: ArtefactKind) -> &'static [&'static str] {
    match kind {
        ArtefactKind::Metrics => &["metrics.json"],
        ArtefactKind::Selection => &["selection.json"],
        ArtefactKind::Scores => &["scores.json"],
        ArtefactKind::Model if stage.stage == "reconstruct" => &[RECONSTRUCTION_FILE],
        _ => &[],
    }
}

/// Each metric of each model with the ends of its interval.
fn measured(folder: &Path) -> Option<Numbers> {
    let metrics = Metrics::open(folder).ok()?;
    let timings = Metrics::open_timings(folder).ok().flatten();
    let models = std::iter::once(&metrics).chain(&timings).flat_map(|metrics| &metrics.models);
    let all = models.flat_map(|model| {
        model.metrics.iter().flat_map(|(name, found)| measurement(&format!("{}/{name}", model.model), found))
    });
    Some(all.collect())
}

fn measurement(name: &str, found: &Measurement) -> Numbers {
    let estimate = |ending: &str, value: f64, low: Option<f64>, high: Option<f64>| {
        let ends = [(".low", low), (".high", high)];
        let ends = ends.into_iter().filter_map(|(end, value)| Some((format!("{name}{ending}{end}"), value?)));
        std::iter::once((format!("{name}{ending}"), value)).chain(ends).collect::<Numbers>()
    };
    let share = found
        .of_teacher
        .map(|share| estimate(".percent_of_teacher", share, found.of_teacher_low, found.of_teacher_high));
    let retained = found.retained.map(|kept| estimate(".percent_retained", kept.value, kept.low, kept.high));
    let own = estimate("", found.value, found.low, found.high);
    own.into_iter().chain(share.into_iter().flatten()).chain(retained.into_iter().flatten()).collect()
}

fn selected(selection: &Selection) -> Numbers {
    let predicted = &selection.predicted;
    let mut numbers = vec![
        ("ratio_reached".to_owned(), selection.ratio_reached),
        ("removed_units".to_owned(), selection.removed.len() as f64),
        ("removed_parameters".to_owned(), selection.removed_parameters as f64),
        ("predicted/objective".to_owned(), predicted.objective),
    ];
    let known = [("additive", predicted.additive), ("gram", predicted.gram), ("gap", predicted.gap)];
    numbers.extend(known.into_iter().filter_map(|(name, value)| Some((format!("predicted/{name}"), value?))));
    for (name, loss) in &predicted.joint {
        let ends = [("", loss.loss), (".low", loss.low), (".high", loss.high)];
        numbers.extend(ends.map(|(end, value)| (format!("predicted/joint {name}{end}"), value)));
    }
    numbers.extend(selection.refinement.iter().map(|found| ("refined_loss".to_owned(), found.measured)));
    numbers
}

fn scored(scores: &Scores) -> Numbers {
    let mut numbers = vec![("units".to_owned(), scores.units.len() as f64)];
    for (name, found) in scores.additivity.iter().flat_map(|found| &found.agreement) {
        let all = [("r2", found.r2), ("spearman", found.spearman), ("slope", found.slope)];
        numbers.extend(all.map(|(kind, value)| (format!("additivity {name}/{kind}"), value)));
    }
    numbers
}

fn reconstructed(found: &Reconstruction) -> Numbers {
    vec![
        ("loss_before".to_owned(), found.before),
        ("loss_after".to_owned(), found.after),
        ("added_parameters".to_owned(), found.added_parameters as f64),
    ]
}
