//! The list of training samples, made before anything is read of them. What is encoded, what enters the key and what is
//! written beside the latents all follow from it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use super::DataError;
use super::order::shuffled;
use super::sample::{Candidate, Found, LeftOut, Place};
use crate::backend::Random;
use crate::base::{Percent, Progress};

/// Names that a message lists.
const LISTED: usize = 12;

/// The samples to encode, in the order of their names.
#[derive(Clone, Debug)]
pub struct SampleList {
    /// The distinct captions, in the order of their first use.
    pub captions: Vec<String>,
    /// The samples, at least one.
    pub samples: Vec<Sample>,
    /// The number of samples that could be drawn.
    pub available: usize,
    /// The samples that cannot be used, as far as the list shows.
    pub left_out: Vec<LeftOut>,
    /// What else the user should know.
    pub notes: Vec<String>,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its name inside the source.
    pub name: String,
    /// The index of its caption.
    pub caption: usize,
    /// How often it is trained in each epoch.
    pub repeats: u32,
    /// Where its bytes are.
    pub place: Place,
}

/// What happens to samples without a caption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Captions {
    /// They are skipped.
    #[default]
    Required,
    /// They are trained with the empty prompt.
    Optional,
}

/// What transparent pixels show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// As the pages on which most such pictures stand.
    #[default]
    White,
    /// Half of the brightest.
    Grey,
    /// No light.
    Black,
}

/// Which samples are skipped, and how many may be.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What happens to samples without a caption.
    pub captions: Captions,
    /// The largest share that may be skipped.
    pub max_skipped: Percent,
}

impl fmt::Display for Captions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optional => "optional",
        })
    }
}

impl Background {
    /// Red, green and blue.
    pub fn colour(self) -> [u8; 3] {
        [match self {
            Self::White => 255,
            Self::Grey => 128,
            Self::Black => 0,
        }; 3]
    }
}

impl fmt::Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::White => "white",
            Self::Grey => "grey",
            Self::Black => "black",
        })
    }
}

impl Default for Rules {
    fn default() -> Self {
        // A large collection always has some broken files. More than one in a hundred is a mistake in the data set.
        Self { captions: Captions::Required, max_skipped: Percent::new(1.0) }
    }
}

impl SampleList {
    /// `count` samples for the teacher to draw, using the prompts in turn; without a count, one sample per prompt.
    pub fn from_prompts(prompts: &[String], count: Option<usize>) -> Self {
        let count = count.unwrap_or(prompts.len());
        let candidates = (0..count).map(|row| Candidate {
            name: format!("prompt {}", row % prompts.len() + 1),
            caption: prompts[row % prompts.len()].clone(),
            repeats: 1,
            place: Place::Drawn,
        });
        Self::new(candidates, prompts.len())
    }

    /// The samples of a source at `place`. If there are more than `count`, that many are drawn at random and kept in the
    /// order of the source.
    pub fn draw(
        found: Found,
        place: &Path,
        rules: Rules,
        count: Option<usize>,
        random: &Random,
    ) -> Result<Self, DataError> {
        let Found { candidates, mut left_out, notes } = found;
        let total = candidates.len() + left_out.len();
        let is_used =
            |candidate: &Candidate| rules.captions == Captions::Optional || !candidate.caption.is_empty();
        let (candidates, missing): (Vec<_>, Vec<_>) = candidates.into_iter().partition(is_used);
        if !rules.max_skipped.covers(missing.len(), total) {
            let names: Vec<&str> = missing.iter().map(|candidate| candidate.name.as_str()).collect();
            return Err(DataError::NoCaptions { missing: names.len(), total, names: some(&names) });
        }
        left_out.extend(
            missing.into_iter().map(|one| LeftOut { name: one.name, reason: "it has no caption".to_owned() }),
        );
        rules.check_skipped(&left_out, total)?;
        if candidates.is_empty() {
            return Err(DataError::NoSamples { path: place.to_owned(), notes: notes.join("; ") });
        }
        let available = candidates.len();
        let mut chosen = shuffled(&mut random.stream("samples", 0), available);
        chosen.truncate(count.unwrap_or(available));
        chosen.sort_unstable();
        let mut candidates: Vec<Option<Candidate>> = candidates.into_iter().map(Some).collect();
        let chosen = chosen.into_iter().filter_map(|index| candidates[index].take());
        Ok(Self { left_out, notes, ..Self::new(chosen, available) })
    }

    fn new(candidates: impl Iterator<Item = Candidate>, available: usize) -> Self {
        let (mut captions, mut place_of) = (Vec::new(), HashMap::new());
        let samples = candidates
            .map(|Candidate { name, caption, repeats, place }| {
                let caption = *place_of.entry(caption.clone()).or_insert_with(|| {
                    captions.push(caption);
                    captions.len() - 1
                });
                Sample { name, caption, repeats, place }
            })
            .collect();
        Self { captions, samples, available, left_out: Vec::new(), notes: Vec::new() }
    }
}

impl Rules {
    /// Fails if too many of `total` samples are skipped.
    pub fn check_skipped(&self, skipped: &[LeftOut], total: usize) -> Result<(), DataError> {
        match self.max_skipped.covers(skipped.len(), total) {
            true => Ok(()),
            false => Err(DataError::Skipped {
                skipped: skipped.len(),
                total,
                limit: self.max_skipped,
                list: reasons(skipped),
            }),
        }
    }
}

/// The first names, and how many others there are.
fn some(names: &[&str]) -> String {
    match names.len().checked_sub(LISTED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{}, and {more} more", names[..LISTED].join(", ")),
    }
}

/// Notes what was skipped of `total` samples.
pub(super) fn tell_skipped(skipped: &[LeftOut], total: usize, progress: &dyn Progress) {
    if !skipped.is_empty() {
        progress.note(&format!("{} of {total} samples skipped: {}", skipped.len(), reasons(skipped)));
    }
}

/// The first skipped samples with their reasons, and how many others there are.
pub(super) fn reasons(skipped: &[LeftOut]) -> String {
    let texts: Vec<String> = skipped.iter().map(|one| format!("{} ({})", one.name, one.reason)).collect();
    some(&texts.iter().map(String::as_str).collect::<Vec<_>>())
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

    fn found(captions: &[&str]) -> Found {
        let candidate = |(index, caption): (usize, &&str)| Candidate {
            name: format!("{index:03}.png"),
            caption: (*caption).to_owned(),
            repeats: 1,
            place: Place::Drawn,
        };
        Found { candidates: captions.iter().enumerate().map(candidate).collect(), ..Found::default() }
    }

    fn draw(
        captions: &[&str],
        rules: Rules,
        count: Option<usize>,
        seed: u64,
    ) -> Result<SampleList, DataError> {
        SampleList::draw(found(captions), Path::new("pictures"), rules, count, &Random::new(seed, "x"))
    }

    #[test]
    fn samples_are_drawn_by_the_seed() -> Result<(), DataError> {
        let captions: Vec<&str> = (0..9).map(|index| if index % 2 == 0 { "even" } else { "odd" }).collect();
        let names = |count, seed| -> Result<Vec<String>, DataError> {
            let list = draw(&captions, Rules::default(), count, seed)?;
            assert_eq!((list.available, list.captions.len()), (9, 2));
            Ok(list.samples.into_iter().map(|sample| sample.name).collect())
        };
        assert_eq!(names(Some(4), 1)?, names(Some(4), 1)?);
        assert_ne!(names(Some(4), 1)?, names(Some(4), 2)?);
        assert!(names(Some(4), 1)?.is_sorted());
        assert_eq!((names(Some(40), 1)?.len(), names(None, 3)?.len()), (9, 9));
        Ok(())
    }

    #[test]
    fn missing_captions_are_counted_and_named() -> Result<(), DataError> {
        let half: Vec<&str> = (0..76).map(|index| if index < 38 { "" } else { "a star" }).collect();
        let error = draw(&half, Rules::default(), None, 1).expect_err("half of them").to_string();
        assert!(error.starts_with("38 of 76 samples have no caption: 000.png, 001.png, "), "{error}");
        assert!(error.ends_with("and 26 more"), "{error}");
        let rules = Rules { captions: Captions::Optional, ..Rules::default() };
        assert_eq!(draw(&half, rules, None, 1)?.samples.len(), 76);
        let rules = Rules { max_skipped: Percent::new(50.0), ..Rules::default() };
        let list = draw(&half, rules, None, 1)?;
        assert_eq!((list.samples.len(), list.left_out.len()), (38, 38));
        assert!(matches!(draw(&[], rules, None, 1), Err(DataError::NoSamples { .. })));
        Ok(())
    }
}
