//! Judges that run outside: GenEval's detector, HPSv3 and other vision language models. The pictures are written once more in
//! the layouts that their scripts read, and their scores are read back into the same table.
//!
//! `pictures/MODEL/00000/samples/0000.png` with `metadata.jsonl` is GenEval's layout: a folder per prompt, a picture per seed. For
//! the prompts of HPSv2 also `hpsv2/MODEL/STYLE/00000.jpg`, which is a PNG: its script goes by the name, Pillow by the contents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::MetricError;
use super::gallery::{IMAGES, picture_path};
use crate::base::{FileError, copies};

/// What is written for judges outside, and what they said.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The line of `metadata.jsonl` of each prompt.
    pub lines: Vec<String>,
    /// Style and number of each prompt in HPSv2's set, if it is that one.
    pub styles: Vec<(String, usize)>,
    /// One value per prompt, by metric and model.
    pub scores: BTreeMap<String, ScoresByModel>,
}

/// One value per prompt, by model.
pub type ScoresByModel = BTreeMap<String, Vec<f64>>;

/// A line of a file of scores: what GenEval writes, or a model with the number of a prompt.
#[derive(Deserialize)]
struct Line {
    /// The picture, in the layout that is written here.
    filename: Option<PathBuf>,
    model: Option<String>,
    /// The number of the prompt, from 0.
    prompt: Option<Value>,
    score: Option<f64>,
    /// GenEval's verdict, which counts as 1 or 0.
    correct: Option<bool>,
}

impl Outside {
    /// Links the pictures of one gallery into `output`.
    pub(super) fn link(
        &self,
        gallery: &Path,
        (model, seed): (&str, usize),
        output: &Path,
    ) -> Result<(), MetricError> {
        let link = |from: &Path, to: PathBuf| {
            let folder = to.parent().unwrap_or(output);
            fs::create_dir_all(folder).map_err(FileError::at(folder))?;
            copies::link(from, &to).map_err(FileError::at(&to))
        };
        for (prompt, line) in self.lines.iter().enumerate() {
            let picture = picture_path(&gallery.join(IMAGES), prompt);
            let folder = output.join("pictures").join(model).join(format!("{prompt:05}"));
            link(&picture, folder.join("samples").join(format!("{seed:04}.png")))?;
            if seed == 0 {
                let path = folder.join("metadata.jsonl");
                fs::write(&path, format!("{line}\n")).map_err(FileError::at(&path))?;
            }
        }
        for (prompt, (style, number)) in self.styles.iter().enumerate().filter(|_| seed == 0) {
            let folder = output.join("hpsv2").join(model).join(style);
            link(&picture_path(&gallery.join(IMAGES), prompt), folder.join(format!("{number:05}.jpg")))?;
        }
        Ok(())
    }
}

/// Reads a file of scores, one JSON object per line: the mean of each prompt over its seeds.
pub fn read_scores(path: &Path, models: &[&str], prompts: usize) -> Result<ScoresByModel, MetricError> {
    let text = fs::read_to_string(path).map_err(FileError::at(path))?;
    let bad = |reason: String| MetricError::Outside { path: path.to_owned(), reason };
    let mut found: BTreeMap<String, Vec<Vec<f64>>> =
        models.iter().map(|&model| (model.to_owned(), vec![Vec::new(); prompts])).collect();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |reason: &str| bad(format!("line {}: {reason}", index + 1));
        let line: Line = serde_json::from_str(line).map_err(|error| at(&error.to_string()))?;
        let (model, prompt) = line.place().ok_or_else(|| {
            at("it has neither `model` and `prompt`, a number, nor a `filename` such as .../MODEL/00000/samples/0000.png")
        })?;
        let score = line.score.or(line.correct.map(|correct| f64::from(u8::from(correct))));
        let score = score.filter(|score| score.is_finite());
        let score = score.ok_or_else(|| at("it has neither `score`, a finite number, nor `correct`"))?;
        let of_model =
            found.get_mut(&model).ok_or_else(|| at(&format!("`{model}` is not among the models")))?;
        let values = of_model.get_mut(prompt);
        values
            .ok_or_else(|| at(&format!("there is no prompt {prompt}, only 0 to {}", prompts - 1)))?
            .push(score);
    }
    let mean = |(model, values): (String, Vec<Vec<f64>>)| {
        if let Some(prompt) = values.iter().position(Vec::is_empty) {
            return Err(bad(format!("it has no score for prompt {prompt} of `{model}`")));
        }
        Ok((model, values.iter().map(|seeds| seeds.iter().sum::<f64>() / seeds.len() as f64).collect()))
    };
    found.into_iter().map(mean).collect()
}

impl Line {
    /// The model and the number of the prompt.
    fn place(&self) -> Option<(String, usize)> {
        if let (Some(model), Some(prompt)) = (&self.model, self.prompt.as_ref().and_then(Value::as_u64)) {
            return Some((model.clone(), usize::try_from(prompt).ok()?));
        }
        let mut parts = self.filename.as_ref()?.components().rev().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let (_, samples, prompt, model) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (samples == "samples").then_some((model.to_owned(), prompt.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScoresByModel, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("scores.jsonl");
        fs::write(&path, text).expect("ours");
        let read = read_scores(&path, &["a", "b"], 2);
        read.map_err(|error| error.to_string().replace(&path.display().to_string(), "scores.jsonl"))
    }

    #[test]
    fn scores_are_read_as_people_and_as_geneval_write_them() {
        let text = r#"{"filename": "x/pictures/a/00000/samples/0000.png", "tag": "two_object", "prompt": "a cat", "correct": true}
{"filename": "x/pictures/a/00000/samples/0001.png", "prompt": "a cat", "correct": false}
{"model": "a", "prompt": 1, "score": 3}

{"model": "b", "prompt": 0, "score": -1.5}
{"model": "b", "prompt": 1, "score": 0}"#;
        let expected = [("a", vec![0.5, 3.0]), ("b", vec![-1.5, 0.0])];
        assert_eq!(read(text), Ok(expected.map(|(model, values)| (model.to_owned(), values)).into()));
        let reason = |text: &str| read(text).expect_err("it is wrong");
        assert!(reason(r#"{"model": "c", "prompt": 0, "score": 1}"#).contains("line 1: `c` is not among"));
        assert!(reason(r#"{"model": "a", "prompt": 2, "score": 1}"#).contains("only 0 to 1"));
        assert!(reason(r#"{"prompt": "a cat", "score": 1}"#).contains("neither `model` and `prompt`"));
        assert!(reason(r#"{"model": "a", "prompt": 0}"#).contains("neither `score`"));
        assert!(
            reason(r#"{"model": "a", "prompt": 0, "score": 1}"#).contains("no score for prompt 1 of `a`")
        );
    }
}
