//! Opens a single-file checkpoint: which models it contains, and the diffusers directory that corresponds to it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::places::{SD2_BY_STABILITY, UNET, V_PREDICTION, VAE, ZERO_SNR, text_places};
use super::shapes::Shapes;
use super::{encoders, schedule, unplaced};
use crate::base::files;
use crate::model::clip::{ClipTextModel, TextConfig, text_names, write_for};
use crate::model::error::ModelError;
use crate::model::files::original::read;
use crate::model::files::{Part, Weights, ledger};
use crate::model::network::Prediction;
use crate::model::unet::{self, UNet, UNetConfig};
use crate::model::vae::{Autoencoder, KlConfig, VaeConfig, vae_names};

/// SDXL's refiner has an OpenCLIP tower as its first text encoder, and a second condition.
const REFINER: [&str; 2] =
    ["conditioner.embedders.0.model.token_embedding.weight", "model.diffusion_model.label_emb.0.0.weight"];

/// A checkpoint in the original layout. Opening it reads only the header.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    weights: Weights,
    unet: UNetConfig,
}

/// One model of a checkpoint, with the tensor names of diffusers or transformers.
struct Model {
    part: Part,
    config: Value,
    weights: Weights,
}

/// What a checkpoint contains besides the U-Net.
#[derive(Default)]
pub struct Contents {
    /// The autoencoder.
    pub vae: Option<VaeConfig>,
    /// The text encoders, by the part that each corresponds to.
    pub text: Vec<(Part, TextConfig)>,
    /// A note on tensors that nothing reads.
    pub note: Option<String>,
}

impl Checkpoint {
    /// Opens a safetensors file and determines the shape of its U-Net.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let weights = Weights::open(path)?;
        let refuse = |reason| ModelError::Checkpoint { path: path.to_owned(), reason };
        let shapes = Shapes::new(&weights, UNET);
        if !shapes.has("input_blocks.0.0.weight") {
            return Err(unplaced::unrecognised(&weights, path));
        }
        if REFINER.iter().all(|name| weights.contains(name)) {
            return Err(refuse("it is SDXL's refiner, which is not supported".to_owned()));
        }
        schedule::check(&weights).map_err(refuse)?;
        let (mut unet, shells) = super::unet::unet(&shapes).map_err(refuse)?;
        unet = UNetConfig::parse(&unet.to_json().to_string())
            .map_err(|error| refuse(format!("its tensors do not form a U-Net ({error})")))?;
        let pairs = unet.inventory().original_names();
        let known: HashSet<&str> = pairs.iter().map(|pair| pair.original.as_str()).collect();
        unplaced::check_unet(path, &weights, &known, &shells)?;
        Ok(Self { path: path.to_owned(), weights, unet })
    }

    /// The weights of a U-Net of known shape, with diffusers' names.
    pub fn weights_of(path: &Path, unet: &UNetConfig) -> Result<Weights, ModelError> {
        Ok(read(&Weights::open(path)?, UNET, &unet.inventory().original_names()))
    }

    /// The U-Net's configuration.
    pub fn unet_config(&self) -> &UNetConfig {
        &self.unet
    }

    /// The U-Net's weights, with diffusers' names.
    pub fn unet_weights(&self) -> Weights {
        read(&self.weights, UNET, &self.unet.inventory().original_names())
    }

    /// The U-Net, loaded for inference.
    pub fn unet(&self, dtype: DType, device: &Device) -> Result<UNet, ModelError> {
        UNet::load(self.unet.clone(), &self.unet_weights(), dtype, device)
    }

    /// Writes the corresponding diffusers directory: the parts that the file contains, in their stored types, with the
    /// noise schedule of latent diffusion, changed by marks in the file. `prediction` says what the U-Net predicts. Without it, the file's own mark is
    /// used, else noise; a file of SD 2.x without a mark is refused, because it may be either. A checkpoint contains no tokenizer: if `tokenizer`,
    /// the folder of CLIP's tokenizer, is given, it is written for each text encoder.
    pub fn save(
        &self,
        folder: &Path,
        prediction: Option<Prediction>,
        tokenizer: Option<&Path>,
    ) -> Result<(), ModelError> {
        let refuse = |reason| ModelError::Checkpoint { path: self.path.clone(), reason };
        let prediction = self.prediction(prediction)?;
        let schedule = schedule::config(&self.weights, self.scheduler_class(), prediction).map_err(refuse)?;
        let models = self.models()?;
        for Model { part, config, weights } in &models {
            let folder = folder.join(part.folder());
            write_json(&folder.join("config.json"), config)?;
            let stem =
                if matches!(part, Part::UNet | Part::Vae) { "diffusion_pytorch_model" } else { "model" };
            weights.save(&folder.join(format!("{stem}.safetensors")))?;
            let tokenizer_part = match part {
                Part::TextEncoder => Part::Tokenizer,
                Part::TextEncoder2 => Part::Tokenizer2,
                _ => continue,
            };
            if let Some(tokenizer) = tokenizer {
                // OpenCLIP pads with token 0, CLIP-L with the end token.
                let zero_padded = config["hidden_act"] == "gelu";
                write_for(tokenizer, zero_padded, &folder.with_file_name(tokenizer_part.folder()))?;
            }
        }
        let scheduler = folder.join(Part::Scheduler.folder()).join("scheduler_config.json");
        write_json(&scheduler, &schedule)?;
        write_json(&folder.join("model_index.json"), &self.index(&models, tokenizer.is_some()))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens every model of the file. With `values`, every number is checked to be finite.
    pub fn survey(&self, values: bool) -> Result<Contents, ModelError> {
        let models = self.models()?;
        let mut contents = Contents::default();
        for Model { part, weights, config } in &models {
            if values {
                weights.check_finite()?;
            }
            match part {
                Part::Vae => contents.vae = Some(VaeConfig::Kl(self.parse(config)?)),
                Part::TextEncoder | Part::TextEncoder2 => contents.text.push((*part, self.parse(config)?)),
                _ => {}
            }
        }
        let read = models
            .iter()
            .flat_map(|model| model.weights.stored_names())
            .chain([V_PREDICTION, ZERO_SNR])
            .collect();
        let places = text_places(&self.unet).iter().chain([&SD2_BY_STABILITY]);
        let prefixes: Vec<&str> = places.map(|place| place.prefix).chain([VAE]).collect();
        Ok(Contents { note: unplaced::note(&self.weights, &read, &prefixes), ..contents })
    }

    fn parse<T: DeserializeOwned>(&self, config: &Value) -> Result<T, ModelError> {
        T::deserialize(config).map_err(|error| self.refuse(error.to_string()))
    }

    fn refuse(&self, reason: String) -> ModelError {
        ModelError::Checkpoint { path: self.path.clone(), reason }
    }

    /// The models in the file. Every tensor exists in the shape that the configurations require.
    fn models(&self) -> Result<Vec<Model>, ModelError> {
        let refuse = |reason| self.refuse(reason);
        let weights = self.unet_weights();
        weights.check(self.unet.inventory().tensors())?;
        let mut models = vec![Model { part: Part::UNet, config: self.unet.to_json(), weights }];
        if self.names_at(VAE) {
            let shapes = Shapes::new(&self.weights, VAE);
            let config = encoders::vae(&shapes, self.is_sdxl()).map_err(refuse)?;
            let shape: KlConfig = self.parse(&config)?;
            shape.check().map_err(refuse)?;
            let weights = read(&self.weights, VAE, &vae_names(&shape, false));
            let shape = VaeConfig::Kl(shape);
            ledger::check(&weights, |vb| Autoencoder::new(&shape, vb))?;
            models.push(Model { part: Part::Vae, config, weights });
        }
        let places = text_places(&self.unet).iter().chain(self.is_sd2().then_some(&SD2_BY_STABILITY));
        for place in places.filter(|place| self.names_at(place.prefix)) {
            let shapes = Shapes::new(&self.weights, place.prefix);
            let (config, layers) = encoders::text(&shapes, place).map_err(refuse)?;
            let shape: TextConfig = self.parse(&config)?;
            let pairs = text_names(place.layout, layers, true, place.projection);
            let weights = read(&self.weights, place.prefix, &pairs);
            ledger::check(&weights, |vb| ClipTextModel::new(&shape, vb))?;
            models.push(Model { part: place.part, config, weights });
        }
        Ok(models)
    }

    fn names_at(&self, prefix: &str) -> bool {
        self.weights.names().any(|name| name.starts_with(prefix))
    }

    fn is_sd2(&self) -> bool {
        !self.is_sdxl() && self.unet.use_linear_projection
    }

    fn is_sdxl(&self) -> bool {
        self.unet.text_time.is_some()
    }

    /// What the U-Net predicts: as `given`, else as the file says.
    pub fn prediction(&self, given: Option<Prediction>) -> Result<Prediction, ModelError> {
        match given.or(schedule::stated(&self.weights)) {
            Some(known) => Ok(known),
            None if self.is_sd2() => Err(ModelError::NoPrediction { path: self.path.clone() }),
            None => Ok(Prediction::Epsilon),
        }
    }

    fn scheduler_class(&self) -> &'static str {
        schedule::class(&self.weights, self.is_sdxl(), self.is_sd2())
    }

    fn index(&self, models: &[Model], tokenizer: bool) -> Value {
        let has = |part: Part| models.iter().any(|model| model.part == part);
        let class = |present: bool, library: &str, class: &str| match present {
            true => json!([library, class]),
            false => json!([null, null]),
        };
        let mut index = json!({
            "_class_name": if self.is_sdxl() { "StableDiffusionXLPipeline" } else { "StableDiffusionPipeline" },
            "scheduler": ["diffusers", self.scheduler_class()],
            "unet": ["diffusers", unet::CLASS],
            "vae": class(has(Part::Vae), "diffusers", "AutoencoderKL"),
            "text_encoder": class(has(Part::TextEncoder), "transformers", "CLIPTextModel"),
            "tokenizer": class(has(Part::TextEncoder) && tokenizer, "transformers", "CLIPTokenizer"),
        });
        if self.is_sdxl() {
            index["text_encoder_2"] =
                class(has(Part::TextEncoder2), "transformers", "CLIPTextModelWithProjection");
            let named = has(Part::TextEncoder2) && tokenizer;
            index["tokenizer_2"] = class(named, "transformers", "CLIPTokenizer");
            index["force_zeros_for_empty_prompt"] = json!(true);
        } else {
            index["safety_checker"] = json!([null, null]);
            index["feature_extractor"] = json!([null, null]);
            index["requires_safety_checker"] = json!(false);
        }
        index
    }
}

fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    files::write_json(path, value).map_err(|source| ModelError::Write { path: path.to_owned(), source })
}
