//! `losses.jsonl`: every term of the loss at every step, weighted and not, one JSON object per line.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines;
use super::term_weights::ByKind;

/// The history's name inside the checkpoint folder.
pub const HISTORY_FILE: &str = "losses.jsonl";

/// The loss of one feature map.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureLoss {
    /// The mean-squared difference.
    pub plain: f32,
    /// The same times the map's weight `a_l`; `feature-weight` is applied in addition.
    pub weighted: f32,
}

/// One line of `losses.jsonl`: what was measured before the update of this step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Counted from 0.
    pub step: u64,
    /// Mean-squared difference from the noise or velocity, each sample weighted if `min-snr-gamma` is given.
    pub task: f32,
    /// Mean-squared difference from the teacher's prediction.
    pub output: f32,
    /// By the path of the feature map.
    pub features: BTreeMap<String, FeatureLoss>,
    /// The addends of `total`: the terms with all their weights.
    pub weighted: ByKind,
    /// What was differentiated: all terms with all their weights.
    pub total: f32,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// L2 norms of the gradients of the addends, at the steps that `gradient-norms-every` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norms: Option<ByKind>,
    /// Learning rate of this step's update.
    pub learning_rate: f64,
}

/// Reads a whole history.
pub fn read(path: &Path) -> io::Result<Vec<HistoryLine>> {
    lines::read(path)
}

/// Reads what a running training has written of its history.
pub fn read_unfinished(path: &Path) -> io::Result<Vec<HistoryLine>> {
    lines::read_unfinished(path)
}

impl HistoryLine {
    /// Its numbers by the names that watchers show them under.
    pub fn numbers(&self) -> Vec<(String, f64)> {
        let mut numbers = vec![
            ("loss/total".to_owned(), f64::from(self.total)),
            ("loss/task".to_owned(), f64::from(self.task)),
            ("loss/output".to_owned(), f64::from(self.output)),
        ];
        let kinds = |name: &str, by: &ByKind| {
            [("task", by.task), ("output", by.output), ("features", by.features)]
                .map(|(kind, value)| (format!("{name}/{kind}"), f64::from(value)))
        };
        numbers.extend(kinds("weighted", &self.weighted));
        numbers.extend(self.gradient_norms.iter().flat_map(|norms| kinds("gradient_norm", norms)));
        let plain =
            |(path, loss): (&String, &FeatureLoss)| (format!("feature/{path}"), f64::from(loss.plain));
        numbers.extend(self.features.iter().map(plain));
        numbers.push(("training/gradient_norm".to_owned(), f64::from(self.gradient_norm)));
        numbers.push(("training/learning_rate".to_owned(), self.learning_rate));
        numbers
    }
}
