//! What a single file contains besides the models that are read: files of other kinds, additions to the U-Net, padding,
//! and tensors that nothing reads.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::places::UNET;
use crate::model::error::ModelError;
use crate::model::files::kind::{self, Kind};
use crate::model::files::{Weights, WeightsError};

/// Tensors of a transformer outside its blocks.
const SHELL: [&str; 3] = ["norm.", "proj_in.", "proj_out."];

/// Tables that training code stores beside a model and that follow from its noise schedule, and inputs that never change.
const WITHOUT_EFFECT: &[&str] = &[
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "betas",
    "denoiser.sigmas",
    "log_one_minus_alphas_cumprod",
    "logit_scale",
    "logvar",
    "position_ids",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_variance",
    "scale_factor",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    // OpenCLIP's pooled state, which only SDXL reads.
    "text_projection",
];

/// The last layer of OpenCLIP-H, which SD 2.x does not read.
const UNREAD_LAYER: &str = "transformer.resblocks.23.";

/// What a file without Stable Diffusion's U-Net is.
pub(super) fn unrecognised(weights: &Weights, path: &Path) -> ModelError {
    let tensors = weights.names().map(|name| (name, weights.shape(name).unwrap_or_default()));
    let path = path.to_owned();
    let reason = match kind::by_tensors(tensors) {
        Some(Kind { what, help }) => return WeightsError::OtherKind { path, what, help }.into(),
        None if weights.contains("input_blocks.0.0.weight") => {
            format!("it is a U-Net alone, whose names lack the prefix `{UNET}`")
        }
        None => format!("it has no `{UNET}input_blocks.0.0.weight`"),
    };
    ModelError::Checkpoint { path, reason }
}

/// Fails if the U-Net has tensors that are not `known`: without this check, a gap in the numbering or the scales of
/// quantised weights would be ignored silently. `shells` are transformers without a block, which change nothing if their
/// last layer is zero.
pub(super) fn check_unet(
    path: &Path,
    weights: &Weights,
    known: &HashSet<&str>,
    shells: &[String],
) -> Result<(), ModelError> {
    let inside = |name| str::strip_prefix(name, UNET);
    let unplaced: Vec<&str> =
        weights.names().filter_map(inside).filter(|name| !known.contains(name)).collect();
    if let Some((name, Kind { what, help })) = kind::addition(unplaced.iter().copied()) {
        let (path, name, more) = (path.to_owned(), format!("{UNET}{name}"), unplaced.len() - 1);
        return Err(WeightsError::Addition { path, what, name, more, help }.into());
    }
    let refuse = |reason| Err(ModelError::Checkpoint { path: path.to_owned(), reason });
    for shell in shells {
        for tensor in ["weight", "bias"] {
            let name = format!("{UNET}{shell}proj_out.{tensor}");
            if weights.view(&name)?.data().iter().any(|&byte| byte != 0) {
                return refuse(format!(
                    "`{name}` is not zero, but its transformer has no block; diffusers cannot express such a U-Net"
                ));
            }
        }
    }
    let in_shell = |name: &&str| {
        let tensor = shells.iter().find_map(|shell| name.strip_prefix(shell.as_str()));
        tensor.is_some_and(|tensor| SHELL.iter().any(|module| tensor.starts_with(module)))
    };
    match unplaced.iter().find(|name| !in_shell(name)) {
        Some(name) => {
            refuse(format!("`{UNET}{name}` does not belong to the U-Net that the other tensors form"))
        }
        None => Ok(()),
    }
}

/// A note on the tensors that are not in `read`, by the first word of their names or the prefix of their model. The
/// U-Net's have been checked before.
pub(super) fn note(weights: &Weights, read: &HashSet<&str>, prefixes: &[&str]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in weights.names().filter(|name| !read.contains(name) && !name.starts_with(UNET)) {
        let prefix = prefixes.iter().copied().find(|prefix| name.starts_with(*prefix));
        let inside = prefix.map_or(name, |prefix| &name[prefix.len()..]);
        let known = |tensor: &str| inside == tensor || inside.ends_with(&format!(".{tensor}"));
        if !WITHOUT_EFFECT.iter().any(|tensor| known(tensor)) && !inside.starts_with(UNREAD_LAYER) {
            let group = prefix.unwrap_or_else(|| name.split_once('.').map_or(name, |(first, _)| first));
            *counts.entry(group.trim_end_matches('.')).or_default() += 1;
        }
    }
    let groups: Vec<String> = counts.iter().map(|(group, count)| format!("`{group}` ({count})")).collect();
    (!groups.is_empty()).then(|| format!("tensors that are not read: {}", groups.join(", ")))
}
