//! Where a walk gets its steps from: memory, or a file from which each step is read when the walk reaches it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;

use super::spec::{Kind, Spec};
use super::step::Step;

/// The steps of a network.
#[derive(Clone)]
pub(in crate::model) enum Steps {
    /// In memory.
    Held(Vec<Step>),
    /// In a file.
    Streamed(VarBuilder<'static>),
}

impl Steps {
    /// Reads the weights of all steps into memory; `vb` is at the network's root.
    pub(in crate::model) fn held(specs: &[Spec], vb: &VarBuilder) -> Result<Self> {
        Ok(Self::Held(specs.iter().map(|spec| Step::new(spec, vb)).collect::<Result<_>>()?))
    }

    /// The steps of `specs`, which must be the list of these steps. Fails if the weights of a streamed step cannot be
    /// read.
    pub(in crate::model) fn iter<'a>(
        &'a self,
        specs: &'a [Spec],
    ) -> impl ExactSizeIterator<Item = Result<Cow<'a, Step>>> {
        self.iter_in(specs, 0..specs.len())
    }

    /// Some of the steps of `specs`.
    pub(in crate::model) fn iter_in<'a>(
        &'a self,
        specs: &'a [Spec],
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = Result<Cow<'a, Step>>> {
        places.map(move |place| match self {
            Self::Held(steps) => Ok(Cow::Borrowed(&steps[place])),
            Self::Streamed(vb) => Ok(Cow::Owned(Step::new(&specs[place], vb)?)),
        })
    }

    /// The steps of the longer list `specs`, which has more linear maps; these change nothing. A file has no such steps.
    pub(in crate::model) fn with_maps(&self, specs: &[Spec], device: &Device) -> Result<Self> {
        let Self::Held(steps) = self else { return Ok(self.clone()) };
        let here: BTreeMap<&str, &Step> = steps.iter().map(|step| (step.path(), step)).collect();
        let dtype = self.dtype();
        let all = specs.iter().map(|spec| match here.get(spec.path.as_str()) {
            Some(step) => Ok((*step).clone()),
            None => Step::identity(spec, dtype, device),
        });
        Ok(Self::Held(all.collect::<Result<_>>()?))
    }

    /// The type of the weights.
    pub(in crate::model) fn dtype(&self) -> DType {
        match self {
            Self::Held(steps) => {
                steps.first().and_then(Step::dtype_of_first).expect("BUG: a U-Net begins with a convolution")
            }
            Self::Streamed(vb) => vb.dtype(),
        }
    }

    /// The steps of the shorter list `specs`, sharing tensors with these.
    pub(in crate::model) fn without_removed(&self, specs: &[Spec]) -> Self {
        match self {
            Self::Held(steps) => {
                let here: BTreeMap<&str, &Step> = steps.iter().map(|step| (step.path(), step)).collect();
                let rest = specs.iter().map(|spec| match spec.kind {
                    Kind::Shortcut { .. } => here[spec.path.as_str()].without_branch(),
                    _ => here[spec.path.as_str()].clone(),
                });
                Self::Held(rest.collect())
            }
            Self::Streamed(vb) => Self::Streamed(vb.clone()),
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(steps) => f.debug_tuple("Held").field(steps).finish(),
            Self::Streamed(_) => f.write_str("Streamed"),
        }
    }
}
