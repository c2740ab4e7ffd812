//! The state of a training: weights, moments, average and step in one file, so that they cannot disagree.
//!
//! The random streams are named by the step, so no generator state is kept. The facts are JSON in the file's own
//! header. More than one checkpoint is kept: where the newest one is damaged, the training resumes from the one before.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::error::DistillError;
use super::history::{HISTORY_FILE, HistoryLine};
use super::lines::{self, Mark};
use super::term_weights::Measured;
use super::validation::VALIDATION_FILE;
use crate::base::{FileError, Mapping, Progress, kept};
use crate::model::files::weights;
use crate::nn::copies;
use crate::train::collective::{Collective, hear, tell};
use crate::train::{Held, gather};

const KEY: &str = "laptop-diff.distill";
/// History: 1, the first; 2, with a digest of the losses; 3, with the weights of task and output; 4, with the validations and
/// the last line of the losses.
const FORMAT: u32 = 4;

/// The facts beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainingState {
    format: u32,
    /// Steps done.
    pub(super) step: u64,
    /// Weights of the terms, measured once at the start.
    pub(super) measured: Measured,
    /// The history up to this step.
    pub(super) history: Mark,
    /// The validations before this step.
    pub(super) validation: Mark,
    /// The line of the history that ends it because no step follows, if it has no other reason to be written.
    pub(super) last: Option<HistoryLine>,
}

impl TrainingState {
    pub(super) fn new(
        step: u64,
        measured: Measured,
        history: Mark,
        validation: Mark,
        last: Option<HistoryLine>,
    ) -> Self {
        Self { format: FORMAT, step, measured, history, validation, last }
    }

    /// That of a training that begins.
    pub(super) fn first(measured: Measured) -> Self {
        Self::new(0, measured, Mark::default(), Mark::default(), None)
    }
}

/// Writes a checkpoint with the tensors of all ranks into `folder`, of which the newest `keep` stay. Older ones are removed
/// first, so that there are never more.
pub(super) fn save(
    folder: &Path,
    state: &TrainingState,
    tensors: &[Held],
    collective: &dyn Collective,
    keep: usize,
) -> Result<(), DistillError> {
    gather(collective, tensors, |tensors| {
        for old in list(folder)?.iter().skip(keep.max(1) - 1) {
            kept::remove(old).map_err(DistillError::file(old))?;
        }
        let facts = serde_json::to_string(state).expect("numbers and names serialise");
        let path = folder.join(name_of(state.step));
        Ok(kept::write(&path, |path| {
            let metadata = HashMap::from([(KEY.to_owned(), facts)]);
            weights::write_with(path, tensors, Some(metadata)).map_err(FileError::at(path))
        })?)
    })
}

/// Fills `tensors` from the newest checkpoint in `folder` that is whole and fits the history; `None` if there is none.
/// Others are removed, with a note. Rank 0 chooses, and all ranks read the same file.
pub(super) fn load(
    folder: &Path,
    tensors: &[Held],
    collective: &dyn Collective,
    progress: &dyn Progress,
) -> Result<Option<TrainingState>, DistillError> {
    if collective.rank() > 0 {
        let Some(step) = hear::<Option<u64>>(collective)? else { return Ok(None) };
        let path = folder.join(name_of(step));
        let other = |reason| DistillError::OtherCheckpoint { path: path.clone(), reason };
        return fill(&path, tensors)?.map_err(other).map(Some);
    }
    let mut found = None;
    for path in list(folder)? {
        if !kept::is_whole(&path, progress)? {
            continue;
        }
        match read(&path, tensors)? {
            Ok(state) => {
                found = Some(state);
                break;
            }
            Err(reason) => kept::discard(&path, &reason, progress)?,
        }
    }
    tell(collective, &found.as_ref().map(|state| state.step))?;
    Ok(found)
}

/// The name of the checkpoint after so many steps.
pub fn name_of(step: u64) -> String {
    format!("distill-{step:09}.safetensors")
}

/// The step of a checkpoint, which its name has.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.strip_prefix("distill-")?.parse().ok()
}

/// The checkpoints of a folder, the newest first.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, DistillError> {
    let names =
        || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut paths = names().map_err(DistillError::file(folder))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("distill-") && name.ends_with(".safetensors")
    });
    paths.sort_by(|one, two| two.cmp(one));
    Ok(paths)
}

/// Fills `tensors` from one checkpoint that fits the records; changes none if it cannot be used, and says why.
fn read(path: &Path, tensors: &[Held]) -> Result<Result<TrainingState, String>, DistillError> {
    let bytes = Mapping::open(path).map_err(DistillError::file(path))?;
    if let Ok((state, _)) = parse(&bytes, tensors) {
        for (name, mark) in [(HISTORY_FILE, &state.history), (VALIDATION_FILE, &state.validation)] {
            if !lines::holds(&path.with_file_name(name), mark)? {
                return Ok(Err(format!("does not fit {name}, which is damaged")));
            }
        }
    }
    fill(path, tensors)
}

/// Fills those of `tensors` that this rank has.
fn fill(path: &Path, tensors: &[Held]) -> Result<Result<TrainingState, String>, DistillError> {
    let bytes = Mapping::open(path).map_err(DistillError::file(path))?;
    let (state, found) = match parse(&bytes, tensors) {
        Ok(parsed) => parsed,
        Err(reason) => return Ok(Err(reason)),
    };
    for (found, held) in found.iter().zip(tensors) {
        if let Some(variable) = &held.variable {
            copies::set(variable, &found.load(variable.device())?)?;
        }
    }
    Ok(Ok(state))
}

/// The facts, and the tensors in the order of `tensors`.
fn parse<'a>(bytes: &'a [u8], tensors: &[Held]) -> Result<(TrainingState, Vec<TensorView<'a>>), String> {
    let contents = SafeTensors::deserialize(bytes).map_err(|error| format!("cannot be read: {error}"))?;
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| format!("cannot be read: {error}"))?;
    let facts = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let facts = facts.ok_or_else(|| format!("has no `{KEY}` in its header"))?;
    let state: TrainingState =
        serde_json::from_str(facts).map_err(|error| format!("has another `{KEY}`: {error}"))?;
    if state.format != FORMAT {
        return Err(format!("has format {}; this program writes {FORMAT}", state.format));
    }
    if contents.len() != tensors.len() {
        let (found, needed) = (contents.len(), tensors.len());
        return Err(format!("contains {found} tensors; this student needs {needed}"));
    }
    let tensor = |held: &Held| {
        let Held { name, shape: needed, .. } = held;
        let tensor = contents.tensor(name).map_err(|error| format!("cannot be used: {error}"))?;
        let found = tensor.shape();
        match found == needed {
            true => Ok(tensor),
            false => Err(format!("has {found:?} for `{name}`; this student needs {needed:?}")),
        }
    };
    Ok((state, tensors.iter().map(tensor).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::base::progress::Silent;
    use crate::distill::lines::Lines;
    use crate::train::collective::Alone;

    type Fallible = Result<(), Box<dyn std::error::Error>>;

    #[derive(Default)]
    struct Dropped(Mutex<Vec<String>>);

    impl Progress for Dropped {
        fn length(&self, _total: u64, _unit: &'static str) {}
        fn position(&self, _done: u64) {}
        fn note(&self, _text: &str) {}
        fn dropped(&self, file: &str, reason: &str) {
            self.0.lock().expect("nobody panicked").push(format!("{file} {reason}"));
        }
    }

    fn held(numbers: &[f32]) -> candle_core::Result<Vec<Held>> {
        let variable = Some(Var::new(numbers, &Device::Cpu)?);
        let name = "parameter.w".to_owned();
        Ok(vec![Held { name, dtype: DType::F32, shape: vec![numbers.len()], owner: 0, variable }])
    }

    fn numbers(held: &[Held]) -> candle_core::Result<Vec<f32>> {
        held[0].variable.as_ref().expect("this rank has it").to_vec1()
    }

    fn line(step: u64) -> HistoryLine {
        HistoryLine {
            step,
            task: 1.0,
            output: 0.5,
            features: Default::default(),
            weighted: Default::default(),
            total: 1.5,
            gradient_norm: 0.1,
            gradient_norms: None,
            learning_rate: 1e-4,
        }
    }

    /// Checkpoints after each of some steps, with a history of one line per step.
    fn trained(folder: &Path, steps: &[u64]) -> Result<(), DistillError> {
        let mut history = Lines::open(folder.join(HISTORY_FILE), &Mark::default())?;
        for step in 1..=steps[steps.len() - 1] {
            history.push(&line(step - 1))?;
            if steps.contains(&step) {
                let state = TrainingState {
                    step,
                    history: history.sync()?,
                    ..TrainingState::first(Measured::default())
                };
                save(folder, &state, &held(&[step as f32; 3])?, &Alone, 2)?;
            }
        }
        Ok(())
    }

    /// The step and the first weight that a training would resume with.
    fn resumed(folder: &Path, progress: &dyn Progress) -> Result<(Option<u64>, f32), DistillError> {
        let found = held(&[0.0; 3])?;
        let state = load(folder, &found, &Alone, progress)?;
        Ok((state.map(|state| state.step), numbers(&found)?[0]))
    }

    #[test]
    fn what_is_saved_is_loaded() -> Fallible {
        let folder = tempfile::tempdir()?;
        assert_eq!(load(folder.path(), &held(&[0.0; 3])?, &Alone, &Silent)?, None);
        let features = vec![("mid_block".to_owned(), 0.1f32), ("up_blocks.0".to_owned(), f32::MIN_POSITIVE)];
        let measured = Measured { task: 0.3, output: 1e-30, features };
        for step in [3, 7, 12] {
            let state =
                TrainingState { step, last: Some(line(step - 1)), ..TrainingState::first(measured.clone()) };
            save(folder.path(), &state, &held(&[step as f32, 0.1, -0.0])?, &Alone, 2)?;
            let found = held(&[0.0; 3])?;
            assert_eq!(load(folder.path(), &found, &Alone, &Silent)?, Some(state));
            assert_eq!(numbers(&found)?, [step as f32, 0.1, -0.0]);
        }
        let names = |folder: &Path| -> Result<Vec<_>, DistillError> {
            Ok(list(folder)?.iter().filter_map(|path| step_of(path)).collect())
        };
        assert_eq!(names(folder.path())?, [12, 7], "the last two are kept");
        for (keep, kept) in [(4, &[13, 12, 7][..]), (1, &[14])] {
            let state = TrainingState { step: kept[0], ..TrainingState::first(measured.clone()) };
            save(folder.path(), &state, &held(&[0.0; 3])?, &Alone, keep)?;
            assert_eq!(names(folder.path())?, kept);
        }
        Ok(())
    }

    #[test]
    fn a_damaged_checkpoint_is_said_and_the_one_before_is_used() -> Fallible {
        for length in [None, Some(0)] {
            let folder = tempfile::tempdir()?;
            trained(folder.path(), &[3, 7])?;
            assert_eq!(resumed(folder.path(), &Silent)?, (Some(7), 7.0));
            let path = folder.path().join("distill-000000007.safetensors");
            let mut bytes = fs::read(&path)?;
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes.truncate(length.unwrap_or(bytes.len()));
            fs::write(&path, bytes)?;
            let dropped = Dropped::default();
            assert_eq!(resumed(folder.path(), &dropped)?, (Some(3), 3.0));
            let told = dropped.0.into_inner()?;
            assert!(told.len() == 1 && told[0].contains("distill-000000007.safetensors"), "{told:?}");
            assert!(!path.exists());
            fs::write(folder.path().join("distill-000000003.safetensors"), "")?;
            assert_eq!(resumed(folder.path(), &Silent)?, (None, 0.0), "training starts anew");
        }
        Ok(())
    }

    #[test]
    fn a_checkpoint_whose_losses_are_damaged_is_not_used() -> Fallible {
        let folder = tempfile::tempdir()?;
        trained(folder.path(), &[3, 7])?;
        let path = folder.path().join(HISTORY_FILE);
        let whole = fs::read(&path)?;
        let (first, last) = (whole.len() / 7 / 2, whole.len() - 4);
        for (at, expected) in [(last, (Some(3), 3.0)), (first, (None, 0.0))] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped)?;
            assert_eq!(resumed(folder.path(), &Silent)?, expected);
        }
        Ok(())
    }

    #[test]
    fn a_checkpoint_of_another_student_changes_no_weight() -> Fallible {
        let folder = tempfile::tempdir()?;
        save(
            folder.path(),
            &TrainingState { step: 1, ..TrainingState::first(Measured::default()) },
            &held(&[1.0; 3])?,
            &Alone,
            2,
        )?;
        let other = held(&[0.0; 2])?;
        let dropped = Dropped::default();
        assert_eq!(load(folder.path(), &other, &Alone, &dropped)?, None);
        let told = dropped.0.into_inner()?;
        assert!(told[0].contains("[3]") && told[0].contains("[2]"), "{told:?}");
        assert_eq!(numbers(&other)?, [0.0; 2]);
        Ok(())
    }
}
