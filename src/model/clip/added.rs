//! Tokens added to CLIP's vocabulary, such as the words of a textual inversion. transformers has written them in three
//! places: `added_tokens.json` with ids only, `added_tokens_decoder` in `tokenizer_config.json`, and `added_tokens` in
//! `tokenizer.json`. The rules are those of transformers 5.23: the second replaces the first, the third is merged in.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

/// One entry of a list of added tokens.
#[derive(Deserialize)]
struct Entry {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// The files of a tokenizer's folder; absent ones are null.
pub(super) struct Files<'a> {
    /// `added_tokens.json`
    pub(super) added: &'a Value,
    /// `tokenizer_config.json`
    pub(super) config: &'a Value,
    /// `special_tokens_map.json`
    pub(super) special: &'a Value,
    /// `tokenizer.json`
    pub(super) whole: &'a Value,
}

/// Adds the tokens to `tokenizer`: those with ids in the order of their ids, then `named`, the tokens with a role, and
/// other special tokens.
pub(super) fn add(tokenizer: &mut Tokenizer, files: &Files<'_>, named: &[&str]) -> Result<(), String> {
    let declared = declared(files, named)?;
    for (&id, token) in &declared {
        add_one(tokenizer, token.clone())?;
        let given = tokenizer.token_to_id(&token.content);
        if given != Some(id) {
            let given = given.map_or("none".to_owned(), |given| given.to_string());
            return Err(format!(
                "the added token `{}` has the id {id}, but after the tokens before it it gets {given}",
                token.content
            ));
        }
    }
    let list =
        |key: &str| [&files.special[key], &files.config[key]].into_iter().flat_map(texts).collect::<Vec<_>>();
    let others = ["additional_special_tokens", "extra_special_tokens"].into_iter().flat_map(list);
    for text in named.iter().map(|&text| text.to_owned()).chain(others) {
        if !declared.values().any(|token| token.content == text) {
            add_one(tokenizer, AddedToken::from(text, true))?;
        }
    }
    Ok(())
}

fn add_one(tokenizer: &mut Tokenizer, token: AddedToken) -> Result<(), String> {
    tokenizer.add_tokens([token]).map(drop).map_err(|error| error.to_string())
}

/// The tokens that a file gives an id.
fn declared(files: &Files<'_>, named: &[&str]) -> Result<BTreeMap<u32, AddedToken>, String> {
    let special = |text: &str| named.contains(&text);
    let mut tokens = BTreeMap::new();
    match &files.config["added_tokens_decoder"] {
        Value::Object(entries) => {
            for (id, entry) in entries {
                let id = id.parse().map_err(|_| format!("`added_tokens_decoder` has the id `{id}`"))?;
                tokens.insert(id, token(entry, &special)?);
            }
        }
        _ => {
            for (text, id) in files.added.as_object().into_iter().flatten() {
                let id = id_of(id)?;
                let special = special(text);
                tokens.insert(id, AddedToken::from(text.clone(), special).normalized(!special));
            }
        }
    }
    for entry in files.whole["added_tokens"].as_array().into_iter().flatten() {
        tokens.insert(id_of(&entry["id"])?, token(entry, &special)?);
    }
    Ok(tokens)
}

fn id_of(value: &Value) -> Result<u32, String> {
    let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| format!("an added token has the id {value}"))
}

fn token(entry: &Value, special: &impl Fn(&str) -> bool) -> Result<AddedToken, String> {
    let entry =
        Entry::deserialize(entry).map_err(|error| format!("an added token cannot be read: {error}"))?;
    let Entry { content, single_word, lstrip, rstrip, normalized, special: declared } = entry;
    let is_special = declared || special(&content);
    Ok(AddedToken::from(content, is_special)
        .single_word(single_word)
        .lstrip(lstrip)
        .rstrip(rstrip)
        .normalized(normalized.unwrap_or(!declared)))
}

/// The texts of a list of tokens, each of which is a text or an object that contains it.
fn texts(list: &Value) -> Vec<String> {
    let text = |entry: &Value| entry.as_str().or_else(|| entry["content"].as_str()).map(str::to_owned);
    list.as_array().into_iter().flatten().filter_map(text).collect()
}
