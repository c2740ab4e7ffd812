//! The autoencoder against diffusers.

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use laptop_diff::model::vae::{Autoencoder, KlConfig, TileSide, TinyConfig, VaeConfig};
use serde_json::json;

use super::golden::{Golden, max_difference};

fn config(golden: &Golden) -> VaeConfig {
    let config = VaeConfig::Kl(serde_json::from_str(&golden.config).expect("diffusers wrote it"));
    config.check().expect("diffusers can build it");
    config
}

#[test]
fn latents_and_pictures_are_those_of_diffusers() -> Result<()> {
    let golden = Golden::open("vae");
    let vae = Autoencoder::new(&config(&golden), golden.builder())?;
    golden.assert_close("latents", &vae.encode(&golden.input("pictures"))?);
    golden.assert_close("pictures", &vae.decode(&golden.input("latents"))?);
    assert_eq!(vae.downscale(), 2);
    Ok(())
}

/// The small decoder is a part of models, the small encoder of those that are trained on pictures.
#[test]
fn a_small_autoencoder_computes_as_in_diffusers() -> Result<()> {
    let golden = Golden::open("vae_tiny");
    let config: TinyConfig = serde_json::from_str(&golden.config).expect("diffusers wrote it");
    config.check().expect("diffusers can build it");
    let vae = Autoencoder::new(&VaeConfig::Tiny(config), golden.builder())?;
    golden.assert_close("latents", &vae.encode(&golden.input("pictures"))?);
    golden.assert_close("pictures", &vae.decode(&golden.input("latents"))?);
    assert_eq!(vae.downscale(), 4);
    Ok(())
}

#[test]
fn a_small_autoencoder_of_another_kind_is_refused() {
    for (key, value, word) in [
        ("act_fn", json!("gelu"), "act_fn"),
        ("upsample_fn", json!("bilinear"), "upsample_fn"),
        ("upsampling_scaling_factor", json!(4), "upsampling_scaling_factor"),
        ("shift_factor", json!(0.1), "shift_factor"),
        ("scaling_factor", json!(0), "scaling_factor"),
        ("latent_channels", json!(0), "out of range"),
        ("num_decoder_blocks", json!([1]), "num_decoder_blocks"),
        ("num_encoder_blocks", json!([1u64 << 40, 1, 1, 1]), "num_encoder_blocks"),
        ("encoder_block_out_channels", json!([64, 64, 64, 32]), "encoder_block_out_channels"),
    ] {
        let config: TinyConfig = serde_json::from_value(json!({ key: value })).expect("the types are right");
        assert!(config.check().expect_err("another computation").contains(word), "{key}");
    }
}

#[test]
fn tiles_are_those_of_diffusers() -> Result<()> {
    let golden = Golden::open("vae");
    let tile = |side| TileSide::try_from(side).expect("a multiple of 4");
    let vae = Autoencoder::new(&config(&golden), golden.builder())?;
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
        Autoencoder::new(&config(&golden), VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu))?;
    golden.assert_close("pictures", &vae.decode(&golden.input("latents"))?);
    Ok(())
}

#[test]
fn a_shift_is_refused() {
    let config: KlConfig = serde_json::from_str(r#"{"shift_factor": 0.1159}"#).expect("a float is a float");
    assert!(config.check().expect_err("we do not shift").contains("shift_factor"));
}

#[test]
fn half_precision_is_widened_where_it_overflows() {
    let config = VaeConfig::Kl(KlConfig::default());
    assert_eq!(config.compute_dtype(DType::F16), DType::F32);
    assert_eq!(config.compute_dtype(DType::BF16), DType::BF16);
    assert_eq!(VaeConfig::Tiny(TinyConfig::default()).compute_dtype(DType::F16), DType::F16);
}
