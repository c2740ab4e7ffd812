//! What one step is about, before the student is asked: rows, timesteps, noise, and the teacher's answer.
//!
//! Everything follows from the index of the sample (step times batch size plus place in the batch): each draw is a
//! stream of its own. So a resumed run needs no generator state, and cutting a batch into pieces draws the same
//! numbers. Lessons are fresh at every step: a fixed pool of noisy points would save the teacher's pass (one of
//! four, if a backward pass counts twice) and show the student far fewer points.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use rand_core::Rng;

use super::error::DistillError;
use super::latents::LatentSource;
use super::losses::Answer;
use super::parameters::{DistillParameters, FeatureTaps};
use crate::backend::Random;
use crate::model::network::Conditioning;
use crate::model::unet::{UNet, UNetConfig};
use crate::sample::NoiseSchedule;

/// One piece of a batch with the teacher's answer to it.
pub(super) struct Lesson {
    /// Noisy latents, [batch, channels, height, width].
    pub(super) sample: Tensor,
    /// [batch], i64.
    pub(super) timestep: Tensor,
    pub(super) conditioning: Conditioning,
    /// The noise or the velocity.
    pub(super) target: Tensor,
    pub(super) teacher: Answer,
}

/// Makes lessons.
pub(super) struct Lessons<'a> {
    pub(super) teacher: &'a UNet,
    pub(super) source: &'a dyn LatentSource,
    pub(super) schedule: &'a NoiseSchedule,
    pub(super) parameters: &'a DistillParameters,
    pub(super) random: &'a Random,
    pub(super) device: &'a Device,
    /// The empty prompt, a batch of one.
    pub(super) unconditional: Option<Conditioning>,
    /// The feature maps to keep, by their paths in the student.
    pub(super) paths: Vec<String>,
    /// How many levels the student has.
    pub(super) levels: usize,
}

impl Lessons<'_> {
    /// The lesson for one piece of one step.
    pub(super) fn lesson(&self, step: u64, piece: usize, order: &mut Order) -> Result<Lesson, DistillError> {
        let (batch, pieces) = (self.parameters.batch_size, self.parameters.gradient_accumulation);
        let size = batch / pieces;
        let first = step * batch as u64 + (piece * size) as u64;
        let samples: Vec<u64> = (first..first + size as u64).collect();

        let rows: Vec<usize> = samples.iter().map(|sample| order.row(*sample, self.random)).collect();
        let fetched = self.source.fetch(&rows, self.device)?;
        let conditioning = self.drop_text(fetched.conditioning, &samples)?;

        let shape = &fetched.latents.dims()[1..];
        let noise: Vec<Tensor> = samples
            .iter()
            .map(|sample| self.random.normal("distill noise", *sample, shape, self.device))
            .collect::<candle_core::Result<_>>()?;
        let noise = Tensor::stack(&noise, 0)?;
        let timesteps = self.schedule.train_timesteps() as u64;
        let timesteps: Vec<i64> = samples
            .iter()
            .map(|sample| below(&mut self.random.stream("distill timestep", *sample), timesteps) as i64)
            .collect();
        let timestep = Tensor::from_vec(timesteps, size, self.device)?;
        let sample = self.schedule.add_noise(&fetched.latents, &noise, &timestep)?;
        let target = self.schedule.target(&sample, &noise, &timestep)?;
        let paths = |path: &String| among(path, self.levels, self.teacher.config());
        let paths: Vec<String> = self.paths.iter().map(paths).collect();
        let teacher = predict(self.teacher, &sample, &timestep, &conditioning, &paths)?;
        Ok(Lesson { sample, timestep, conditioning, target, teacher })
    }

    /// Gives a fraction of the samples the empty prompt.
    fn drop_text(&self, conditioning: Conditioning, samples: &[u64]) -> candle_core::Result<Conditioning> {
        let Some(empty) = &self.unconditional else { return Ok(conditioning) };
        let fraction = self.parameters.unconditional_fraction;
        let drawn = |sample: &u64| self.random.stream("distill unconditional", *sample).next_u64();
        let dropped: Vec<u8> = samples
            .iter()
            .map(|sample| u8::from((drawn(sample) as f64) < fraction * 2f64.powi(64)))
            .collect();
        if !dropped.contains(&1) {
            return Ok(conditioning);
        }
        let dropped = Tensor::new(dropped, self.device)?;
        let replace = |states: &Tensor, empty: &Tensor| {
            let mut shape = vec![1; states.rank()];
            shape[0] = samples.len();
            let dropped = dropped.reshape(shape)?.broadcast_as(states.shape())?;
            dropped.where_cond(&empty.broadcast_as(states.shape())?, states)
        };
        let text_embeds = match (&conditioning.text_embeds, &empty.text_embeds) {
            (Some(embeds), Some(empty)) => Some(replace(embeds, empty)?),
            (embeds, _) => embeds.clone(),
        };
        let encoder_hidden_states =
            replace(&conditioning.encoder_hidden_states, &empty.encoder_hidden_states)?;
        Ok(Conditioning { encoder_hidden_states, text_embeds, time_ids: conditioning.time_ids })
    }
}

/// Runs a U-Net and keeps the feature maps of `paths`, in that order.
pub(super) fn predict(
    unet: &UNet,
    sample: &Tensor,
    timestep: &Tensor,
    conditioning: &Conditioning,
    paths: &[String],
) -> candle_core::Result<Answer> {
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

/// The feature maps that student and teacher have in common, in the order of their paths in the student. Where the
/// student has other layers than the teacher, layers of one number are different ones, and only stages are common.
pub(super) fn common_paths(
    lesson: &Lesson,
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
        unet.forward_with_taps(
            &lesson.sample,
            &lesson.timestep,
            &lesson.conditioning,
            &mut |path, tensor| {
                if wanted(path) {
                    shapes.insert(path.to_owned(), tensor.dims().to_vec());
                }
            },
        )?;
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
                let reason =
                    format!("`{path}` puts out {shape:?} in the student and {other:?} in the teacher");
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

/// The path of a student of `levels` levels in a teacher that may have more of them inside. The way up is counted from
/// the innermost. The student's innermost level halves nothing, so there the teacher's last layer counts, before it does.
/// BK-SDM's code pairs its Tiny so, but with that layer's `proj_out`, without what the residual adds.
fn among(path: &str, levels: usize, teacher: &UNetConfig) -> String {
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

/// Which row comes when: every row once per epoch, each epoch in an order of its own.
pub(super) struct Order {
    rows: usize,
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl Order {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows, epoch: None, shuffled: Vec::new() }
    }

    fn row(&mut self, sample: u64, random: &Random) -> usize {
        let epoch = sample / self.rows as u64;
        if self.epoch != Some(epoch) {
            // Fisher and Yates, from the end.
            let mut stream = random.stream("distill epoch", epoch);
            self.shuffled = (0..self.rows).collect();
            for last in (1..self.rows).rev() {
                self.shuffled.swap(last, below(&mut stream, last as u64 + 1) as usize);
            }
            self.epoch = Some(epoch);
        }
        self.shuffled[(sample % self.rows as u64) as usize]
    }
}

/// A number from 0 up to `limit`, by the high half of a product: no library's choice of method can change it.
fn below(stream: &mut impl Rng, limit: u64) -> u64 {
    ((u128::from(stream.next_u64()) * u128::from(limit)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_row_once() {
        let random = Random::new(7, "retrained");
        let mut order = Order::new(10);
        let mut epoch =
            |number: u64| (0..10).map(|i| order.row(number * 10 + i, &random)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(first, epoch(0), "an epoch can be taken up again");
        for mut rows in [first, second] {
            rows.sort();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
    }

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
    fn stages_are_told_from_their_parts() {
        for path in ["mid_block", "down_blocks.0", "up_blocks.11"] {
            assert!(is_stage(path), "{path}");
        }
        for path in ["mid_block.resnets.0", "down_blocks.0.resnets.1", "conv_in"] {
            assert!(!is_stage(path), "{path}");
        }
    }

    #[test]
    fn draws_cover_their_range() {
        let mut stream = Random::new(1, "x").stream("y", 0);
        let mut seen = [false; 7];
        (0..200).for_each(|_| seen[below(&mut stream, 7) as usize] = true);
        assert_eq!(seen, [true; 7]);
    }
}
