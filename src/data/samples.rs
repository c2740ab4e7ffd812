//! The list of training samples, made before anything is encoded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::order::shuffled;
use super::{DataError, pictures};
use crate::backend::Random;

/// The samples to encode, in the order of the rows.
#[derive(Clone, Debug)]
pub struct SampleList {
    /// The distinct captions, in the order of their first use.
    pub captions: Vec<String>,
    /// The samples, at least one.
    pub samples: Vec<Sample>,
    /// The number of samples in the source.
    pub available: usize,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The index of its caption.
    pub caption: usize,
    /// Its picture; `None` if the teacher draws it.
    pub picture: Option<PathBuf>,
}

impl SampleList {
    /// `count` samples for the teacher to draw, using the prompts in turn; without a count, one sample per prompt.
    pub fn from_prompts(prompts: &[String], count: Option<usize>) -> Self {
        let count = count.unwrap_or(prompts.len());
        let samples = (0..count).map(|row| (prompts[row % prompts.len()].clone(), None));
        Self::new(samples, prompts.len())
    }

    /// The pictures of a folder. If there are more than `count`, that many are chosen at random and kept in the order
    /// of their names.
    pub fn from_pictures(folder: &Path, count: Option<usize>, random: &Random) -> Result<Self, DataError> {
        let listed = pictures::list(folder)?;
        let available = listed.len();
        let mut chosen = shuffled(&mut random.stream("samples", 0), available);
        chosen.truncate(count.unwrap_or(available));
        chosen.sort_unstable();
        let samples = chosen.into_iter().map(|index| {
            let file = &listed[index];
            (file.caption.clone(), Some(file.path.clone()))
        });
        Ok(Self::new(samples, available))
    }

    fn new(samples: impl Iterator<Item = (String, Option<PathBuf>)>, available: usize) -> Self {
        let (mut captions, mut place_of) = (Vec::new(), HashMap::new());
        let samples = samples
            .map(|(text, picture)| {
                let caption = *place_of.entry(text.clone()).or_insert_with(|| {
                    captions.push(text);
                    captions.len() - 1
                });
                Sample { caption, picture }
            })
            .collect();
        Self { captions, samples, available }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_in_turn_and_captions_stand_once() {
        let prompts = ["a", "b", "a"].map(str::to_owned);
        let list = SampleList::from_prompts(&prompts, Some(5));
        assert_eq!(list.captions, ["a", "b"]);
        assert_eq!(list.samples.iter().map(|sample| sample.caption).collect::<Vec<_>>(), [0, 1, 0, 0, 1]);
        assert_eq!(SampleList::from_prompts(&prompts, None).samples.len(), 3);
    }

    #[test]
    fn pictures_are_drawn_by_the_seed() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        for index in 0..9 {
            std::fs::write(folder.path().join(format!("{index}.png")), b"")?;
            std::fs::write(folder.path().join(format!("{index}.txt")), format!("caption {}", index % 2))?;
        }
        let list = |count, seed| SampleList::from_pictures(folder.path(), count, &Random::new(seed, "x"));
        let all = list(None, 1)?;
        assert_eq!((all.samples.len(), all.captions.len(), all.available), (9, 2, 9));
        let (some, others) = (list(Some(4), 1)?, list(Some(4), 2)?);
        assert_eq!(some.samples, list(Some(4), 1)?.samples);
        assert_ne!(some.samples, others.samples);
        assert!(some.samples.is_sorted_by_key(|sample| sample.picture.clone()));
        assert_eq!(list(Some(40), 1)?.samples.len(), 9);
        Ok(())
    }
}
