//! Layers, U-Nets, the optimiser and the walk on a GPU against the CPU: `tests/gpu/run.sh` runs them.
//!
//! The device is `LAPTOP_DIFF_TEST_DEVICE`, cuda:0 if that is not set; on the CPU the tests check themselves, in f32.

#[path = "../it/rooms/model/golden.rs"]
#[expect(dead_code, reason = "the tests of the model use all of it")]
mod golden;

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use laptop_diff::backend::{DeviceChoice, Random};
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::data::Calibration;
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::unet::UNet;
use laptop_diff::nn::gradients::Gradients;
use laptop_diff::nn::optim::{AdamW, Moments, Trained};
use laptop_diff::nn::{self, Conv2d, GroupNorm, LayerNorm, Linear, image};
use laptop_diff::score::{Limits, ScoreError, ScoringContext, traverse};

use golden::{Golden, UNETS, relative_l2};

fn device() -> Device {
    let name = std::env::var("LAPTOP_DIFF_TEST_DEVICE").unwrap_or("cuda:0".to_owned());
    let choice: DeviceChoice = name.parse().expect("LAPTOP_DIFF_TEST_DEVICE is cpu or cuda:N");
    choice.open().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What flows, and how far the result may be off, relative to the largest element. In bf16 a rounding is 2^-9, and
/// the outputs and gradients here are made of a few of them.
fn types(device: &Device) -> &'static [(DType, f64)] {
    let all = &[(DType::F32, 1e-4), (DType::BF16, 3e-2)];
    if device.is_cpu() { &all[..1] } else { all }
}

type Op = fn(&[Tensor]) -> Result<Tensor>;

fn conv(t: &[Tensor], stride: usize, padding: usize) -> Conv2d {
    Conv2d { weight: t[1].clone(), bias: Some(t[2].clone()), stride, padding }
}

/// Of images [b, c, h, w].
fn on_images(t: &[Tensor], layer: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    image::end(&layer(&image::begin(&t[0])?)?)
}

fn group_norm(t: &[Tensor]) -> GroupNorm {
    GroupNorm { weight: t[1].clone(), bias: t[2].clone(), groups: 4, eps: 1e-5 }
}

/// What a layer is called, what it does to its operands, and their shapes. The first operand flows.
type Layer = (&'static str, Op, &'static [&'static [usize]]);

const LAYERS: &[Layer] = &[
    ("conv 3x3", |t| on_images(t, |x| conv(t, 1, 1).forward(x)), &[&[2, 16, 12, 10], &[24, 16, 3, 3], &[24]]),
    (
        "conv 3x3, stride 2",
        |t| on_images(t, |x| conv(t, 2, 1).forward(x)),
        &[&[2, 16, 13, 10], &[24, 16, 3, 3], &[24]],
    ),
    ("conv 1x1", |t| on_images(t, |x| conv(t, 1, 0).forward(x)), &[&[2, 16, 9, 7], &[24, 16, 1, 1], &[24]]),
    (
        "conv, enlarged",
        |t| on_images(t, |x| conv(t, 1, 1).forward_upsampled(x)),
        &[&[2, 8, 6, 5], &[12, 8, 3, 3], &[12]],
    ),
    (
        "conv 14x14",
        |t| on_images(t, |x| conv(t, 14, 0).forward(x)),
        &[&[1, 3, 42, 42], &[16, 3, 14, 14], &[16]],
    ),
    (
        "linear",
        |t| Linear { weight: t[1].clone(), bias: Some(t[2].clone()) }.forward(&t[0]),
        &[&[2, 77, 48], &[40, 48], &[40]],
    ),
    ("group norm", |t| on_images(t, |x| group_norm(t).forward(x)), &[&[2, 16, 9, 7], &[16], &[16]]),
    (
        "group norm, SiLU",
        |t| on_images(t, |x| group_norm(t).forward_silu(x)),
        &[&[2, 16, 9, 7], &[16], &[16]],
    ),
    (
        "layer norm",
        |t| LayerNorm { weight: t[1].clone(), bias: t[2].clone(), eps: 1e-5 }.forward(&t[0]),
        &[&[2, 33, 48], &[48], &[48]],
    ),
    (
        "self-attention",
        |t| nn::attention(&t[0], &t[1], &t[2], 4, false),
        &[&[2, 65, 32], &[2, 65, 32], &[2, 65, 32]],
    ),
    (
        "cross-attention",
        |t| nn::attention(&t[0], &t[1], &t[2], 4, false),
        &[&[2, 65, 32], &[2, 77, 32], &[2, 77, 32]],
    ),
    (
        "causal attention",
        |t| nn::attention(&t[0], &t[1], &t[2], 4, true),
        &[&[2, 77, 32], &[2, 77, 32], &[2, 77, 32]],
    ),
    // Heads that have kernels.
    (
        "attention, heads of 40",
        |t| nn::attention(&t[0], &t[1], &t[2], 2, false),
        &[&[2, 65, 80], &[2, 77, 80], &[2, 77, 80]],
    ),
    (
        "attention, heads of 64",
        |t| nn::attention(&t[0], &t[1], &t[2], 2, true),
        &[&[2, 130, 128], &[2, 130, 128], &[2, 130, 128]],
    ),
    (
        "attention, heads of 80",
        |t| nn::attention(&t[0], &t[1], &t[2], 2, false),
        &[&[2, 65, 160], &[2, 77, 160], &[2, 77, 160]],
    ),
    (
        "attention, heads of 160",
        |t| nn::attention(&t[0], &t[1], &t[2], 2, false),
        &[&[2, 65, 320], &[2, 77, 320], &[2, 77, 320]],
    ),
    (
        "linear, residual",
        |t| Linear { weight: t[1].clone(), bias: Some(t[2].clone()) }.forward_onto(&t[0], &t[0]),
        &[&[2, 77, 48], &[48, 48], &[48]],
    ),
    ("GEGLU", |t| nn::geglu(&t[0]), &[&[2, 33, 64]]),
    ("SiLU", |t| nn::silu(&t[0]), &[&[2, 333]]),
    ("GELU", |t| nn::gelu(&t[0]), &[&[2, 333]]),
    ("quick GELU", |t| nn::quick_gelu(&t[0]), &[&[2, 333]]),
    ("enlargement", |t| on_images(t, nn::upsample_nearest_2x), &[&[2, 3, 5, 7]]),
];

/// The output and all gradients, in f64 on the CPU.
fn differentiate(op: Op, operands: &[Tensor]) -> Result<Vec<Tensor>> {
    let variables = operands.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let (y, tape) = nn::record(|| op(&tensors))?;
    let cotangent = Random::new(5, "gpu").normal("cotangent", 0, y.dims(), &Device::Cpu)?;
    let cotangent = cotangent.to_device(y.device())?.to_dtype(y.dtype())?;
    let found = tape.backward([(y.clone(), cotangent)])?;
    let gradients = variables.iter().map(|v| found.get(v).cloned().expect("every operand has a gradient"));
    std::iter::once(y).chain(gradients).map(|x| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

#[test]
#[ignore = "needs a CUDA device"]
fn every_layer_agrees_with_f64_on_the_cpu() -> Result<()> {
    let device = device();
    for &(flowing, tolerance) in types(&device) {
        for (name, op, shapes) in LAYERS {
            let normal = |(i, shape): (usize, &&[usize])| {
                Random::new(5, "gpu").normal(name, i as u64, shape, &Device::Cpu)
            };
            let drawn = shapes.iter().enumerate().map(normal).collect::<Result<Vec<_>>>()?;
            // Weights in f32, as they are trained, and in the type of what flows, as they are used; attention has
            // none.
            for weights in [DType::F32, flowing] {
                let weights = if name.contains("attention") { flowing } else { weights };
                let rounded =
                    drawn.iter().enumerate().map(|(i, x)| x.to_dtype(if i == 0 { flowing } else { weights }));
                let rounded = rounded.collect::<Result<Vec<_>>>()?;
                let here = rounded.iter().map(|x| x.to_device(&device)).collect::<Result<Vec<_>>>()?;
                let wide = rounded.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
                let (found, wanted) = (differentiate(*op, &here)?, differentiate(*op, &wide)?);
                for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    let largest = wanted.abs()?.max_all()?.to_scalar::<f64>()?.max(1e-3);
                    let error = (found - wanted)?.abs()?.max_all()?.to_scalar::<f64>()? / largest;
                    let what = if i == 0 { "output".to_owned() } else { format!("gradient {}", i - 1) };
                    assert!(
                        error <= tolerance,
                        "{name}, {flowing:?} over {weights:?}, {what}: off by {error:.1e}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Layers without gradients, which have kernels of their own: in f16, and heads as wide as an autoencoder's.
#[test]
#[ignore = "needs a CUDA device"]
fn every_layer_predicts_in_half_precision() -> Result<()> {
    let device = device();
    let wide: Op = |t| nn::attention(&t[0], &t[1], &t[2], 1, false);
    let wide: Layer = ("attention, heads of 512", wide, &[&[2, 130, 512], &[2, 99, 512], &[2, 99, 512]]);
    // A rounding is 2^-12 and 2^-9.
    let types = [(DType::F16, 4e-3), (DType::BF16, 3e-2)];
    for (flowing, tolerance) in types.into_iter().filter(|_| device.is_cuda()) {
        for (name, op, shapes) in LAYERS.iter().chain([&wide]) {
            let normal = |(i, shape): (usize, &&[usize])| {
                Random::new(5, "gpu").normal(name, i as u64, shape, &Device::Cpu)?.to_dtype(flowing)
            };
            let drawn = shapes.iter().enumerate().map(normal).collect::<Result<Vec<_>>>()?;
            let here = drawn.iter().map(|x| x.to_device(&device)).collect::<Result<Vec<_>>>()?;
            let exact = drawn.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
            let (found, wanted) = (op(&here)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?, op(&exact)?);
            let largest = wanted.abs()?.max_all()?.to_scalar::<f64>()?.max(1e-3);
            let error = (found - wanted)?.abs()?.max_all()?.to_scalar::<f64>()? / largest;
            assert!(error <= tolerance, "{name}, {flowing:?}: off by {error:.1e}");
        }
    }
    Ok(())
}

/// A golden model on the device, over variables.
struct Trainable {
    unet: UNet,
    variables: HashMap<String, Var>,
}

impl Trainable {
    fn new(golden: &Golden, flowing: DType, device: &Device) -> Result<Self> {
        let variable =
            |(name, tensor): (String, Tensor)| Ok((name, Var::from_tensor(&tensor.to_device(device)?)?));
        let variables = golden.weights().into_iter().map(variable).collect::<Result<HashMap<_, _>>>()?;
        let tensors = variables.iter().map(|(name, v)| (name.clone(), v.as_tensor().clone())).collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
        let unet = UNet::new(golden.unet_config(), vb)?.computing_in(flowing, device);
        Ok(Self { unet, variables })
    }

    fn predict(&self, golden: &Golden, device: &Device) -> Result<Tensor> {
        let there = |tensor: &Tensor| tensor.to_device(device);
        let Conditioning { encoder_hidden_states, text_embeds, time_ids } = golden.conditioning();
        let conditioning = Conditioning {
            encoder_hidden_states: there(&encoder_hidden_states)?,
            text_embeds: text_embeds.as_ref().map(there).transpose()?,
            time_ids: time_ids.as_ref().map(there).transpose()?,
        };
        self.unet.forward(&there(&golden.input("sample"))?, &there(&golden.input("timestep"))?, &conditioning)
    }
}

#[test]
#[ignore = "needs a CUDA device"]
fn predictions_and_gradients_of_whole_u_nets() -> Result<()> {
    let device = device();
    for &(flowing, _) in types(&device) {
        // Relative L2 through some fifty layers. In bf16 a rounding is 2e-3, and gradients go through all twice.
        let (of_prediction, of_gradients) = if flowing == DType::F32 { (1e-4, 1e-3) } else { (5e-2, 2e-1) };
        for name in UNETS {
            let golden = Golden::open(name);
            let (there, here) = (
                Trainable::new(&golden, flowing, &device)?,
                Trainable::new(&golden, DType::F32, &Device::Cpu)?,
            );
            let (found, there_tape) = nn::record(|| there.predict(&golden, &device))?;
            let (wanted, here_tape) = nn::record(|| here.predict(&golden, &Device::Cpu))?;
            assert_eq!(found.dtype(), flowing);
            let on_cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F32);
            let distance = relative_l2(&on_cpu(&found)?, &wanted);
            assert!(distance <= of_prediction, "{name}, {flowing:?}: the prediction is {distance:.1e} off");
            // Of the mean square.
            let gradient = |y: &Tensor| y * (2.0 / y.elem_count() as f64);
            let found = there_tape.backward([(found.clone(), gradient(&found)?)])?;
            let wanted = here_tape.backward([(wanted.clone(), gradient(&wanted)?)])?;
            for (path, variable) in &there.variables {
                let gradient =
                    found.get(variable).unwrap_or_else(|| panic!("{name}: {path} has no gradient"));
                assert_eq!(gradient.dtype(), DType::F32, "{name}: {path}");
                let wanted = wanted.get(&here.variables[path]).expect("the tests of the model see to it");
                let distance = relative_l2(&on_cpu(gradient)?, wanted);
                assert!(
                    distance <= of_gradients,
                    "{name}, {flowing:?}: the gradient of {path} is {distance:.1e} off"
                );
            }
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a CUDA device"]
fn the_optimiser_takes_the_steps_it_takes_on_the_cpu() -> Result<()> {
    let settings = AdamW { learning_rate: 1e-2, ..AdamW::default() };
    let run = |device: &Device| -> Result<Tensor> {
        let random = Random::new(5, "gpu");
        let parameter = Var::from_tensor(&random.normal("parameter", 0, &[1000], device)?)?;
        let (first, second) =
            (Var::from_tensor(&parameter.zeros_like()?)?, Var::from_tensor(&parameter.zeros_like()?)?);
        let mut norms = Vec::new();
        for step in 1..=5 {
            let gradient = random.normal("gradient", step, &[1000], device)?;
            let mut gradients = Gradients::default();
            let (_, mut found) = nn::differentiate(|| (parameter.as_tensor() * &gradient)?.sum_all())?;
            gradients.add(&mut found, [&parameter].into_iter())?;
            // About half of the norm, which the GPU hands from kernel to kernel, and the host reads after the update.
            let clip = gradients.clip(16.0)?;
            let norm = clip.norm()?;
            let gradient = gradients.iter().next().flatten().expect("it has a gradient");
            let gradient = Some((gradient, Moments::F32([&first, &second])));
            settings.step_all(
                &[Trained { parameter: &parameter, gradient, average: None }],
                step,
                &clip,
                0.0,
            )?;
            norms.push(norm.read()?[0]);
        }
        Tensor::cat(&[&parameter.as_tensor().to_device(&Device::Cpu)?, &Tensor::new(norms, &Device::Cpu)?], 0)
    };
    let distance = relative_l2(&run(&device())?, &run(&Device::Cpu)?);
    assert!(distance <= 1e-6, "{distance:.1e} off");
    Ok(())
}

/// The losses of all units by a walk, on the device and in f32 on the CPU.
#[test]
#[ignore = "needs a CUDA device"]
fn the_walk_finds_the_losses_that_it_finds_on_the_cpu() -> std::result::Result<(), ScoreError> {
    let device = device();
    let losses = |golden: &Golden, flowing, device: &Device| -> std::result::Result<Vec<f64>, ScoreError> {
        let unet = Trainable::new(golden, flowing, device)?.unet;
        let conditioning = golden.conditioning();
        let there = |tensor: &Tensor| tensor.to_device(device);
        let points = Calibration {
            sample: there(&golden.input("sample"))?,
            noise: there(&golden.input("sample"))?,
            latents: None,
            timestep: there(&golden.input("timestep"))?,
            encoder_hidden_states: there(&conditioning.encoder_hidden_states)?,
            text_embeds: conditioning.text_embeds.as_ref().map(there).transpose()?,
            time_ids: conditioning.time_ids.as_ref().map(there).transpose()?,
        };
        let (folder, interrupt) = (tempfile::tempdir().expect("a folder"), Interrupt::default());
        let context = ScoringContext {
            limits: Limits::default(),
            weights: None,
            checkpoint: folder.path(),
            progress: &Silent,
            interrupt: &interrupt,
        };
        let gram = traverse(&unet, &points, None, &context)?.gram;
        Ok((0..gram.units().len()).map(|unit| gram.at(unit, unit)).collect())
    };
    for &(flowing, _) in types(&device) {
        // A loss is a square: twice the relative error of a difference of two predictions.
        let tolerance = if flowing == DType::F32 { 1e-3 } else { 0.3 };
        for name in UNETS {
            let golden = Golden::open(name);
            let found = losses(&golden, flowing, &device)?;
            let wanted = losses(&golden, DType::F32, &Device::Cpu)?;
            let most = wanted.iter().copied().fold(0.0, f64::max);
            for (unit, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let off = (found - wanted).abs() / wanted.max(1e-3 * most);
                assert!(off <= tolerance, "{name}, {flowing:?}: the loss of unit {unit} is {off:.1e} off");
            }
        }
    }
    Ok(())
}
