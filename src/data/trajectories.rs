//! Calibration points on the teacher's own sampling trajectories: the inputs that the U-Net receives in use.
//!
//! No pictures are needed. A trajectory ends in clean latents x0. For its latents x_t before some step, `noise` is
//! `(x_t - alpha x0) / sigma`: the noise that training would have added to x0 to make x_t. It is not the teacher's
//! prediction, which would make every task loss zero by definition. Guidance shapes the trajectory; the points have
//! the text alone, as in training.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::order::spread;
use super::{Calibration, DataError, Encoder, Points};
use crate::backend::Random;
use crate::base::{Interrupt, Progress, kept};
use crate::model::network::Conditioning;
use crate::sample::{self, Generator, Leg, Noise, Visit};

/// How points are taken.
pub struct Trajectories<'a> {
    /// The teacher with its sampler.
    pub generator: Generator<'a>,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// The teacher's text side.
    pub encoder: &'a Encoder,
    /// The prompts, taken in turn.
    pub prompts: &'a [String],
    /// The negative prompt.
    pub negative_prompt: &'a str,
    /// The number of points.
    pub samples: usize,
    /// Points per trajectory, at most its evaluations of the U-Net: more make the points cheaper but more similar.
    pub per_trajectory: usize,
    /// Trajectories per batch.
    pub batch: usize,
    /// The random noise, one stream per trajectory.
    pub random: &'a Random,
}

impl Trajectories<'_> {
    /// Walks the trajectories. Each finished batch is kept in `checkpoint`, so that a second call resumes.
    pub fn points(
        &self,
        checkpoint: &Path,
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Points, DataError> {
        let Generator { schedule, sampler, steps, .. } = self.generator;
        let legs = sample::Path::new(sampler, schedule, steps)?.legs;
        let per_trajectory = self.per_trajectory.clamp(1, legs.len());
        let trajectories: Vec<usize> = (0..self.samples.div_ceil(per_trajectory)).collect();
        let used = self.prompts.iter().take(trajectories.len()).map(String::as_str);
        self.encoder.note_truncated(used.chain([self.negative_prompt]), progress)?;
        progress.length(trajectories.len() as u64, "trajectories");
        let mut parts = Vec::new();
        let batches: Vec<&[usize]> = trajectories.chunks(self.batch.max(1)).collect();
        let mut done = 0;
        for batch in &batches {
            if !kept::is_whole(&part_path(checkpoint, batch[0]), progress)? {
                break;
            }
            done += batch.len();
        }
        if done > 0 {
            progress.resumed(done as u64);
        }
        for batch in batches {
            let path = part_path(checkpoint, batch[0]);
            if batch[0] >= done && !kept::is_whole(&path, progress)? {
                let part = self.walk(batch, per_trajectory, &legs, interrupt)?;
                kept::write(&path, |path| part.save(path))?;
            }
            // A batch that was just written is read back too, so that a resumed run cannot differ.
            parts.push(Calibration::load(&path, &Device::Cpu)?);
            progress.position((batch[0] + batch.len()) as u64);
        }
        let prompt = |point: usize| self.prompts[point / per_trajectory % self.prompts.len()].clone();
        Ok(Points {
            calibration: Calibration::cat(&parts)?.batch(0..self.samples)?,
            prompts: (0..self.samples).map(prompt).collect(),
        })
    }

    /// The points of a batch of trajectories, trajectory by trajectory, noisiest first.
    fn walk(
        &self,
        batch: &[usize],
        per_trajectory: usize,
        legs: &[Leg],
        interrupt: &Interrupt,
    ) -> Result<Calibration, DataError> {
        let schedule = self.generator.schedule;
        let prompts: Vec<&str> =
            batch.iter().map(|&one| self.prompts[one % self.prompts.len()].as_str()).collect();
        let conditioning = self.encoder.encode(&prompts)?;
        let unconditional = self.encoder.unconditional(self.negative_prompt, batch.len())?;
        let device = conditioning.encoder_hidden_states.device();
        let noise = Noise { random: self.random, samples: batch, latent: self.latent, device };

        let wanted: Vec<Vec<usize>> =
            batch.iter().map(|&one| legs_of(one, per_trajectory, legs.len())).collect();
        // Collected by leg, then sorted by trajectory: (trajectory, leg, latents).
        let mut seen: Vec<(usize, usize, Tensor)> = Vec::new();
        let mut observe = |visit: Visit<'_>| -> Result<(), DataError> {
            interrupt.check()?;
            for (row, legs) in wanted.iter().enumerate() {
                if legs.contains(&visit.leg) {
                    seen.push((row, visit.leg, visit.latents.narrow(0, row, 1)?.copy()?));
                }
            }
            Ok(())
        };
        let clean =
            self.generator.run(&noise, &prompts, &conditioning, Some(&unconditional), &mut observe)?;
        seen.sort_by_key(|&(row, leg, _)| (row, leg));

        // The file stores whole timesteps; those of Euler's `linspace` change by at most one half.
        let timesteps: Vec<i64> = seen.iter().map(|&(_, leg, _)| legs[leg].timestep.round() as i64).collect();
        let rows: Vec<u32> = seen.iter().map(|&(row, ..)| row as u32).collect();
        let (timestep, rows) = (Tensor::new(timesteps, device)?, Tensor::new(rows, device)?);
        let sample = Tensor::cat(&seen.into_iter().map(|(.., latents)| latents).collect::<Vec<_>>(), 0)?;
        let clean = clean.index_select(&rows, 0)?;
        let noise = schedule.noise_in(&sample, &clean, &timestep)?;
        let latents = schedule.ends_in_pure_noise().then_some(clean);
        let Conditioning { encoder_hidden_states, text_embeds, time_ids } =
            conditioning.to_dtype(DType::F32)?.select(&rows)?;
        Ok(Calibration { encoder_hidden_states, text_embeds, time_ids, sample, noise, latents, timestep })
    }
}

/// The legs before which points are taken: one in each of `count` equal parts of `legs`, at a position that covers
/// the part evenly from trajectory to trajectory.
fn legs_of(trajectory: usize, count: usize, legs: usize) -> Vec<usize> {
    let place = spread(trajectory, 0.5);
    (0..count).map(|part| ((part as f64 + place) * legs as f64 / count as f64) as usize).collect()
}

fn part_path(checkpoint: &Path, first: usize) -> PathBuf {
    checkpoint.join(format!("trajectories-{first:06}.safetensors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_cover_the_legs() {
        let mut visits = [0; 20];
        for trajectory in 0..40 {
            let legs = legs_of(trajectory, 4, 20);
            assert!(legs.windows(2).all(|pair| pair[0] < pair[1]), "{legs:?}");
            legs.into_iter().for_each(|leg| visits[leg] += 1);
        }
        assert!(visits.iter().all(|&count| (6..=10).contains(&count)), "{visits:?}");
        assert_eq!(legs_of(3, 5, 5), [0, 1, 2, 3, 4]);
    }
}
