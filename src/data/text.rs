//! Encodes prompts into the conditioning of a U-Net, with the tokenizers and text encoders of a model directory.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::DataError;
use super::finite::check_result;
use crate::base::{Interrupt, Progress, files};
use crate::model::clip::ClipTextModel;
use crate::model::clip::{ClipTokenizer, Tokens};
use crate::model::network::Conditioning;
use crate::model::{ModelDirectory, Part};

/// Prompts per pass through a text encoder; more would only use more memory.
const BATCH: usize = 16;

/// Characters of a prompt that a note shows.
const SHOWN: usize = 40;

/// The text side of a model.
pub struct Encoder {
    towers: Vec<Tower>,
    /// SDXL: height and width of the pictures, which are an input of its U-Net.
    sizes: Option<(usize, usize)>,
    /// SDXL: whether an empty prompt becomes zeros instead of the encoding of "".
    zeros_for_empty: bool,
    device: Device,
}

struct Tower {
    part: Part,
    tokenizer: ClipTokenizer,
    model: ClipTextModel,
}

/// The output of one text encoder for a batch of prompts.
struct Encoded {
    states: Tensor,
    text_embeds: Option<Tensor>,
}

impl Encoder {
    /// Loads the text encoder, or both of SDXL's.
    pub fn open(directory: &ModelDirectory, dtype: DType, device: &Device) -> Result<Self, DataError> {
        let tower = |tokenizer, encoder| -> Result<Tower, DataError> {
            Ok(Tower {
                part: encoder,
                tokenizer: directory.tokenizer(tokenizer)?,
                model: directory.text_encoder(encoder, dtype, device)?,
            })
        };
        let mut towers = vec![tower(Part::Tokenizer, Part::TextEncoder)?];
        if directory.has(Part::TextEncoder2) {
            towers.push(tower(Part::Tokenizer2, Part::TextEncoder2)?);
        }
        let two = towers.len() == 2;
        Ok(Self {
            towers,
            sizes: if two { Some(picture_size(directory)?) } else { None },
            zeros_for_empty: two && zeros_for_empty(directory.path())?,
            device: device.clone(),
        })
    }

    /// The same for pictures of a height and width other than the default: SDXL's U-Net takes them as input.
    pub fn sized(self, pictures: (usize, usize)) -> Self {
        Self { sizes: self.sizes.map(|_| pictures), ..self }
    }

    /// The device of its tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The conditioning of each prompt. Each different prompt is encoded once.
    pub fn encode(&self, prompts: &[impl AsRef<str>]) -> Result<Conditioning, DataError> {
        self.encode_watched(prompts, &mut |_, _| Ok(()))
    }

    /// The same for many prompts: tells the progress and stops on request.
    pub fn encode_all(
        &self,
        prompts: &[impl AsRef<str>],
        progress: &dyn Progress,
        interrupt: &Interrupt,
    ) -> Result<Conditioning, DataError> {
        self.encode_watched(prompts, &mut |done, total| {
            interrupt.check()?;
            if done == 0 {
                progress.length(total as u64, "captions");
            }
            progress.position(done as u64);
            Ok(())
        })
    }

    /// The same; before each batch, `watch` hears how many prompts of how many different ones are encoded.
    pub(super) fn encode_watched(
        &self,
        prompts: &[impl AsRef<str>],
        watch: &mut dyn FnMut(usize, usize) -> Result<(), DataError>,
    ) -> Result<Conditioning, DataError> {
        let mut different: Vec<&str> = Vec::new();
        let mut place_of = HashMap::new();
        let places: Vec<u32> = prompts
            .iter()
            .map(|prompt| {
                *place_of.entry(prompt.as_ref()).or_insert_with(|| {
                    different.push(prompt.as_ref());
                    (different.len() - 1) as u32
                })
            })
            .collect();
        let mut parts: Vec<Encoded> = Vec::new();
        for (index, batch) in different.chunks(BATCH).enumerate() {
            watch(index * BATCH, different.len())?;
            parts.push(self.encode_batch(batch)?);
        }
        let places = Tensor::new(places, &self.device)?;
        let states: Vec<&Tensor> = parts.iter().map(|part| &part.states).collect();
        let text_embeds: Option<Vec<&Tensor>> = parts.iter().map(|part| part.text_embeds.as_ref()).collect();
        let gather = |tensors: Vec<&Tensor>| Tensor::cat(&tensors, 0)?.index_select(&places, 0);
        Ok(Conditioning {
            encoder_hidden_states: gather(states)?,
            text_embeds: text_embeds.map(gather).transpose()?,
            time_ids: self.time_ids(prompts.len())?,
        })
    }

    /// Notes prompts that are longer than the text encoder reads: the first of them, and how many others there are.
    pub fn note_truncated<'p>(
        &self,
        prompts: impl IntoIterator<Item = &'p str>,
        progress: &dyn Progress,
    ) -> Result<(), DataError> {
        let mut seen = HashSet::new();
        let prompts: Vec<&str> = prompts.into_iter().filter(|prompt| seen.insert(*prompt)).collect();
        // SDXL's two tokenizers differ only in their padding.
        let Tokens { truncated, room, .. } = self.towers[0].tokenizer.encode(&prompts)?;
        if let Some((&(first, cut), others)) = truncated.split_first() {
            let start: String = prompts[first].chars().take(SHOWN).collect();
            let others = match others.len() {
                0 => String::new(),
                count => format!(", and {count} more"),
            };
            progress.note(&format!("cut to {room} tokens: `{start}...` of {}{others}", room + cut));
        }
        Ok(())
    }

    /// The conditioning of the negative prompt, `count` times. SDXL's pipelines may replace that of an empty prompt
    /// by zeros.
    pub fn unconditional(&self, negative_prompt: &str, count: usize) -> Result<Conditioning, DataError> {
        let encoded = self.encode(&vec![negative_prompt; count])?;
        if !negative_prompt.is_empty() || !self.zeros_for_empty {
            return Ok(encoded);
        }
        Ok(Conditioning { time_ids: encoded.time_ids.clone(), ..encoded.map(Tensor::zeros_like)? })
    }

    /// SD 1.x and 2.x use the last hidden states. SDXL concatenates the penultimate states of both towers, and also
    /// uses the projected text of the second.
    fn encode_batch(&self, prompts: &[&str]) -> Result<Encoded, DataError> {
        let mut outputs = Vec::with_capacity(self.towers.len());
        for tower in &self.towers {
            let ids = tower.tokenizer.encode(prompts)?.ids;
            let output = tower.model.forward(&ids)?;
            let used = match self.towers.len() {
                1 => (&output.last_hidden_state, None),
                _ => (&output.penultimate_hidden_state, output.text_embeds.as_ref()),
            };
            for result in [used.0].into_iter().chain(used.1) {
                check_result(tower.part, result, |row| format!("the prompt `{}`", prompts[row]))?;
            }
            outputs.push(output);
        }
        match outputs.as_slice() {
            [only] => Ok(Encoded { states: only.last_hidden_state.clone(), text_embeds: None }),
            several => {
                let states: Vec<_> = several.iter().map(|output| &output.penultimate_hidden_state).collect();
                let last = several.last().and_then(|output| output.text_embeds.clone());
                Ok(Encoded { states: Tensor::cat(&states, 2)?, text_embeds: last })
            }
        }
    }

    /// Original size, no crop, target size: SDXL's defaults in diffusers.
    fn time_ids(&self, count: usize) -> candle_core::Result<Option<Tensor>> {
        let Some((height, width)) = self.sizes else { return Ok(None) };
        let (height, width) = (height as f32, width as f32);
        let row = Tensor::new(&[[height, width, 0.0, 0.0, height, width]], &self.device)?;
        row.repeat((count, 1)).map(Some)
    }
}

/// Height and width of the pictures a model draws by default: its latents' size times the autoencoder's factor.
fn picture_size(directory: &ModelDirectory) -> Result<(usize, usize), DataError> {
    let (height, width) = directory.unet_config()?.sample_size;
    let factor = directory.vae_config()?.downscale();
    Ok((height * factor, width * factor))
}

/// `force_zeros_for_empty_prompt` of SDXL's pipeline; true if the index does not give it.
fn zeros_for_empty(directory: &Path) -> Result<bool, DataError> {
    let path = directory.join("model_index.json");
    let index: serde_json::Value = match files::read_json(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        read => read.map_err(DataError::file(&path))?,
    };
    Ok(index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true))
}
