//! The tokenizer of ImageReward: `bert-base-uncased` with two more special tokens, and 35 tokens of a text at most.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use crate::base::files;
use crate::model::clip::TokenizerError;

/// Tokens of a text, with the first and the last.
const LENGTH: usize = 35;
const FIRST: &str = "[CLS]";
const LAST: &str = "[SEP]";
const UNKNOWN: &str = "[UNK]";
/// BERT's special tokens, then those that the authors add, in this order.
const SPECIAL: [&str; 7] = ["[PAD]", UNKNOWN, FIRST, LAST, "[MASK]", "[DEC]", "[ENC]"];

/// Either of them has the vocabulary.
pub(in crate::model::scorers) const FILES: [&str; 2] = ["vocab.txt", "tokenizer.json"];

/// Splits texts as `BertTokenizer` of transformers does.
#[derive(Clone, Debug)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    first: u32,
    last: u32,
}

impl BertTokenizer {
    /// Reads `vocab.txt`, one token per line, or the vocabulary of a `tokenizer.json`.
    pub fn open(folder: &Path) -> Result<Self, TokenizerError> {
        let unreadable = |reason: String| TokenizerError::Read { path: folder.to_owned(), reason };
        let Some(words) = vocabulary(folder).map_err(unreadable)? else {
            return Err(TokenizerError::Missing { path: folder.to_owned() });
        };
        let ids: BTreeSet<u32> = words.iter().map(|(_, id)| *id).collect();
        if ids.len() != words.len() || ids.last().is_some_and(|&last| last as usize >= words.len()) {
            return Err(unreadable("its ids are not 0, 1, 2, ...".to_owned()));
        }
        let model = WordPiece::builder()
            .vocab(words.into_iter().collect::<tokenizers::models::bpe::Vocab>())
            .unk_token(UNKNOWN.to_owned())
            .build()
            .map_err(|error| unreadable(error.to_string()))?;
        let mut tokenizer = Tokenizer::new(model);
        let rules = tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)));
        rules.map_err(|error| unreadable(error.to_string()))?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        let special = SPECIAL.map(|token| AddedToken::from(token.to_owned(), true));
        tokenizer.add_special_tokens(special).map_err(|error| unreadable(error.to_string()))?;
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| unreadable(format!("`{token}` is not in the vocabulary")))
        };
        Ok(Self { first: id(FIRST)?, last: id(LAST)?, tokenizer })
    }

    /// Fails, with the reason, if a text encoder with this vocabulary cannot read the ids.
    pub(in crate::model::scorers) fn check_fits(&self, vocabulary: usize) -> Result<(), String> {
        match self.tokenizer.get_vocab_size(true) {
            size if size <= vocabulary => Ok(()),
            size => Err(format!("the tokenizer has {size} tokens, but the text encoder {vocabulary}")),
        }
    }

    /// The ids of a text, without padding.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| TokenizerError::Encode { prompt: text.to_owned(), reason: error.to_string() })?;
        let inner = encoding.get_ids().iter().take(LENGTH - 2).copied();
        Ok([self.first].into_iter().chain(inner).chain([self.last]).collect())
    }
}

/// The tokens with their ids; `None` if the folder has neither file.
fn vocabulary(folder: &Path) -> Result<Option<Vec<(String, u32)>>, String> {
    let [lines, whole] = FILES.map(|name| folder.join(name));
    if lines.is_file() {
        let text = fs::read_to_string(lines).map_err(|error| error.to_string())?;
        let words = text.lines().map(|line| line.trim_end_matches('\r').to_owned());
        return Ok(Some(words.zip(0..).collect()));
    }
    if !whole.is_file() {
        return Ok(None);
    }
    let whole: Value = files::read_json(&whole).map_err(|error| error.to_string())?;
    let words = whole["model"]["vocab"].as_object().ok_or("it has no `model.vocab`")?;
    let id = |(word, id): (&String, &Value)| Some((word.clone(), u32::try_from(id.as_u64()?).ok()?));
    let words: Option<Vec<_>> = words.iter().map(id).collect();
    Ok(Some(words.ok_or("`model.vocab` contains a value that is not a token id")?))
}
