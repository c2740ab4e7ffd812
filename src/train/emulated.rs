//! A whole U-Net as it is trained on a GPU, on a CPU: with our kernels, and images with their channels last.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;

use super::{ActivationCheckpointing, Average, Input, Moments, Optimiser, Trainable, Update};
use crate::backend::Random;
use crate::model::network::Conditioning;
use crate::model::unet::{UNet, UNetConfig};
use crate::nn;
use crate::nn::counting::{Implementation, Pass};
use crate::nn::gradients::Gradients;
use crate::nn::optim::AdamW;

/// Two resolutions with a head of 40, the upper one without attention.
const CONFIG: &str = r#"{
    "attention_head_dim": 1, "block_out_channels": [16, 40], "cross_attention_dim": 24, "layers_per_block": 1,
    "norm_num_groups": 8, "sample_size": 8,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]
}"#;

fn normal(name: &str, shape: &[usize]) -> Result<Tensor> {
    Random::new(5, "emulated").normal(name, 0, shape, &Device::Cpu)
}

fn config() -> UNetConfig {
    UNetConfig::parse(CONFIG).expect("a small configuration")
}

fn weights(config: &UNetConfig) -> Result<BTreeMap<String, Tensor>> {
    let mut weights = BTreeMap::new();
    for entry in config.inventory().tensors() {
        let shape = &entry.shape;
        // Outputs of about the size of inputs; norms around 1.
        let inputs: usize = shape.iter().skip(1).product();
        let drawn = (normal(&entry.name, shape)? * (inputs as f64).sqrt().recip().min(0.3))?;
        let drawn = if shape.len() == 1 && entry.name.ends_with("weight") { (drawn + 1.0)? } else { drawn };
        weights.insert(entry.name.clone(), drawn);
    }
    Ok(weights)
}

fn trainable(dtype: DType) -> Result<Trainable> {
    let config = config();
    let variable = |(name, weight): (String, Tensor)| Ok((name, Var::from_tensor(&weight)?));
    let weights = weights(&config)?.into_iter().map(variable).collect::<Result<_>>()?;
    Trainable::new(&config, weights, |_| false, dtype, &Device::Cpu)
}

fn input((height, width): (usize, usize)) -> Result<Input> {
    Ok(Input {
        sample: normal("sample", &[2, 4, height, width])?,
        timestep: Tensor::new(&[7i64, 801], &Device::Cpu)?,
        conditioning: Conditioning {
            encoder_hidden_states: normal("text", &[2, 77, 24])?,
            text_embeds: None,
            time_ids: None,
        },
    })
}

/// A prediction for latents of this size, the gradients, and the prediction after a step.
fn step(dtype: DType, (height, width): (usize, usize)) -> Result<(Tensor, BTreeMap<String, Tensor>, Tensor)> {
    let trainable = trainable(dtype)?;
    let input = input((height, width))?;
    let target = normal("target", &[2, 4, height, width])?;
    let mut prediction = None;
    let mut loss = |path: &str, hidden: &Tensor| {
        if path != "conv_out" {
            return Ok(None);
        }
        prediction = Some(hidden.detach());
        nn::mean_square_difference(hidden, &target.to_dtype(hidden.dtype())?).map(Some)
    };
    let mut gradients = Gradients::default();
    trainable.differentiate(&input, ActivationCheckpointing::None, &mut loss, &mut gradients)?;
    let optimiser = Optimiser::new(trainable.variables(), Moments::F32, &Average::On(Device::Cpu))?;
    let update = Update { adamw: AdamW::default(), step: 0, ema_decay: 0.9 };
    optimiser.update(&gradients, &gradients.clip(1.0)?, &update)?;
    let named = trainable.variables().zip(gradients.iter());
    let named = named.map(|((name, _), gradient)| {
        (name.to_owned(), gradient.unwrap_or_else(|| panic!("`{name}` has no gradient")).clone())
    });
    let after = trainable.unet().forward(&input.sample, &input.timestep, &input.conditioning)?;
    Ok((prediction.expect("the walk ends with it"), named.collect(), after))
}

fn relative_l2(found: &Tensor, wanted: &Tensor) -> Result<f64> {
    let norm = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    let off = (found.to_dtype(DType::F64)? - wanted.to_dtype(DType::F64)?)?;
    Ok((norm(&off)? / norm(wanted)?.max(1e-20)).sqrt())
}

/// Seven rows lose their last one on the way up again. In bf16 a rounding is 2e-3, and gradients go through all layers twice.
#[test]
fn a_u_net_is_trained_as_on_a_gpu() -> Result<()> {
    let latents = (7, 8);
    let (prediction, gradients, after) = step(DType::F32, latents)?;
    for (dtype, of_prediction, of_gradients) in [(DType::F32, 1e-5, 1e-3), (DType::BF16, 3e-2, 2e-1)] {
        let (result, launches) = nn::emulating(|| step(dtype, latents));
        let (found, of_weights, later) = result?;
        assert_eq!((found.dtype(), found.dims()), (dtype, prediction.dims()));
        assert!(launches > 500, "{launches} launches");
        let off = relative_l2(&found, &prediction)?;
        assert!(off <= of_prediction, "{dtype:?}: the prediction is {off:.1e} off");
        let off = relative_l2(&later, &after)?;
        assert!(off <= of_prediction, "{dtype:?}: after a step, the prediction is {off:.1e} off");
        for (name, gradient) in of_weights {
            assert_eq!(gradient.dtype(), DType::F32, "{name}");
            let off = relative_l2(&gradient, &gradients[&name])?;
            assert!(off <= of_gradients, "{dtype:?}: the gradient of {name} is {off:.1e} off");
        }
    }
    Ok(())
}

/// Without gradients: as many launches in f16 as in bf16, so that nothing is composed, and closer to f32.
#[test]
fn a_u_net_predicts_in_half_precision() -> Result<()> {
    let predict = |dtype: DType| -> Result<Tensor> {
        let (config, input) = (config(), input((7, 8))?);
        let weights = weights(&config)?.into_iter().collect();
        let unet = UNet::new(config, VarBuilder::from_tensors(weights, dtype, &Device::Cpu))
            .map_err(candle_core::Error::wrap)?;
        unet.forward(&input.sample, &input.timestep, &input.conditioning)
    };
    let wanted = predict(DType::F32)?;
    let mut launched = Vec::new();
    for (dtype, tolerance) in [(DType::BF16, 3e-2), (DType::F16, 4e-3)] {
        let (found, launches) = nn::emulating(|| predict(dtype));
        let off = relative_l2(&found?, &wanted)?;
        assert!(off <= tolerance, "{dtype:?}: the prediction is {off:.1e} off");
        launched.push(launches);
    }
    assert!(launched[0] == launched[1] && launched[0] > 100, "{launched:?} launches");
    Ok(())
}

/// What is counted from a configuration is what a run launches.
#[test]
fn launches_are_as_many_as_counted() -> Result<()> {
    let (result, launched) = nn::emulating(|| step(DType::BF16, (8, 8)));
    result?;
    let config = UNetConfig::parse(CONFIG).expect("a small configuration");
    let mut pass = Pass::new(Implementation::Kernels);
    let student = config.counted(&mut pass, 2, (8, 8), true)?;
    let found = student.forward(&mut pass)?;
    let prediction = found.last().expect("a prediction").clone();
    pass.difference(&prediction, &prediction.clone())?;
    drop(found);
    pass.backward()?;
    pass.update()?;
    // The prediction after the step.
    let plain = config.counted(&mut pass, 2, (8, 8), false)?;
    plain.forward(&mut pass)?;
    assert_eq!(pass.counts().own_launches, launched);
    Ok(())
}
