//! Which scheduler classes of diffusers have DDPM's noise schedule. The class says how a model is sampled, which is
//! ours to choose; but the betas in the same file mean nothing to a model that was trained on other noise levels.

/// A scheduler class by the noise that its models were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// DDPM's betas, and a sampler that we have under this name, or DDPM's own.
    Sampled,
    /// DDPM's betas, and a sampler that we do not have.
    OtherSampler,
    /// DDPM's betas, for a model that was distilled to few steps of a sampler that we do not have.
    FewSteps,
    /// Another kind of noise; the sentence says which.
    Refused(&'static str),
}

/// Schedulers with DDPM's betas, without `Scheduler` at the end.
const DDPM: &[(&str, Class)] = &[
    ("DDPM", Class::Sampled),
    ("DDIM", Class::Sampled),
    ("PNDM", Class::Sampled),
    ("EulerDiscrete", Class::Sampled),
    ("EulerAncestralDiscrete", Class::Sampled),
    ("DPMSolverMultistep", Class::Sampled),
    ("DDIMParallel", Class::Sampled),
    ("DDPMParallel", Class::Sampled),
    ("DDIMInverse", Class::Sampled),
    ("DPMSolverMultistepInverse", Class::Sampled),
    ("DPMSolverSinglestep", Class::OtherSampler),
    ("DPMSolverSDE", Class::OtherSampler),
    ("DEISMultistep", Class::OtherSampler),
    ("HeunDiscrete", Class::OtherSampler),
    ("KDPM2Discrete", Class::OtherSampler),
    ("KDPM2AncestralDiscrete", Class::OtherSampler),
    ("LMSDiscrete", Class::OtherSampler),
    ("RePaint", Class::OtherSampler),
    ("SASolver", Class::OtherSampler),
    ("UniPCMultistep", Class::OtherSampler),
    ("LCM", Class::FewSteps),
    ("TCD", Class::FewSteps),
];

/// Parts of the names of other schedulers, and what their models need.
const OTHERS: &[(&str, Class)] = &[
    ("Flow", Class::Refused("models trained with flow matching are not supported")),
    ("EDM", Class::Refused("models trained on EDM's noise levels are not supported")),
    ("CosineDPM", Class::Refused("models trained on EDM's noise levels are not supported")),
    ("Consistency", Class::Refused("consistency models are not supported, except those with LCMScheduler")),
    ("CMStochastic", Class::Refused("consistency models are not supported, except those with LCMScheduler")),
    ("SCM", Class::Refused("consistency models are not supported, except those with LCMScheduler")),
];

/// The class of this name, as `_class_name` in `scheduler_config.json`.
pub(super) fn of(name: &str) -> Class {
    // Repositories with weights for JAX name the same schedulers with a prefix.
    let plain = name.strip_prefix("Flax").unwrap_or(name);
    let plain = plain.strip_suffix("Scheduler").unwrap_or(plain);
    let known = DDPM.iter().find(|(known, _)| *known == plain);
    let other = || OTHERS.iter().find(|(part, _)| plain.contains(part));
    known.or_else(other).map_or(
        Class::Refused("it must be a scheduler of diffusers with DDPM's betas, such as DDIMScheduler"),
        |(_, class)| *class,
    )
}
