//! What a step of distillation costs on a GPU, from configurations alone: the teacher's pass, the student's passes, the losses of
//! prediction and stages, and the update.

use candle_core::Result;

use crate::model::unet::UNetConfig;
use crate::nn::counting::{Counts, Implementation, Pass};

/// Launches, bytes and memory of one step with a batch of latents of this size, bf16 activations over f32 weights, and without
/// activation checkpointing.
pub fn step_cost(
    student: &UNetConfig,
    teacher: &UNetConfig,
    batch: usize,
    latents: (usize, usize),
    implementation: Implementation,
) -> Result<Counts> {
    let mut pass = Pass::new(implementation);
    run(&mut pass, student, teacher, batch, latents)?;
    Ok(pass.counts())
}

fn run(
    pass: &mut Pass,
    student: &UNetConfig,
    teacher: &UNetConfig,
    batch: usize,
    latents: (usize, usize),
) -> Result<()> {
    let student = student.counted(pass, batch, latents, true)?;
    let teacher = teacher.counted(pass, batch, latents, false)?;
    let wanted = teacher.forward(pass)?;
    let found = student.forward(pass)?;
    for (found, wanted) in found.iter().zip(&wanted) {
        pass.difference(found, wanted)?;
    }
    // The loss of the task.
    if let Some((found, target)) = found.last().zip(wanted.last()) {
        pass.difference(found, target)?;
    }
    drop((found, wanted));
    pass.backward()?;
    pass.update()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDXL: &str = r#"{
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "projection_class_embeddings_input_dim": 2816, "sample_size": 128, "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "use_linear_projection": true
    }"#;

    /// Half of SDXL's parameters, as in SSD-1B: depths of 10 become 4 but for one, and the middle goes.
    fn half(teacher: &UNetConfig) -> UNetConfig {
        let mut student = teacher.clone();
        let mut remove = |path: &str, from: usize| {
            for block in from..10 {
                student.removed_units.insert(format!("{path}.transformer_blocks.{block}").as_str().into());
            }
        };
        remove("down_blocks.2.attentions.0", 4);
        remove("down_blocks.2.attentions.1", 4);
        remove("up_blocks.0.attentions.0", 4);
        remove("up_blocks.0.attentions.1", 4);
        for unit in ["mid_block.attentions.0", "mid_block.resnets.1"] {
            student.removed_units.insert(unit.into());
        }
        student
    }

    #[test]
    fn a_step_of_sdxl_is_within_its_bounds() -> Result<()> {
        let teacher = UNetConfig::parse(SDXL).expect("SDXL's configuration");
        let student = half(&teacher);
        let share = student.inventory().parameters() as f64 / teacher.inventory().parameters() as f64;
        assert!((0.48..0.58).contains(&share), "the student has {share:.3} of the teacher");
        let cost = |implementation| step_cost(&student, &teacher, 2, (128, 128), implementation);
        let (before, after) = (cost(Implementation::Composed)?, cost(Implementation::Kernels)?);
        assert!(after.launches <= 6_000, "{after:?}");
        assert!(after.bytes <= 2 * after.least_bytes, "{after:?}");
        assert!(after.peak_bytes <= 36_000_000_000, "{after:?}");
        assert!((45_000..60_000).contains(&before.launches), "{before:?}");
        Ok(())
    }

    /// The memory-bound rows of a roofline of an H200 (4.3 TB/s, of which kernels reach 85 %): two passes forward, one backward, and
    /// the update of SDXL itself, in milliseconds.
    #[test]
    fn kernels_move_at_most_twice_the_bytes_of_the_roofline() -> Result<()> {
        let teacher = UNetConfig::parse(SDXL).expect("SDXL's configuration");
        let mut pass = Pass::new(Implementation::Kernels);
        run(&mut pass, &teacher, &teacher, 2, (128, 128))?;
        let moved = pass.bytes_by_kernel();
        for (row, forward, backward) in [
            ("group_norm", 0.3, 0.5),
            ("layer_norm", 0.7, 1.0),
            ("geglu", 1.4, 2.3),
            ("optimiser", 0.0, 25.0),
        ] {
            let bytes: u64 =
                moved.iter().filter(|(kernel, _)| kernel.starts_with(row)).map(|(_, bytes)| bytes).sum();
            let ideal = (2.0 * forward + backward) * 0.85 * 4.3e9;
            let times = bytes as f64 / ideal;
            assert!((0.9..2.0).contains(&times), "{row}: {times:.2} of {moved:?}");
        }
        Ok(())
    }
}
