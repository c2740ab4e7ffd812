//! The feature maps that student and teacher have in common, and how a forward pass collects them.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;

use super::error::DistillError;
use super::losses::Answer;
use super::parameters::FeatureTaps;
use crate::model::unet::{UNet, UNetConfig};
use crate::train::Input;

/// Runs a U-Net and keeps the feature maps of `paths`, in that order.
pub(super) fn predict(unet: &UNet, input: &Input, paths: &[String]) -> candle_core::Result<Answer> {
    let Input { sample, timestep, conditioning } = input;
    let mut kept: Vec<Option<Tensor>> = vec![None; paths.len()];
    let output = unet.forward_with_taps(sample, timestep, conditioning, &mut |path, tensor| {
        if let Some(index) = paths.iter().position(|wanted| wanted == path) {
            kept[index] = Some(tensor.clone());
        }
    })?;
    let features = kept.into_iter().zip(paths).map(|(tensor, path)| {
        tensor.ok_or_else(|| candle_core::Error::Msg(format!("the U-Net has no feature map `{path}`")))
    });
    Ok(Answer { output, features: features.collect::<candle_core::Result<_>>()? })
}

/// The feature maps that student and teacher have in common, in the order of their paths in the student. If their
/// numbers of layers differ, layers with the same index do not correspond, and only stages are compared.
pub(super) fn common_paths(
    input: &Input,
    student: &UNet,
    teacher: &UNet,
    taps: FeatureTaps,
) -> Result<Vec<String>, DistillError> {
    let wanted = |path: &str| {
        let is_unit = || student.units().iter().any(|unit| unit.id.as_str() == path);
        is_stage(path) || (taps == FeatureTaps::Units && layers(student) == layers(teacher) && is_unit())
    };
    let shapes = |unet: &UNet, wanted: &dyn Fn(&str) -> bool| {
        let mut shapes = BTreeMap::new();
        unet.forward_with_taps(&input.sample, &input.timestep, &input.conditioning, &mut |path, tensor| {
            if wanted(path) {
                shapes.insert(path.to_owned(), tensor.dims().to_vec());
            }
        })?;
        candle_core::Result::Ok(shapes)
    };
    let of_student = shapes(student, &wanted)?;
    let partner = |path: &str| among(path, student.config().levels.len(), teacher.config());
    let partners: BTreeSet<String> = of_student.keys().map(|path| partner(path)).collect();
    let of_teacher = shapes(teacher, &|path| partners.contains(path))?;
    let mut paths = Vec::new();
    for (path, shape) in of_student {
        match of_teacher.get(&partner(&path)) {
            Some(other) if *other == shape => paths.push(path),
            Some(other) => {
                let reason = format!(
                    "the output of `{path}` is {shape:?} in the student and {other:?} in the teacher"
                );
                return Err(DistillError::Mismatch { reason });
            }
            None => {}
        }
    }
    Ok(paths)
}

fn layers(unet: &UNet) -> Vec<usize> {
    unet.config().levels.iter().map(|level| level.layers).collect()
}

/// The path in the teacher that corresponds to `path` in a student of `levels` levels; the teacher may have more
/// levels inside. Up blocks are counted from the innermost. The student's innermost level does not downsample, so it
/// corresponds to the teacher's last layer before its downsampler. BK-SDM's code pairs its Tiny model in this way,
/// but with the `proj_out` of that layer, without the residual.
pub(super) fn among(path: &str, levels: usize, teacher: &UNetConfig) -> String {
    let more = teacher.levels.len().saturating_sub(levels);
    if more > 0 && path.strip_prefix("down_blocks.") == Some((levels - 1).to_string().as_str()) {
        return format!("{path}.skips.{}", teacher.levels[levels - 1].layers - 1);
    }
    let up = path.strip_prefix("up_blocks.").and_then(|rest| {
        let (stage, inside) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
        Some((stage.parse::<usize>().ok()?, inside))
    });
    match up {
        Some((stage, inside)) => format!("up_blocks.{}{inside}", stage + more),
        None => path.to_owned(),
    }
}

/// `mid_block`, `down_blocks.N`, `up_blocks.N`.
fn is_stage(path: &str) -> bool {
    let numbered = path.strip_prefix("down_blocks.").or_else(|| path.strip_prefix("up_blocks."));
    path == "mid_block" || numbered.is_some_and(|number| !number.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_without_the_innermost_level_finds_its_stages() {
        // diffusers' default has SD 1.x' four levels of two layers.
        let teacher = UNetConfig::parse("{}").expect("diffusers' default");
        for (levels, path, partner) in [
            (3, "up_blocks.0", "up_blocks.1"),
            (3, "up_blocks.2.resnets.1", "up_blocks.3.resnets.1"),
            (4, "up_blocks.1", "up_blocks.1"),
            (3, "down_blocks.1", "down_blocks.1"),
            (3, "down_blocks.2", "down_blocks.2.skips.1"),
            (4, "down_blocks.3", "down_blocks.3"),
        ] {
            assert_eq!(among(path, levels, &teacher), partner, "{path} of {levels} levels");
        }
    }

    #[test]
    fn stages_are_distinguished_from_their_parts() {
        for path in ["mid_block", "down_blocks.0", "up_blocks.11"] {
            assert!(is_stage(path), "{path}");
        }
        for path in ["mid_block.resnets.0", "down_blocks.0.resnets.1", "conv_in"] {
            assert!(!is_stage(path), "{path}");
        }
    }
}
