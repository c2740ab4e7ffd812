//! What a retraining holds in memory, computed from configurations before anything is loaded.

use candle_core::DType;

use super::error::DistillError;
use super::parameters::DistillParameters;
use crate::base::units;
use crate::model::TensorEntry;
use crate::model::unet::{UNet, UNetConfig};
use crate::train::{ActivationCheckpointing, Moments};

/// Bytes that exist at the same time. Allocator and kernels need some more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingMemory {
    /// The student's weights, f32, and on a card that computes in bf16 their copies for products.
    pub weights: u64,
    /// AdamW's moments.
    pub moments: u64,
    /// The moving average, unless it is on the host.
    pub average: u64,
    /// The moving average on the host, beside a device with memory of its own.
    pub average_on_host: u64,
    /// Activations of one piece of a batch, what is compared, and gradients, at the moment when they are most together.
    pub passes: u64,
    /// What of the activations is computed again.
    pub checkpointing: ActivationCheckpointing,
    /// The teacher's weights, if it is held: otherwise they are read at each pass.
    pub teacher: u64,
}

/// Fails if gradients in this type of activations would vanish.
pub fn check_activations(activations: DType) -> Result<(), DistillError> {
    match activations {
        DType::F16 => Err(DistillError::F16),
        _ => Ok(()),
    }
}

/// The sizes of what is trained on.
pub struct Sizes<'a> {
    /// The student.
    pub student: &'a UNetConfig,
    /// The teacher.
    pub teacher: &'a UNetConfig,
    /// Height and width of the largest latents.
    pub latents: (usize, usize),
    /// Type of the teacher's weights.
    pub weights: DType,
    /// Type of activations.
    pub activations: DType,
    /// Whether device and host are the same.
    pub on_host: bool,
    /// The number of processes, each with a device of its own.
    pub ranks: usize,
}

impl TrainingMemory {
    /// What a retraining holds if `available` bytes can be used. Without a choice in the parameters, as few activations are
    /// computed again as fit. The teacher is held if it fits beside all else.
    pub fn new(parameters: &DistillParameters, sizes: &Sizes<'_>, available: u64) -> Self {
        let given = parameters.activation_checkpointing;
        let all = ActivationCheckpointing::ALL
            .map(|checkpointing| Self::with(parameters, sizes, given.unwrap_or(checkpointing)));
        let chosen = all.iter().find(|memory| memory.total() <= available).unwrap_or(&all[2]).clone();
        // A teacher that is read at each pass costs more time than activations that are computed again.
        let teacher = UNet::bytes(sizes.teacher, sizes.weights);
        let holding = all.into_iter().map(|memory| Self { teacher, ..memory });
        holding.into_iter().find(|memory| memory.total() <= available).unwrap_or(chosen)
    }

    fn with(
        parameters: &DistillParameters,
        sizes: &Sizes<'_>,
        checkpointing: ActivationCheckpointing,
    ) -> Self {
        let (height, width) = sizes.latents;
        let student = sizes.student.inventory();
        let is_trained = |tensor: &&TensorEntry| !parameters.freezes(&tensor.name);
        let trained: Vec<u64> = student.tensors().filter(is_trained).map(TensorEntry::parameters).collect();
        let in_f32: u64 = 4 * trained.iter().sum::<u64>();
        let segments = student.segments(height, width);
        let gradients: Vec<u64> = segments
            .iter()
            .map(|segment| student.tensors_in(segment.steps.clone()).filter(is_trained))
            .map(|tensors| 4 * tensors.map(TensorEntry::parameters).sum::<u64>())
            .collect();
        // The teacher's features.
        let maps: u64 = segments.iter().filter(|segment| segment.ends_stage).map(|s| s.output_elements).sum();
        let walk = sizes.teacher.inventory().state_elements(height, width);
        let ranks = sizes.ranks as u64;
        // An uneven division is refused elsewhere.
        let pieces = parameters.pieces(sizes.ranks).unwrap_or(1) * sizes.ranks;
        let samples = parameters.batch_size.get().div_ceil(pieces) as u64;
        let value = samples * sizes.activations.size_in_bytes() as u64;
        let backward = if pieces > sizes.ranks {
            // Those of earlier pieces are complete.
            checkpointing.backward_bytes(&segments, value, &vec![0; segments.len()]) + in_f32
        } else {
            checkpointing.backward_bytes(&segments, value, &gradients).max(in_f32)
        };
        // Each rank keeps those of its tensors.
        let average = if parameters.ema_decay.get() > 0.0 { in_f32.div_ceil(ranks) } else { 0 };
        let on_device = sizes.on_host || !parameters.ema_on_host;
        let copied = student.tensors().filter(|tensor| is_trained(tensor) && tensor.shape.len() == 2);
        let copies = match (sizes.on_host, sizes.activations) {
            (false, DType::BF16) => 2 * copied.map(TensorEntry::parameters).sum::<u64>(),
            _ => 0,
        };
        Self {
            weights: 4 * student.parameters() + copies,
            moments: parameters.moments.bytes(trained).div_ceil(ranks),
            average: if on_device { average } else { 0 },
            average_on_host: if on_device { 0 } else { average },
            passes: (walk * value).max(maps * value + backward),
            checkpointing,
            teacher: 0,
        }
    }

    /// The sum of what is on the device.
    pub fn total(&self) -> u64 {
        let Self { weights, moments, average, passes, teacher, .. } = self;
        [weights, moments, average, passes, teacher]
            .into_iter()
            .fold(0, |sum: u64, part| sum.saturating_add(*part))
    }

    /// Fails if this is more than `free` bytes.
    pub fn check(
        &self,
        parameters: &DistillParameters,
        sizes: &Sizes<'_>,
        free: u64,
    ) -> Result<(), DistillError> {
        if self.total() <= free {
            return Ok(());
        }
        Err(DistillError::Memory {
            statement: self.statement(),
            free: units::bytes(free),
            savings: self.savings(parameters, sizes).join(", "),
        })
    }

    /// One sentence with all parts.
    pub fn statement(&self) -> String {
        let mut parts = vec![
            format!("weights {}", units::bytes(self.weights)),
            format!("moments {}", units::bytes(self.moments)),
        ];
        match (self.average, self.average_on_host) {
            (0, 0) => {}
            (0, on_host) => parts.push(format!("moving average {} on the host", units::bytes(on_host))),
            (average, _) => parts.push(format!("moving average {}", units::bytes(average))),
        }
        let (passes, checkpointing) = (units::bytes(self.passes), self.checkpointing.word());
        parts.push(format!("activations and gradients {passes} (activation-checkpointing: {checkpointing})"));
        parts.push(match self.teacher {
            0 => "the teacher is read from its file at each step".to_owned(),
            held => format!("teacher {}", units::bytes(held)),
        });
        format!("training holds {}: {}", units::bytes(self.total()), parts.join(", "))
    }

    /// What to change in the parameters to need less, with what each change saves.
    fn savings(&self, parameters: &DistillParameters, sizes: &Sizes<'_>) -> Vec<String> {
        let mut savings = Vec::new();
        let mut offer = |change: &str, changed: DistillParameters| {
            let saved = self.total().saturating_sub(Self::with(&changed, sizes, self.checkpointing).total());
            if saved > self.total() / 100 {
                savings.push(format!("`{change}` saves {}", units::bytes(saved)));
            }
        };
        offer("moments: 8-bit", DistillParameters { moments: Moments::EightBit, ..parameters.clone() });
        if !sizes.on_host {
            offer("ema-on-host: true", DistillParameters { ema_on_host: true, ..parameters.clone() });
        }
        let ema_decay = crate::base::Real::new(0.0);
        offer("ema-decay: 0", DistillParameters { ema_decay, ..parameters.clone() });
        if self.checkpointing != ActivationCheckpointing::Unit {
            let less = Self::with(parameters, sizes, ActivationCheckpointing::Unit);
            let saved = units::bytes(self.total().saturating_sub(less.total()));
            savings.push(format!("`activation-checkpointing: unit` saves {saved}"));
        }
        if parameters.gradient_accumulation < parameters.batch_size {
            savings.push("a larger `gradient-accumulation` divides activations".to_owned());
        }
        savings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Real, Whole};

    #[test]
    fn f16_is_refused_where_it_would_compute() {
        assert!(
            [DType::F32, DType::BF16, DType::F64].into_iter().all(|dtype| check_activations(dtype).is_ok())
        );
        let refused = check_activations(DType::F16).expect_err("f16 has no range for gradients");
        assert!(refused.to_string().contains("cannot compute in f16"), "{refused}");
        // A CPU widens weights in f16 to f32, a GPU computes in it.
        let activations = crate::nn::activation_dtype(DType::F16, &candle_core::Device::Cpu);
        assert!(check_activations(activations).is_ok());
    }

    #[test]
    fn less_memory_means_more_is_computed_again() {
        // diffusers' default has SD 1.x' four levels of two layers.
        let unet = UNetConfig::parse("{}").expect("diffusers' default");
        let sizes = Sizes {
            student: &unet,
            teacher: &unet,
            latents: (64, 64),
            weights: DType::F16,
            activations: DType::F32,
            on_host: true,
            ranks: 1,
        };
        let parameters = DistillParameters { batch_size: Whole::new(4), ..Default::default() };
        let ample = TrainingMemory::new(&parameters, &sizes, u64::MAX);
        assert_eq!((ample.checkpointing, ample.teacher), (ActivationCheckpointing::None, ample.weights / 2));
        assert_eq!((ample.moments, ample.average), (2 * ample.weights, ample.weights));
        let little = TrainingMemory::new(&parameters, &sizes, ample.total() - 1);
        assert_eq!(little.checkpointing, ActivationCheckpointing::Stage);
        assert!(little.teacher > 0 && little.total() < ample.total());
        let least = TrainingMemory::new(&parameters, &sizes, 1);
        assert_eq!((least.checkpointing, least.teacher), (ActivationCheckpointing::Unit, 0));
        assert!(least.statement().contains("read from its file"), "{}", least.statement());
        let given = DistillParameters {
            activation_checkpointing: Some(ActivationCheckpointing::None),
            moments: Moments::EightBit,
            ema_decay: Real::new(0.0),
            ..parameters.clone()
        };
        let given = TrainingMemory::new(&given, &sizes, 1);
        assert_eq!((given.checkpointing, given.average), (ActivationCheckpointing::None, 0));
        assert!(given.moments < ample.moments * 3 / 10);
        assert!(ample.check(&parameters, &sizes, ample.total()).is_ok());
        let refused = ample.check(&parameters, &sizes, ample.total() - 1).expect_err("it is too much");
        assert!(refused.to_string().contains("only "), "{refused}");
        let savings = ample.savings(&parameters, &sizes);
        assert!(savings.len() == 4 && savings[0].starts_with("`moments: 8-bit` saves "), "{savings:?}");
    }

    /// On a card, the statement agrees with the peak of a step whose layers and update are counted one by one.
    #[test]
    fn the_statement_is_what_a_counted_step_holds() {
        let unet = UNetConfig::parse("{}").expect("diffusers' default");
        let sizes = Sizes {
            student: &unet,
            teacher: &unet,
            latents: (64, 64),
            weights: DType::BF16,
            activations: DType::BF16,
            on_host: false,
            ranks: 1,
        };
        let parameters = DistillParameters { batch_size: Whole::new(4), ..Default::default() };
        let memory = TrainingMemory::new(&parameters, &sizes, u64::MAX);
        let counted =
            crate::train::step_cost(&unet, &unet, 4, (64, 64), crate::nn::counting::Implementation::Kernels)
                .expect("the step can be counted");
        let times = memory.total() as f64 / counted.peak_bytes as f64;
        assert!((1.0..1.15).contains(&times), "{times:.3}: {memory:?} {counted:?}");
    }
}
