//! CLIP's tokenizer: byte-pair encoding of lowercase words, padded to the full context.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use miette::Diagnostic;
use serde_json::{Value, json};
use thiserror::Error;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::added;
use crate::base::files;

/// Contractions, words, single digits and runs of other characters: the word pattern of OpenAI's CLIP.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The names of CLIP's tokenizer in transformers, and of a tokenizer that is described by its `tokenizer.json` alone.
const CLASSES: &[&str] =
    &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];
/// Length of a tokenized prompt, begin and end tokens included, if the folder does not specify it.
const CONTEXT: usize = 77;

/// The files of a tokenizer's folder that are read.
const FILES: [&str; 6] = [
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// A tokenizer that cannot be read, or a prompt that cannot be encoded.
#[derive(Debug, Error, Diagnostic)]
pub enum TokenizerError {
    /// The folder has no vocabulary.
    #[error("{} contains no tokenizer", path.display())]
    #[diagnostic(code(tokenizer::missing), help("expected vocab.json with merges.txt, or tokenizer.json"))]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// A vocabulary that cannot be parsed.
    #[error("cannot read the tokenizer in {}: {reason}", path.display())]
    #[diagnostic(code(tokenizer::read), help("copy the tokenizer's folder from the model again"))]
    Read {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt that cannot be encoded.
    #[error("cannot encode the prompt `{prompt}`: {reason}")]
    #[diagnostic(
        code(tokenizer::encode),
        help("the vocabulary lacks some of its bytes; check that it is CLIP's")
    )]
    Encode {
        /// The prompt.
        prompt: String,
        /// Why it failed.
        reason: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Prompts as token ids.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// [prompts, context] u32, on the CPU.
    pub ids: Tensor,
    /// How many tokens of a prompt fit, without begin and end tokens.
    pub room: usize,
    /// The prompts that were too long: their index, and how many tokens were cut.
    pub truncated: Vec<(usize, usize)>,
}

/// CLIP's tokenizer.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    pad: u32,
    context: usize,
}

impl ClipTokenizer {
    /// Reads a tokenizer folder: `vocab.json` and `merges.txt`, or `tokenizer.json`; `special_tokens_map.json` and
    /// `tokenizer_config.json` give padding and length.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Read { path: path.to_owned(), reason };
        let (vocab, merges) = (path.join("vocab.json"), path.join("merges.txt"));
        let optional = |name: &str| optional_json(&path.join(name)).map_err(unreadable);
        let (config, special) = (optional("tokenizer_config.json")?, optional("special_tokens_map.json")?);
        let (added, whole) = (optional("added_tokens.json")?, optional("tokenizer.json")?);
        if let Some(class) = config["tokenizer_class"].as_str().filter(|class| !CLASSES.contains(class)) {
            return Err(unreadable(format!("it is a {class}; only CLIP's tokenizer is supported")));
        }
        // An entry is the token itself, or an object that contains it.
        let token = |key: &str, default: &str| {
            let entry = [&special, &config].into_iter().map(|file| &file[key]).find(|entry| !entry.is_null());
            let text = entry.and_then(|entry| entry.as_str().or_else(|| entry["content"].as_str()));
            text.unwrap_or(default).to_owned()
        };
        let (begin, end) = (token("bos_token", "<|startoftext|>"), token("eos_token", "<|endoftext|>"));
        let pad = token("pad_token", &end);
        let encoding = if vocab.is_file() && merges.is_file() {
            for file in [&vocab, &merges] {
                files::refuse_pointer(file).map_err(|error| unreadable(error.to_string()))?;
            }
            from_pair(&vocab, &merges).map_err(unreadable)?
        } else if !whole.is_null() {
            from_json(&whole).map_err(unreadable)?
        } else {
            return Err(TokenizerError::Missing { path: path.to_owned() });
        };
        let mut tokenizer = with_rules(encoding, &token("unk_token", "<|endoftext|>"))
            .map_err(|error| unreadable(error.to_string()))?;
        let files = added::Files { added: &added, config: &config, special: &special, whole: &whole };
        added::add(&mut tokenizer, &files, &[&begin, &end, &pad]).map_err(unreadable)?;
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| unreadable(format!("`{token}` is not in the vocabulary")))
        };
        let (begin, end, pad) = (id(&begin)?, id(&end)?, id(&pad)?);
        let context = match config["model_max_length"].as_u64() {
            // transformers writes a huge number for "unknown".
            Some(length @ 3..=4096) => length as usize,
            _ => CONTEXT,
        };
        Ok(Self { tokenizer, begin, end, pad, context })
    }

    /// Whether a text encoder with this context and vocabulary can read the ids; otherwise why not.
    pub fn check_fits(&self, context: usize, vocabulary: usize) -> Result<(), String> {
        if self.context > context {
            return Err(format!(
                "the tokenizer's `model_max_length` is {}, but the text encoder reads at most {context} tokens",
                self.context
            ));
        }
        let largest = self.tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= vocabulary {
            return Err(format!(
                "the tokenizer has ids up to {largest}, but the text encoder's vocabulary has {vocabulary} tokens"
            ));
        }
        Ok(())
    }

    /// The prompts' ids: begin token, at most `context - 2` tokens, end token, padding.
    pub fn encode(&self, prompts: &[&str]) -> Result<Tokens, TokenizerError> {
        let room = self.context - 2;
        let mut truncated = Vec::new();
        let mut ids = Vec::with_capacity(prompts.len() * self.context);
        for (index, &prompt) in prompts.iter().enumerate() {
            let encoding = self.tokenizer.encode_fast(prompt, false).map_err(|error| {
                TokenizerError::Encode { prompt: prompt.to_owned(), reason: error.to_string() }
            })?;
            let tokens = encoding.get_ids();
            let kept = tokens.len().min(room);
            if kept < tokens.len() {
                truncated.push((index, tokens.len() - kept));
            }
            ids.push(self.begin);
            ids.extend(&tokens[..kept]);
            ids.push(self.end);
            ids.resize((index + 1) * self.context, self.pad);
        }
        let ids = Tensor::from_vec(ids, (prompts.len(), self.context), &Device::Cpu)?;
        Ok(Tokens { ids, room, truncated })
    }
}

/// The names of the files in `folder` that [`ClipTokenizer::open`] and [`write_for`] read.
pub fn files(folder: &Path) -> Vec<String> {
    FILES.into_iter().filter(|name| folder.join(name).is_file()).map(str::to_owned).collect()
}

/// Copies CLIP's tokenizer from the folder `source` into the folder `target` for one text encoder. All text encoders of
/// Stable Diffusion share the vocabulary; OpenCLIP pads with token 0 (`zero_padded`), CLIP with its end token.
pub fn write_for(source: &Path, zero_padded: bool, target: &Path) -> Result<(), TokenizerError> {
    let failed =
        |error: std::io::Error| TokenizerError::Read { path: source.to_owned(), reason: error.to_string() };
    let original = ClipTokenizer::open(source)?;
    let token = |id| original.tokenizer.id_to_token(id).unwrap_or_default();
    let end = token(original.end);
    let pad = if zero_padded { token(0) } else { end.clone() };
    let special = json!({
        "bos_token": token(original.begin), "eos_token": end, "pad_token": pad, "unk_token": end,
    });
    let mut config = special.clone();
    config["tokenizer_class"] = json!("CLIPTokenizer");
    config["model_max_length"] = json!(original.context);
    config["do_lower_case"] = json!(true);
    let added =
        &optional_json(&source.join("tokenizer_config.json")).unwrap_or_default()["added_tokens_decoder"];
    if added.is_object() {
        config["added_tokens_decoder"] = added.clone();
    }
    for name in ["vocab.json", "merges.txt", "tokenizer.json", "added_tokens.json"] {
        if source.join(name).is_file() {
            let bytes = fs::read(source.join(name)).map_err(failed)?;
            files::write_atomic(&target.join(name), &bytes).map_err(failed)?;
        }
    }
    files::write_json(&target.join("special_tokens_map.json"), &special).map_err(failed)?;
    files::write_json(&target.join("tokenizer_config.json"), &config).map_err(failed)
}

/// The encoding of `vocab.json` and `merges.txt`. The library's own reader takes only paths in UTF-8.
fn from_pair(vocab: &Path, merges: &Path) -> Result<BpeBuilder, String> {
    let text = fs::read_to_string(merges).map_err(|error| error.to_string())?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("#version")).collect();
    from_json(&json!({ "model": { "vocab": optional_json(vocab)?, "merges": lines } }))
}

/// Reads only the byte-pair encoding of a `tokenizer.json`. The rest is not needed, because CLIP's rules are known, and
/// not wanted: a length limit would truncate before we can report it, padding could fill the memory, and the crate
/// trusts its numbers.
fn from_json(whole: &Value) -> Result<BpeBuilder, String> {
    let model = &whole["model"];
    let vocabulary = model["vocab"].as_object().ok_or("it has no `model.vocab`")?;
    let id = |(token, id): (&String, &Value)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?));
    let vocabulary: Option<Vocab> = vocabulary.iter().map(id).collect();
    // "a b" in older files, ["a", "b"] in newer ones.
    let merge = |merge: &Value| match merge {
        Value::String(pair) => pair.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        pair => Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())),
    };
    let merges = model["merges"].as_array().ok_or("it has no `model.merges`")?;
    let merges: Option<Merges> = merges.iter().map(merge).collect();
    let vocabulary = vocabulary.ok_or("`model.vocab` contains a value that is not a token id")?;
    Ok(BPE::builder().vocab_and_merges(
        vocabulary,
        merges.ok_or("`model.merges` contains a value that is not a pair of tokens")?,
    ))
}

/// Applies CLIP's rules around the folder's byte-pair encoding.
fn with_rules(encoding: BpeBuilder, unknown: &str) -> tokenizers::Result<Tokenizer> {
    let model = encoding.unk_token(unknown.to_owned()).end_of_word_suffix("</w>".to_owned()).build()?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?.into(),
        Lowercase.into(),
    ])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])));
    Ok(tokenizer)
}

fn optional_json(path: &Path) -> Result<Value, String> {
    if !path.is_file() {
        return Ok(Value::Null);
    }
    files::read_json(path).map_err(|error| error.to_string())
}
