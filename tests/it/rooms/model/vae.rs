//! The autoencoder against diffusers.

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use laptop_diff::model::vae::{AutoencoderKl, TileSide, VaeConfig};

use super::golden::{Golden, max_difference};

fn config(golden: &Golden) -> VaeConfig {
    let config: VaeConfig = serde_json::from_str(&golden.config).expect("diffusers wrote it");
    config.check().expect("diffusers can build it");
    config
}

#[test]
fn latents_and_pictures_are_those_of_diffusers() -> Result<()> {
    let golden = Golden::open("vae");
    let vae = AutoencoderKl::new(&config(&golden), golden.builder())?;
    golden.assert_close("latents", &vae.encode(&golden.input("pictures"))?);
    golden.assert_close("pictures", &vae.decode(&golden.input("latents"))?);
    assert_eq!(vae.downscale(), 2);
    Ok(())
}

#[test]
fn tiles_are_those_of_diffusers() -> Result<()> {
    let golden = Golden::open("vae");
    let tile = |side| TileSide::try_from(side).expect("a multiple of 4");
    let vae = AutoencoderKl::new(&config(&golden), golden.builder())?;
    let (pictures, latents) = (golden.input("large_pictures"), golden.input("large_latents"));
    let tiled = vae.clone().tiled(Some(tile(4)));
    golden.assert_close("tiled_latents", &tiled.encode(&pictures)?);
    golden.assert_close("tiled_pictures", &tiled.decode(&latents)?);
    // One tile that holds everything is no tile.
    let one = vae.clone().tiled(Some(tile(16)));
    assert_eq!(max_difference(&one.encode(&pictures)?, &vae.encode(&pictures)?), 0.0);
    assert_eq!(max_difference(&one.decode(&latents)?, &vae.decode(&latents)?), 0.0);
    assert!(max_difference(&tiled.decode(&latents)?, &vae.decode(&latents)?) > 0.0);
    Ok(())
}

/// Stable Diffusion 1.5 has the names of before diffusers 0.16.
#[test]
fn older_names_of_the_attention_are_read() -> Result<()> {
    let golden = Golden::open("vae");
    let older = |name: String| {
        [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
            .iter()
            .fold(name, |name, (new, old)| name.replace(new, old))
    };
    let weights = golden.weights().into_iter().map(|(name, tensor)| (older(name), tensor)).collect();
    let vae =
        AutoencoderKl::new(&config(&golden), VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))?;
    golden.assert_close("pictures", &vae.decode(&golden.input("latents"))?);
    Ok(())
}

#[test]
fn a_shift_is_refused() {
    let config: VaeConfig = serde_json::from_str(r#"{"shift_factor": 0.1159}"#).expect("a float is a float");
    assert!(config.check().expect_err("we do not shift").contains("shift_factor"));
}

#[test]
fn half_precision_is_widened_where_it_overflows() {
    let config = VaeConfig::default();
    assert_eq!(config.compute_dtype(DType::F16), DType::F32);
    assert_eq!(config.compute_dtype(DType::BF16), DType::BF16);
}
