//! Attribute accuracy: does a picture show what its prompt names? The scorer chooses the caption that fits the picture
//! best. The picture counts as correct if that caption names the same colours, shapes, ... as the prompt.
//! The metric is ours: zero-shot classification (Radford et al. 2021) over whole captions.

use std::collections::BTreeMap;

use crate::metric::definition::{Method, Metric};
use crate::metric::error::MetricError;
use crate::metric::inputs::{FeatureInputs, Texts};
use crate::metric::kinds::{Better, Need, Prominence};

/// The row in `METRICS`.
pub(super) struct AttributeAccuracy;

impl Metric for AttributeAccuracy {
    fn name(&self) -> &'static str {
        "attribute-accuracy"
    }

    fn summary(&self) -> &'static str {
        "percentage of pictures whose best-fitting caption agrees with the prompt in every attribute that the prompt names"
    }

    fn unit(&self) -> &'static str {
        "%"
    }

    fn better(&self) -> Better {
        Better::Higher
    }

    fn method(&self) -> Method {
        Method::Features(measure)
    }

    fn prominence(&self) -> Prominence {
        Prominence::Card
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Pictures, Need::Scorer, Need::Attributes]
    }

    fn check(&self, texts: Texts<'_>) -> Result<(), MetricError> {
        texts.prompts.iter().try_for_each(|prompt| match names_any(texts.attributes, prompt) {
            true => Ok(()),
            false => Err(unnamed(texts.attributes, prompt)),
        })
    }
}

fn measure(inputs: &FeatureInputs<'_>) -> Result<Vec<f64>, MetricError> {
    let judged = inputs.prompts.iter().zip(inputs.best_captions()?);
    judged.map(|(prompt, best)| agrees(inputs.attributes, prompt, &inputs.captions[best])).collect()
}

/// 100 where the caption names, for every attribute that the prompt names, the same values in the same order; else 0.
fn agrees(
    attributes: &BTreeMap<String, Vec<String>>,
    prompt: &str,
    caption: &str,
) -> Result<f64, MetricError> {
    if !names_any(attributes, prompt) {
        return Err(unnamed(attributes, prompt));
    }
    let (prompt_words, caption_words) = (words(prompt), words(caption));
    let same = |vocabulary: &Vec<String>| {
        let asked = named(vocabulary, &prompt_words);
        asked.is_empty() || asked == named(vocabulary, &caption_words)
    };
    Ok(if attributes.values().all(same) { 100.0 } else { 0.0 })
}

/// Whether a prompt names a value of any attribute.
fn names_any(attributes: &BTreeMap<String, Vec<String>>, prompt: &str) -> bool {
    let words = words(prompt);
    attributes.values().any(|vocabulary| !named(vocabulary, &words).is_empty())
}

fn unnamed(attributes: &BTreeMap<String, Vec<String>>, prompt: &str) -> MetricError {
    let attributes = attributes.keys().cloned().collect::<Vec<_>>().join(", ");
    MetricError::NoAttribute { prompt: prompt.to_owned(), attributes }
}

/// The entries of a vocabulary that occur in a text, in the text's order. An entry of several words is a phrase.
fn named<'v>(vocabulary: &'v [String], text: &[String]) -> Vec<&'v str> {
    let phrases: Vec<(&str, Vec<String>)> = vocabulary
        .iter()
        .map(|entry| (entry.as_str(), words(entry)))
        .filter(|(_, words)| !words.is_empty())
        .collect();
    let at = |start: usize| phrases.iter().filter(move |(_, phrase)| text[start..].starts_with(phrase));
    (0..text.len()).flat_map(at).map(|(entry, _)| *entry).collect()
}

/// Lowercase words, without punctuation.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> BTreeMap<String, Vec<String>> {
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        BTreeMap::from([
            ("colour".to_owned(), list(&["red", "green", "blue"])),
            ("place".to_owned(), list(&["on the left", "on the right"])),
            ("shape".to_owned(), list(&["circle", "square"])),
        ])
    }

    fn right(prompt: &str, caption: &str) -> bool {
        agrees(&attributes(), prompt, caption).expect("the prompt names something") == 100.0
    }

    #[test]
    fn all_named_attributes_must_agree() {
        assert!(right("A red circle, on the left.", "one Red CIRCLE on the left of a hill"));
        assert!(!right("a red circle on the left", "a red circle on the right"));
        assert!(!right("a red circle", "a red square"));
        // What the prompt does not name is free.
        assert!(right("a circle", "a blue circle on the left"));
        // Which colour belongs to what is told by the order.
        assert!(!right("a red circle and a blue square", "a blue circle and a red square"));
        // A word is whole.
        assert!(!right("a red circle", "a bored circle"));
    }

    #[test]
    fn a_prompt_without_attributes_is_an_error() {
        let error = agrees(&attributes(), "a dog", "a red circle").expect_err("no attribute is named");
        assert_eq!(error.to_string(), "the prompt `a dog` names none of the attributes colour, place, shape");
    }
}
