//! Pictures of the same prompts and the same noise: two of them under a slider, and a card for each prompt with the
//! pictures of all models. The slider is the only part of the page that needs the script; without it the cards remain.

use maud::{Markup, PreEscaped, html};

use super::embedded;
use super::folder::Measured;

/// The most prompts that are shown.
const PROMPTS: usize = 24;
/// How many of them are not folded.
const OPEN: usize = 12;

/// Pictures of some prompts by several models, the first of which the others are compared with.
pub(super) struct Gallery<'a> {
    pub(super) prompts: Vec<&'a str>,
    pub(super) models: Vec<(String, Vec<Option<Vec<u8>>>)>,
}

impl<'a> Gallery<'a> {
    /// The pictures of an evaluation, of prompts spread over all of them.
    pub(super) fn of(measured: &'a Measured) -> Self {
        let metrics = &measured.metrics;
        let prompts = &measured.values.prompts;
        let rows = spread(prompts.len());
        let mut models: Vec<&str> = metrics.models.iter().map(|model| model.model.as_str()).collect();
        models.sort_by_key(|model| *model != metrics.teacher);
        let drawn = |model: &str| rows.iter().map(|&row| measured.picture(model, row)).collect();
        Self {
            prompts: rows.iter().map(|&row| prompts[row].as_str()).collect(),
            models: models.into_iter().map(|model| (model.to_owned(), drawn(model))).collect(),
        }
    }

    /// The section of the page, with about `room` bytes of pictures; nothing if nothing was drawn.
    pub(super) fn section(self, room: usize) -> Markup {
        let names: Vec<&String> = self.models.iter().map(|model| &model.0).collect();
        let (count, names) = (self.prompts.len(), names.into_iter().cloned().collect::<Vec<_>>());
        let all = self.models.into_iter().flat_map(|model| model.1).collect::<Vec<_>>();
        if all.iter().all(Option::is_none) {
            return html! {};
        }
        let is_tiny = all.iter().flatten().all(|png| embedded::is_tiny(png));
        let all = embedded::sources(all, room);
        let card = |row: usize| {
            let shown = names
                .iter()
                .enumerate()
                .filter_map(|(model, name)| Some((model, name, all[model * count + row].as_ref()?)));
            html! {
                figure class="card" {
                    div class="strip" {
                        @for (model, name, source) in shown {
                            span class="of" {
                                img src=(source) data-model=(model) alt=(format!("{name}: {}", self.prompts[row]));
                                small { (name) }
                            }
                        }
                    }
                    figcaption { (self.prompts[row]) " " button type="button" class="compare" hidden { "compare" } }
                }
            }
        };
        html! {
            p { "Pictures of one card have the same prompt and the same initial noise." }
            div class=(if is_tiny { "gallery tiny" } else { "gallery" }) {
                @if names.len() > 1 { (slider(&names)) }
                div class="cards" { @for row in 0..count.min(OPEN) { (card(row)) } }
                @if count > OPEN {
                    details {
                        summary { (count - OPEN) " more prompts" }
                        div class="cards" { @for row in OPEN..count { (card(row)) } }
                    }
                }
            }
        }
    }
}

/// Two pictures above each other. The range input lies over them, so that a mouse, a finger and the arrow keys all move it.
fn slider(names: &[String]) -> Markup {
    let last = names.len() - 1;
    html! {
        div class="slider" hidden {
            div class="stage" {
                img class="before" alt="";
                img class="after" alt="";
                i aria-hidden="true" {}
                input type="range" min="0" max="100" value="50" step="1" aria-label=(format!("how much of {} is shown", names[0]));
            }
            p class="sides" {
                b { "◧ " (names[0]) }
                label {
                    "◨ "
                    select aria-label="model on the right" {
                        @for (model, name) in names.iter().enumerate().skip(1) {
                            option value=(model) selected[model == last] { (name) }
                        }
                    }
                }
            }
            p class="soft prompt" aria-live="polite" {}
        }
    }
}

/// Whether a part of the page has a slider.
pub(super) fn slides(part: &Markup) -> bool {
    part.0.contains("<div class=\"slider\"")
}

/// What the sliders of a page need.
pub(super) fn script() -> Markup {
    html! { script { (PreEscaped(include_str!("slider.js"))) } }
}

/// Which of `count` prompts are shown: spread over all, not only the first.
pub(super) fn spread(count: usize) -> Vec<usize> {
    let shown = count.min(PROMPTS);
    (0..shown).map(|row| row * count / shown).collect()
}
