//! The optimiser's update of all tensors at once, and the norm of their gradients.

use candle_core::{DType, Device, Result, Shape, Tensor, Var};

use super::machine_of;
use crate::nn::blockwise::Blockwise;
use crate::nn::copies;
use crate::nn::cpu::adamw::Step;
use crate::nn::cuda::array::Array;
use crate::nn::cuda::device::{has_kernels, send};
use crate::nn::cuda::launch::ALIGNMENT;
use crate::nn::cuda::machine::Machine;
use crate::nn::cuda::optimiser::{Table, TrainedTensor};

/// AdamW's moments of a tensor: of its gradients, and of their squares.
#[derive(Clone, Copy)]
pub enum Moments<'a> {
    /// Tensors like it.
    F32([&'a Var; 2]),
    /// Codes with block-wise scales.
    EightBit([&'a Blockwise; 2]),
}

impl Moments<'_> {
    /// Their tensors: the moments, or codes and scales of the first and of the second.
    fn variables(self) -> Vec<Tensor> {
        let variables = match self {
            Self::F32(moments) => moments.to_vec(),
            Self::EightBit([first, second]) => {
                vec![&first.codes, &second.codes, &first.scales, &second.scales]
            }
        };
        variables.into_iter().map(Var::as_detached_tensor).collect()
    }
}

/// A tensor in training with what an update reads and changes.
#[derive(Clone, Copy)]
pub struct Trained<'a> {
    /// The tensor.
    pub parameter: &'a Var,
    /// Its gradient with the moments; without it, only the average moves.
    pub gradient: Option<(&'a Tensor, Moments<'a>)>,
    /// Its moving average, if there is one.
    pub average: Option<&'a Var>,
}

impl Trained<'_> {
    /// Whether `AdamW::step_all` updates it together with others: on a GPU, in f32. Its average may be elsewhere.
    pub(in crate::nn) fn is_on_card(&self) -> bool {
        let fits = |tensor: &Tensor| self.is_beside(tensor) && tensor.dtype() == DType::F32;
        let gradient = self.gradient.is_none_or(|(gradient, moments)| {
            gradient.dtype() == DType::F32
                && gradient.dims() == self.parameter.dims()
                && moments.variables().iter().all(|tensor| self.is_beside(tensor))
        });
        has_kernels(self.parameter.device()) && fits(self.parameter) && gradient
    }

    /// Whether kernels can take this tensor with the parameter.
    pub(in crate::nn) fn is_beside(&self, tensor: &Tensor) -> bool {
        tensor.is_contiguous() && tensor.device().location() == self.parameter.device().location()
    }
}

/// The table of the tensors with everything that keeps its addresses valid.
struct Uploaded {
    table: Table,
    on_device: Array,
    _arrays: Vec<Array>,
}

impl Uploaded {
    fn new(device: &Device, rows: Vec<TrainedTensor>, arrays: Vec<Array>) -> Result<Self> {
        let table = Table::new(rows);
        // As f32, in which tensors are sent without a wait.
        let words: &[f32] = bytemuck::cast_slice(&table.rows);
        let words = Tensor::from_slice(words, words.len(), &Device::Cpu)?;
        let on_device = Array::of(&send(&words, device)?)?;
        Ok(Self { table, on_device, _arrays: arrays })
    }
}

/// The L2 norm of all gradients together, f32 on one device, and the factor that limits it to `largest`: a tensor of two f32
/// on that device.
pub(in crate::nn) fn norm_and_clip(gradients: &[Tensor], largest: f64) -> Result<Tensor> {
    let machine = machine_of(&gradients[0])?;
    let arrays = gradients.iter().map(Array::of).collect::<Result<Vec<_>>>()?;
    let row = |array: &Array| TrainedTensor {
        gradient: array.pointer.0,
        elements: array.shape.elem_count() as i64,
        ..TrainedTensor::default()
    };
    let rows = arrays.iter().map(row).collect();
    let uploaded = Uploaded::new(gradients[0].device(), rows, arrays)?;
    let partial = machine.allocate(Shape::from(uploaded.table.partial()), DType::F64)?;
    let result = machine.allocate(Shape::from(2), DType::F32)?;
    let room = [partial.pointer, result.pointer];
    uploaded.table.norm_and_clip(&*machine, uploaded.on_device.pointer, largest as f32, room)?;
    result.into_tensor()
}

/// Updates all tensors in place, and the copies of their weights. The gradients are multiplied by the second number of `norm`,
/// which [`norm_and_clip`] has made, and nothing changes if the first is not finite; without it, by the scale of `step`.
/// `approach` is 1 minus the decay of the average.
pub(in crate::nn) fn update(
    tensors: &[Trained<'_>],
    norm: Option<&Tensor>,
    step: &Step,
    approach: f32,
) -> Result<()> {
    let Some(first) = tensors.first() else { return Ok(()) };
    let (machine, mut arrays) = (machine_of(first.parameter)?, Vec::new());
    let mut address = |tensor: Option<&Tensor>| -> Result<u64> {
        let Some(tensor) = tensor else { return Ok(0) };
        let array = Array::of(tensor)?;
        let address = array.pointer.0;
        arrays.push(array);
        Ok(address)
    };
    let mut rows = Vec::new();
    for Trained { parameter, gradient, average } in tensors {
        let moments = gradient.map_or(Vec::new(), |(_, moments)| moments.variables());
        rows.push(TrainedTensor {
            parameter: address(Some(parameter))?,
            gradient: address(gradient.map(|(gradient, _)| gradient))?,
            first_moment: address(moments.first())?,
            second_moment: address(moments.get(1))?,
            first_scales: address(moments.get(2))?,
            second_scales: address(moments.get(3))?,
            average: address(average.map(|average| average.as_tensor()))?,
            half: address(copies::of(parameter).as_ref())?,
            elements: parameter.elem_count() as i64,
            ..TrainedTensor::default()
        });
    }
    let device = first.parameter.device();
    let uploaded = Uploaded::new(device, rows, arrays)?;
    let norm = match norm {
        Some(norm) => Array::of(norm)?,
        // The host has looked at the norm; the kernel needs one that is finite.
        None => Array::of(&Tensor::new(&[1f32, step.gradient_scale], device)?)?,
    };
    uploaded.table.adamw(&*machine, uploaded.on_device.pointer, norm.pointer, step, approach)
}

/// The launches of [`norm`] and [`update`] for tensors of so many elements, with moments and average, and with a copy where it says
/// so, on a machine that only counts.
pub(in crate::nn) fn counted_update(machine: &dyn Machine, tensors: &[(i64, bool)]) -> Result<()> {
    let somewhere = ALIGNMENT;
    let row = |&(elements, copied): &(i64, bool)| TrainedTensor {
        parameter: somewhere,
        gradient: somewhere,
        first_moment: somewhere,
        second_moment: somewhere,
        average: somewhere,
        half: if copied { somewhere } else { 0 },
        elements,
        ..TrainedTensor::default()
    };
    let table = Table::new(tensors.iter().map(row).collect());
    let [partial, result] =
        [table.partial(), 2].map(|count| machine.allocate(Shape::from(count), DType::F64));
    let (partial, result) = (partial?, result?);
    table.norm_and_clip(machine, result.pointer, 1.0, [partial.pointer, result.pointer])?;
    table.adamw(machine, result.pointer, result.pointer, &Step::nothing(), 0.0)
}
