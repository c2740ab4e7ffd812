//! Models of full size against diffusers and transformers. `tests/parity/full.sh` makes them one by one and runs this on each.

use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor};
use laptop_diff::backend::memory;
use laptop_diff::base::units;
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::{ModelDirectory, Part};

const CPU: Device = Device::Cpu;

/// Relative L2. Rounding in f32 through a hundred layers gives about 1e-5; any mistake in the arithmetic gives 1e-2 or more.
const TOLERANCE: f64 = 1e-3;

#[test]
#[ignore = "needs models made by tests/parity/full.sh"]
#[expect(clippy::print_stdout, reason = "the script's output is this")]
fn a_model_of_full_size_computes_what_torch_does() -> miette::Result<()> {
    let folder = PathBuf::from(std::env::var_os("LAPTOP_DIFF_PARITY").expect("full.sh names a folder"));
    let tensors = candle_core::safetensors::load(folder.join("parity.safetensors"), &CPU);
    let tensors = tensors.expect("make.py writes whole files");
    let input = |name: &str| tensors[&format!("inputs.{name}")].clone();
    let directory = ModelDirectory::open(&folder)?;

    let outputs = if directory.has(Part::UNet) {
        let unet = directory.unet(DType::F32, &CPU)?;
        let conditioning = Conditioning {
            encoder_hidden_states: input("encoder_hidden_states"),
            text_embeds: tensors.get("inputs.text_embeds").cloned(),
            time_ids: tensors.get("inputs.time_ids").cloned(),
        };
        vec![("sample", unet.forward(&input("sample"), &input("timestep"), &conditioning))]
    } else if directory.has(Part::Vae) {
        let vae = directory.vae(DType::F32, &CPU)?;
        vec![("latents", vae.encode(&input("pictures"))), ("pictures", vae.decode(&input("latents")))]
    } else {
        let encoder = directory.text_encoder(Part::TextEncoder, DType::F32, &CPU)?;
        let output = input("ids").to_dtype(DType::U32).and_then(|ids| encoder.forward(&ids));
        let output = output.expect("a pass");
        let pooled = match output.text_embeds {
            Some(text_embeds) => ("text_embeds", text_embeds),
            None => ("pooled", output.pooled),
        };
        let (last, penultimate) = (output.last_hidden_state, output.penultimate_hidden_state);
        vec![("last_hidden_state", Ok(last)), ("penultimate", Ok(penultimate)), (pooled.0, Ok(pooled.1))]
    };
    for (name, found) in outputs {
        let needed = &tensors[&format!("outputs.{name}")];
        let distance = found.and_then(|found| relative_l2(&found, needed)).expect("a pass and equal shapes");
        println!("{name} {:?}: relative error {distance:.1e}", needed.dims());
        assert!(distance <= TOLERANCE, "{name} is {distance:.1e} away from torch");
    }
    println!("peak memory {}", units::bytes(memory::peak_bytes().unwrap_or(0)));
    Ok(())
}

fn relative_l2(found: &Tensor, needed: &Tensor) -> Result<f64> {
    let square = |x: Tensor| x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((square((found - needed)?)? / square(needed.clone())?).sqrt())
}
