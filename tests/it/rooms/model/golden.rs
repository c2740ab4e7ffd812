//! What `tests/golden/make.py` wrote, and how close we must come.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarBuilder;
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::unet::{UNet, UNetConfig};
use safetensors::SafeTensors;

/// Relative L2 to torch. Both sides compute in f32 and sum in another order: a few hundred additions of
/// rounding 6e-8 through some fifty layers give about 1e-6; any mistake in the arithmetic gives 1e-2 or more.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// All U-Nets there are.
pub(crate) const UNETS: [&str; 5] =
    ["unet_sd15", "unet_sdxl", "unet_one_resnet", "unet_no_mid", "unet_nested"];

/// One golden file.
pub(crate) struct Golden {
    pub(crate) config: String,
    tensors: HashMap<String, Tensor>,
}

pub(crate) fn folder() -> PathBuf {
    // At run time: a test that was built here may run from a copy of the repository elsewhere.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
    root.join("tests/golden")
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).expect("the file is in git");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("make.py writes whole files");
        let config = metadata.metadata().as_ref().expect("make.py writes the config")["config"].clone();
        let tensors =
            candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).expect("types that candle knows");
        Self { config, tensors }
    }

    pub(crate) fn input(&self, name: &str) -> Tensor {
        self.tensors[&format!("inputs.{name}")].clone()
    }

    pub(crate) fn outputs(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("outputs.")?, tensor)))
    }

    /// The weights, by their names on disk.
    pub(crate) fn weights(&self) -> HashMap<String, Tensor> {
        let named = |(name, tensor): (&String, &Tensor)| {
            Some((name.strip_prefix("weights.")?.to_owned(), tensor.clone()))
        };
        self.tensors.iter().filter_map(named).collect()
    }

    pub(crate) fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_tensors(self.weights(), DType::F32, &Device::Cpu)
    }

    /// Writes the model as a folder of diffusers or transformers.
    pub(crate) fn write_folder(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a temporary folder can be written");
        std::fs::write(folder.join("config.json"), &self.config).expect("a temporary folder can be written");
        candle_core::safetensors::save(&self.weights(), folder.join("model.safetensors")).expect("as above");
    }

    pub(crate) fn unet(&self) -> UNet {
        UNet::new(self.unet_config(), self.builder()).expect("diffusers wrote every tensor")
    }

    /// The U-Net over variables.
    pub(crate) fn trainable_unet(&self) -> Result<(UNet, HashMap<String, Var>)> {
        let variables = self
            .weights()
            .into_iter()
            .map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor)?)))
            .collect::<Result<HashMap<_, _>>>()?;
        let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        Ok((UNet::new(self.unet_config(), vb)?, variables))
    }

    pub(crate) fn unet_config(&self) -> UNetConfig {
        UNetConfig::parse(&self.config).expect("diffusers wrote it")
    }

    pub(crate) fn conditioning(&self) -> Conditioning {
        let optional = |name: &str| self.tensors.get(&format!("inputs.{name}")).cloned();
        Conditioning {
            encoder_hidden_states: self.input("encoder_hidden_states"),
            text_embeds: optional("text_embeds"),
            time_ids: optional("time_ids"),
        }
    }

    /// The prediction for the golden input.
    pub(crate) fn predict(&self, unet: &UNet) -> Tensor {
        unet.forward(&self.input("sample"), &self.input("timestep"), &self.conditioning())
            .expect("shapes fit")
    }

    pub(crate) fn assert_close(&self, name: &str, found: &Tensor) {
        let needed = &self.tensors[&format!("outputs.{name}")];
        assert_eq!(found.dims(), needed.dims(), "shape of {name}");
        let distance = relative_l2(found, needed);
        assert!(distance <= TOLERANCE, "{name} is {distance:.2e} away from the golden numbers");
    }
}

pub(crate) fn relative_l2(found: &Tensor, needed: &Tensor) -> f64 {
    let norm = |x: &Tensor| -> Result<f64> { x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>() };
    let square = |x: Result<Tensor>| x.and_then(|x| norm(&x)).expect("equal shapes subtract");
    (square(found - needed) / square(Ok(needed.clone()))).sqrt()
}

pub(crate) fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = || -> Result<f32> { (a - b)?.abs()?.max_all()?.to_scalar() };
    difference().expect("equal shapes subtract")
}
