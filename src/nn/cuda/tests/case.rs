//! An operation in f64, and what a kernel's results may differ from it.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::emulator::{Build, Emulator};
use crate::backend::Random;
use crate::nn::cuda::channels::Numbers;

/// Operands that a kernel can hold, and a cotangent, all in f64.
pub(super) struct Case<'a> {
    pub(super) operation: &'a dyn Fn(&[Tensor]) -> Result<Tensor>,
    pub(super) operands: Vec<Tensor>,
    pub(super) cotangent: Tensor,
}

/// What kernels have computed, in f64: the output and the gradient of each operand.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) output: Tensor,
    pub(super) gradients: Vec<Tensor>,
}

/// Normal numbers as type `dtype` holds them, in f64.
pub(super) fn normal(name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let numbers = Random::new(11, "cuda tests").normal(name, 0, shape, &Device::Cpu)?;
    numbers.to_dtype(dtype)?.to_dtype(DType::F64)
}

pub(super) fn numbers(dtype: DType) -> Numbers {
    if dtype == DType::BF16 { Numbers::Bf16 } else { Numbers::F32 }
}

fn elements(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

fn largest(tensor: &Tensor) -> Result<f64> {
    Ok(elements(tensor)?.into_iter().fold(0.0, |most, x| x.abs().max(most)))
}

/// The unit in the last place of a number of this size in half precision: eight bits of a bf16 hold it, eleven of an f16.
fn unit(size: f64, dtype: DType) -> f64 {
    let bits = if dtype == DType::F16 { 10.0 } else { 7.0 };
    (size.max(f64::MIN_POSITIVE).log2().floor() - bits).exp2()
}

/// What kernels compute, which must have the same bits under all schedules. Nothing under a sanitizer, which looks at the
/// kernels while they run.
fn same_bits<R>(
    what: &str,
    kernels: impl Fn(&Emulator) -> Result<R>,
    tensors: impl Fn(&R) -> Vec<Tensor>,
) -> Result<Option<R>> {
    let mut all = Vec::new();
    for schedule in Emulator::schedules() {
        all.push(kernels(&schedule)?);
    }
    if Build::of_process() != Build::Plain {
        return Ok(None);
    }
    let bits = |results: &R| -> Result<Vec<u64>> {
        let numbers = tensors(results).iter().map(elements).collect::<Result<Vec<_>>>()?;
        Ok(numbers.concat().into_iter().map(f64::to_bits).collect())
    };
    let first = bits(&all[0])?;
    for (schedule, results) in all.iter().enumerate() {
        assert!(bits(results)? == first, "{what}: schedule {schedule} gives other bits than schedule 0");
    }
    Ok(all.into_iter().next())
}

impl<'a> Case<'a> {
    /// With a normal cotangent that `dtype` can hold.
    pub(super) fn new(
        operation: &'a dyn Fn(&[Tensor]) -> Result<Tensor>,
        operands: Vec<Tensor>,
        dtype: DType,
    ) -> Result<Self> {
        let shape = operation(&operands)?.dims().to_vec();
        Ok(Self { operation, operands, cotangent: normal("cotangent", &shape, dtype)? })
    }

    /// Runs `kernels` under all schedules, and compares: the bits of the schedules with each other, the output to 2
    /// units (f32: to 1e-5 of the largest), and the gradients to 1 % of the largest (f32: 1e-4), with f64's and
    /// with differences. An output that is a sum of `scale` in absolute values is measured in units of that size.
    pub(super) fn check(
        &self,
        what: &str,
        dtype: DType,
        scale: Option<&Tensor>,
        kernels: impl Fn(&Emulator) -> Result<Results>,
    ) -> Result<()> {
        let tensors =
            |results: &Results| [std::slice::from_ref(&results.output), &results.gradients].concat();
        let Some(results) = same_bits(what, kernels, tensors)? else { return Ok(()) };
        self.check_output(what, dtype, scale, &results.output)?;
        let tolerance = if dtype == DType::BF16 { 1e-2 } else { 1e-4 };
        self.check_gradients(what, tolerance, &results.gradients)
    }

    /// The same for kernels that give no gradients, but an output and perhaps something beside it.
    pub(super) fn check_forward(
        &self,
        what: &str,
        dtype: DType,
        scale: Option<&Tensor>,
        kernels: impl Fn(&Emulator) -> Result<Vec<Tensor>>,
    ) -> Result<()> {
        match same_bits(what, kernels, Vec::clone)? {
            Some(results) => self.check_output(what, dtype, scale, &results[0]),
            None => Ok(()),
        }
    }

    fn check_output(&self, what: &str, dtype: DType, scale: Option<&Tensor>, found: &Tensor) -> Result<()> {
        let wanted = (self.operation)(&self.operands)?;
        let largest = largest(&wanted)?;
        let sizes = elements(scale.unwrap_or(&wanted))?;
        for (i, ((found, wanted), size)) in
            elements(found)?.iter().zip(elements(&wanted)?).zip(sizes).enumerate()
        {
            // Below a thousandth of the largest, f32's own rounding of sums is no longer small beside a unit.
            let unit = unit(size.abs().max(1e-3 * largest), dtype);
            let allowed = if dtype == DType::F32 { 1e-5 * largest } else { 2.0 * unit };
            let off = (found - wanted).abs();
            assert!(off <= allowed, "{what}, element {i}: {found}, needed {wanted}: {:.2} units", off / unit);
        }
        Ok(())
    }

    fn check_gradients(&self, what: &str, tolerance: f64, found: &[Tensor]) -> Result<()> {
        let variables = self.operands.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tracked: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let (_, store) = crate::nn::differentiate(|| self.loss(&tracked))?;
        assert_eq!(found.len(), variables.len(), "{what}: a gradient for each operand");
        // A gradient of almost nothing, as of equal keys, is measured by the cotangent.
        let least = 1e-3 * largest(&self.cotangent)?;
        for (i, (variable, found)) in variables.iter().zip(found).enumerate() {
            let wanted = store.get(variable).expect("every operand has a gradient");
            let allowed = tolerance * largest(wanted)?.max(least);
            for (at, (found, wanted)) in elements(found)?.iter().zip(elements(wanted)?).enumerate() {
                let off = (found - wanted).abs();
                assert!(off <= allowed, "{what}, gradient {i}, element {at}: {found}, needed {wanted}");
            }
            let direction = normal(&format!("direction {i}"), variable.dims(), DType::F64)?;
            let along: f64 = found.reshape(variable.shape())?.mul(&direction)?.sum_all()?.to_scalar()?;
            let slope = (self.moved(i, &direction, 1e-5)? - self.moved(i, &direction, -1e-5)?) / 2e-5;
            // Errors of independent elements add up as their root.
            let allowed = allowed * (variable.elem_count() as f64).sqrt() + 1e-6;
            assert!(
                (along - slope).abs() <= allowed,
                "{what}, gradient {i}: {along}, by differences {slope}"
            );
        }
        Ok(())
    }

    fn loss(&self, operands: &[Tensor]) -> Result<Tensor> {
        (self.operation)(operands)?.mul(&self.cotangent)?.sum_all()
    }

    /// The loss with operand `i` moved.
    fn moved(&self, i: usize, direction: &Tensor, step: f64) -> Result<f64> {
        let mut operands = self.operands.clone();
        operands[i] = (&operands[i] + (direction * step)?)?;
        self.loss(&operands)?.to_scalar()
    }
}
