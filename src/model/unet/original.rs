//! The names of a U-Net's tensors in checkpoints of the original layout (CompVis/latent-diffusion, later
//! Stability-AI/generative-models): `input_blocks.4.1.proj_in` for `down_blocks.1.attentions.0.proj_in`.
//!
//! There a block spans the modules between two skip connections, and modules are numbered within it. The list of steps
//! has the skips in the same places, so one walk over it numbers everything.

use std::collections::HashMap;

use crate::model::files::original::Pair;
use crate::model::network::Inventory;
use crate::model::network::spec::{ENTER, Kind};

/// Modules inside a ResNet.
const RESNET: &[(&str, &str)] = &[
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// Modules outside the blocks.
const OUTSIDE: &[(&str, &str)] = &[
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];

/// The second ResNet in the middle. Its number counts the transformer before it even if that was removed: single files
/// contain at least its shell.
const SECOND_OF_MIDDLE: &str = "mid_block.resnets.1";

impl Inventory {
    /// All tensors under both names. The original layout numbers the blocks of a transformer without gaps and requires
    /// the branch of every ResNet, so only whole Transformer2Ds may be removed.
    pub fn original_names(&self) -> Vec<Pair> {
        let modules: HashMap<String, String> = self.original_modules().into_iter().collect();
        let pair = |name: &str| {
            let places = name.match_indices('.').rev();
            let (module, original) = places
                .map(|(dot, _)| &name[..dot])
                .find_map(|module| modules.get_key_value(module))
                .expect("BUG: every step with weights has a place in the original layout");
            Pair::same(format!("{original}{}", &name[module.len()..]), name)
        };
        self.tensors().map(|entry| pair(&entry.name)).collect()
    }

    /// The paths of modules in both layouts.
    fn original_modules(&self) -> Vec<(String, String)> {
        let mut modules: Vec<(String, String)> =
            OUTSIDE.iter().map(|&(here, there)| (here.to_owned(), there.to_owned())).collect();
        let (mut part, mut block, mut slot) = ("input_blocks", Some(0), 0);
        for spec in self.specs() {
            let path = spec.path.as_str();
            if path.starts_with("mid_block") && part != "middle_block" {
                (part, block, slot) = ("middle_block", None, 0);
            }
            if path == SECOND_OF_MIDDLE {
                slot = 2;
            }
            let place = match block {
                Some(block) => format!("{part}.{block}.{slot}"),
                None => format!("{part}.{slot}"),
            };
            match spec.kind {
                Kind::PushSkip => (block, slot) = (block.map(|block| block + 1), 0),
                Kind::Concatenate => {
                    block =
                        Some(if part == "output_blocks" { block.map_or(0, |block| block + 1) } else { 0 });
                    (part, slot) = ("output_blocks", 0);
                }
                Kind::Resnet { .. } => {
                    let inside = |&(here, there): &(&str, &str)| {
                        (format!("{path}.{here}"), format!("{place}.{there}"))
                    };
                    modules.extend(RESNET.iter().map(inside));
                    slot += 1;
                }
                Kind::Enter { .. } => {
                    modules.push((path.trim_end_matches(ENTER).to_owned(), place));
                    slot += 1;
                }
                Kind::ConvIn { .. } => modules.push((path.to_owned(), place)),
                Kind::Downsample { .. } => modules.push((format!("{path}.conv"), format!("{place}.op"))),
                Kind::Upsample { .. } => modules.push((format!("{path}.conv"), format!("{place}.conv"))),
                Kind::Shortcut { .. }
                | Kind::Map { .. }
                | Kind::SelfAttention { .. }
                | Kind::CrossAttention { .. }
                | Kind::FeedForward { .. }
                | Kind::Block
                | Kind::Exit { .. }
                | Kind::Stage
                | Kind::ConvOut { .. } => {}
            }
        }
        modules
    }
}
