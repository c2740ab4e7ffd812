//! Which files of a folder, or of a repository of the hub, are the model: what its parts are read from, each with
//! its weights in one precision. Other precisions, pickles, other frameworks' files, whole checkpoints beside the
//! parts, pictures and a README are not.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use serde_json::{Map, Value};

use super::names::{Role, WeightFile, one_precision};
use super::part::Part;
use crate::model::error::ModelError;

/// What diffusers calls a pipeline's list of parts.
pub const INDEX: &str = "model_index.json";

/// What configurations, vocabularies and the code of a pruned U-Net end in.
const ENDINGS: [&str; 4] = ["json", "txt", "model", "py"];

/// One file of a model, by its place below the model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Where it lies.
    pub from: String,
    /// Where it is looked for: the name of full precision.
    pub to: String,
}

/// The files at the top of a folder and in the folders there, as `unet/config.json`.
pub fn list(folder: &Path) -> io::Result<Vec<String>> {
    let names = |folder: &Path| -> io::Result<Vec<String>> {
        // A name that is no text is no model's.
        let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
        fs::read_dir(folder)?.filter_map(|entry| name(entry).transpose()).collect()
    };
    let mut paths = Vec::new();
    for name in names(folder)? {
        let place = folder.join(&name);
        match place.is_dir() {
            true => paths.extend(names(&place)?.into_iter().map(|inner| format!("{name}/{inner}"))),
            false => paths.push(name),
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files of the model among `paths`, sorted. `index` is what [`INDEX`] holds, where there is one. Of each part's
/// weights those of `variant` are taken; of a part that has none of it, as diffusers does, those without a variant.
pub fn choose(
    paths: &[String],
    index: Option<&Map<String, Value>>,
    variant: Option<&str>,
) -> Result<Vec<ModelFile>, ModelError> {
    let (mut files, mut variants) = (Vec::new(), BTreeSet::new());
    for part in parts(paths, index) {
        let inside = |path: &'_ String| -> Option<String> {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            (folder == part && !name.starts_with('.')).then(|| name.to_owned())
        };
        let names: Vec<String> = paths.iter().filter_map(inside).collect();
        let weights: Vec<WeightFile<'_>> = names.iter().filter_map(|name| WeightFile::parse(name)).collect();
        variants.extend(weights.iter().filter_map(|file| file.variant.map(str::to_owned)));
        let at = |name: &str| if part.is_empty() { name.to_owned() } else { format!("{part}/{name}") };
        let others = names.iter().filter(|name| is_read(name)).map(|name| (name.as_str(), name.clone()));
        let chosen = one_precision(&weights, variant).into_iter().map(|file| (file.name, file.plain_name()));
        files.extend(others.chain(chosen).map(|(from, to)| ModelFile { from: at(from), to: at(&to) }));
    }
    if index.is_some() && !files.iter().any(|file| file.from == INDEX) {
        files.push(ModelFile { from: INDEX.to_owned(), to: INDEX.to_owned() });
    }
    files.sort_by(|one, two| one.from.cmp(&two.from));
    match variant {
        Some(variant) if !variants.contains(variant) => {
            Err(ModelError::NoVariant { variant: variant.to_owned(), found: variants.into_iter().collect() })
        }
        _ => Ok(files),
    }
}

/// The file that a part's weights are opened by: the whole, or the index of shards. `part` is empty for a bare model.
pub fn weights_of<'a>(files: &'a [ModelFile], part: &str) -> Option<&'a ModelFile> {
    files.iter().find(|file| {
        let (folder, name) = file.from.rsplit_once('/').unwrap_or(("", &file.from));
        folder == part && WeightFile::parse(name).is_some_and(|weights| weights.role != Role::Shard)
    })
}

/// The folders of a pipeline's parts, or the top of a bare model. Only plain names: an index may come from anyone. The
/// U-Net is a part even of an index that does not name it, as one put beside the others by hand.
fn parts(paths: &[String], index: Option<&Map<String, Value>>) -> BTreeSet<String> {
    if !paths.iter().any(|path| path.starts_with("unet/")) {
        return BTreeSet::from([String::new()]);
    }
    let named: Vec<&str> = match index {
        Some(index) => index
            .keys()
            .map(String::as_str)
            .filter(|part| !part.starts_with(['_', '.']) && !part.contains('/'))
            .chain([Part::UNet.folder()])
            .collect(),
        None => Part::ALL.map(Part::folder).into(),
    };
    named.into_iter().map(str::to_owned).collect()
}

fn is_read(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    ENDINGS.contains(&ending) && !name.contains(".index.") && WeightFile::parse(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen from a pipeline's files, as `from > to` where the names differ.
    fn chosen(paths: &[&str], variant: Option<&str>) -> Result<Vec<String>, ModelError> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        let index = serde_json::json!({
            "_class_name": "StableDiffusionPipeline", "unet": [], "vae": [], "tokenizer": [], "..": [], "a/..": [],
        });
        let files = choose(&paths, index.as_object(), variant)?.into_iter();
        Ok(files
            .map(|ModelFile { from, to }| if from == to { from } else { format!("{from} > {to}") })
            .collect())
    }

    const REPOSITORY: &[&str] = &[
        ".gitattributes",
        "README.md",
        "sd_xl_base_1.0.safetensors",
        "model_index.json",
        "feature_extractor/preprocessor_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/model.onnx",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.bin.index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "vae/config.json",
        "vae/model.safetensors",
        "../outside.json",
        "a/../outside.json",
    ];

    #[test]
    fn full_precision_is_taken_and_nothing_beside_it() -> Result<(), ModelError> {
        assert_eq!(
            chosen(REPOSITORY, None)?,
            [
                "model_index.json",
                "tokenizer/merges.txt",
                "tokenizer/vocab.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/model.safetensors",
            ]
        );
        Ok(())
    }

    #[test]
    fn a_variant_is_taken_where_it_is_under_plain_names() -> Result<(), ModelError> {
        let files = chosen(REPOSITORY, Some("fp16"))?;
        assert_eq!(
            files[3..],
            [
                "unet/config.json",
                "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json > \
                 unet/diffusion_pytorch_model.safetensors.index.json",
                "vae/config.json",
                "vae/model.safetensors",
            ]
        );
        let files = chosen(
            &["unet/model-00001-of-00001.fp16.safetensors", "unet/model.safetensors.fp16.index.json"],
            None,
        )?;
        assert_eq!(
            files[1..],
            [
                "unet/model-00001-of-00001.fp16.safetensors",
                "unet/model.safetensors.fp16.index.json > unet/model.safetensors.index.json"
            ],
            "a variant is better than nothing"
        );
        Ok(())
    }

    #[test]
    fn an_unknown_variant_names_those_there_are() {
        let error = chosen(REPOSITORY, Some("bf16")).expect_err("no part has it");
        assert!(
            matches!(&error, ModelError::NoVariant { found, .. } if *found == ["fp16", "non_ema"]),
            "{error}"
        );
    }
}
