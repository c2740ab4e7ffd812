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
    #[expect(clippy::print_stdout, reason = "the table is for readers")]
    fn a_step_of_sdxl_is_within_its_bounds() -> Result<()> {
        let teacher = UNetConfig::parse(SDXL).expect("SDXL's configuration");
        let student = half(&teacher);
        let share = student.inventory().parameters() as f64 / teacher.inventory().parameters() as f64;
        assert!((0.48..0.58).contains(&share), "the student has {share:.3} of the teacher");
        let cost = |implementation| step_cost(&student, &teacher, 2, (128, 128), implementation);
        let (before, after) = (cost(Implementation::Composed)?, cost(Implementation::Kernels)?);
        for (name, counts) in [("composed", before), ("kernels", after)] {
            let [bytes, peak] = [counts.bytes, counts.peak_bytes].map(|bytes| bytes as f64 / 1e9);
            println!("{name:10} {:6} launches {bytes:6.0} GB moved {peak:5.1} GB at most", counts.launches);
        }
        assert!(after.launches <= 6_000, "{after:?}");
        assert!(after.bytes <= 2 * after.least_bytes, "{after:?}");
        assert!(after.peak_bytes <= 36_000_000_000, "{after:?}");
        assert!((45_000..60_000).contains(&before.launches), "{before:?}");
        Ok(())
    }

    /// A row of the roofline of SDXL's own U-Net in bf16, two samples of 128x128, on an H200 (790 TFLOP/s, products at 75 % of it; 4.3
    /// TB/s, of which kernels reach 85 %): which kernels of which layer, and milliseconds forward and backward. `bound` is what
    /// the time of memory may be of it.
    struct Row {
        name: &'static str,
        layer: &'static str,
        kernels: &'static [&'static str],
        ideal: [f64; 2],
        bound: std::ops::Range<f64>,
    }

    /// For products and self-attention the ideal is the time of the arithmetic, and memory must stay below it; for others it is
    /// that of memory, and within two times of it.
    const ROWS: [Row; 9] = {
        const fn row(
            name: &'static str,
            layer: &'static str,
            kernels: &'static [&'static str],
            ideal: [f64; 2],
            bound: std::ops::Range<f64>,
        ) -> Row {
            Row { name, layer, kernels, ideal, bound }
        }
        [
            row("self-attention", "self-attention", &[""], [4.2, 12.5], 0.0..1.0),
            row("cross-attention", "cross-attention", &[""], [0.2, 0.5], 0.0..2.0),
            row("convolution 3x3", "convolution 3x3", &[""], [5.3, 10.5], 0.0..1.0),
            row("convolution 1x1", "convolution 1x1", &[""], [0.2, 0.5], 0.0..2.0),
            row("group norm with SiLU", "norm", &["group_norm"], [0.3, 0.5], 0.9..2.0),
            row("layer norm", "norm", &["layer_norm"], [0.7, 1.0], 0.9..2.0),
            row("gated GELU", "", &["geglu"], [1.4, 2.3], 0.9..2.0),
            row(
                "linear, with residuals",
                "linear",
                &["product", "add_bias", "row_sums", "fold"],
                [16.2, 29.7],
                0.0..1.0,
            ),
            row("optimiser and average", "optimiser", &[""], [0.0, 25.0], 0.9..2.0),
        ]
    };

    type ByKernel = std::collections::BTreeMap<(&'static str, String), (u64, u64)>;

    impl Row {
        fn has(&self, layer: &str, kernel: &str) -> bool {
            let is_its_layer = self.layer.is_empty() || layer == self.layer;
            is_its_layer && self.kernels.iter().any(|begin| kernel.starts_with(begin))
        }

        /// Its launches and bytes.
        fn of(&self, counted: &ByKernel) -> [u64; 2] {
            let own = counted.iter().filter(|((layer, kernel), _)| self.has(layer, kernel));
            own.fold([0, 0], |[n, bytes], (_, (launches, moved))| [n + launches, bytes + moved])
        }
    }

    /// What a forward and a backward pass with an update launch, and how much of it is forward.
    fn counted() -> Result<[ByKernel; 2]> {
        let config = UNetConfig::parse(SDXL).expect("SDXL's configuration");
        let mut pass = Pass::new(Implementation::Kernels);
        let unet = config.counted(&mut pass, 2, (128, 128), true)?;
        let prediction = unet.forward(&mut pass)?.pop().expect("a prediction");
        let forward = pass.by_kernel();
        pass.difference(&prediction, &prediction.clone())?;
        pass.backward()?;
        pass.update()?;
        Ok([forward, pass.by_kernel()])
    }

    /// Prints the table; `--nocapture` shows it.
    #[test]
    #[expect(clippy::print_stdout, reason = "the table is for readers")]
    fn kernels_move_at_most_twice_the_bytes_of_the_roofline() -> Result<()> {
        let [forward, whole] = counted()?;
        let line = |name: &str, columns: [String; 5]| {
            let columns = columns.map(|column| format!("{column:>14}"));
            println!("{name:24}{}", columns.concat());
        };
        let titles = ["launches f / b", "GB f / b", "ms f / b", "ideal f / b", "times"];
        line("", titles.map(str::to_owned));
        let milliseconds = |bytes: u64| bytes as f64 / (0.85 * 4.3e9);
        let pair = |a: f64, b: f64| format!("{a:.1} / {b:.1}");
        for row in ROWS {
            let ([n, bytes], [all, moved]) = (row.of(&forward), row.of(&whole));
            let times = milliseconds(moved) / (row.ideal[0] + row.ideal[1]);
            let columns = [
                format!("{n} / {}", all - n),
                pair(bytes as f64 / 1e9, (moved - bytes) as f64 / 1e9),
                pair(milliseconds(bytes), milliseconds(moved - bytes)),
                pair(row.ideal[0], row.ideal[1]),
                format!("{times:.2}"),
            ];
            line(row.name, columns);
            assert!(row.bound.contains(&times), "{}: {times:.2}, allowed {:?}", row.name, row.bound);
        }
        // Sums of gradients and concatenations, which the roofline leaves out, and losses.
        let bytes = |(_, (_, bytes)): (&_, &(u64, u64))| *bytes;
        let is_known = |layer: &str, kernel: &str| ROWS.iter().any(|row| row.has(layer, kernel));
        let rest =
            whole.iter().filter(|((layer, kernel), _)| !is_known(layer, kernel)).map(bytes).sum::<u64>();
        let all = whole.iter().map(bytes).sum::<u64>();
        println!("what is in no row: {:.1} of {:.1} GB", rest as f64 / 1e9, all as f64 / 1e9);
        assert!(10 * rest <= all, "{rest} of {all}");
        // Biases, residuals and gradients of biases beside their products: what cuBLASLt's epilogues could save at most.
        let epilogues = Row {
            name: "beside products",
            layer: "",
            kernels: &["add_bias", "row_sums"],
            ideal: [0.0, 0.0],
            bound: 0.0..0.0,
        };
        let [launches, moved] = epilogues.of(&whole);
        println!("{}: {launches} launches, {:.1} GB", epilogues.name, moved as f64 / 1e9);
        assert!(10 * moved <= all, "epilogues move {moved} of {all}: they belong into products");
        Ok(())
    }
}
