//! Which files of a folder or hub repository make up the model: the files of its parts, with the weights of each part
//! in one precision. Other precisions, pickles, files of other frameworks, single-file checkpoints next to the parts,
//! pictures and the README are ignored.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use serde_json::{Map, Value};

use super::names::{Role, WeightFile, one_precision};
use super::part::Part;
use crate::model::error::ModelError;

/// diffusers' name for the list of a pipeline's parts.
pub const INDEX: &str = "model_index.json";

/// The weights of OpenCLIP's repositories.
pub const OPEN_CLIP_WEIGHTS: &str = "open_clip_model.safetensors";

/// File extensions of configurations, vocabularies and the code of a pruned U-Net.
const ENDINGS: [&str; 4] = ["json", "txt", "model", "py"];

/// One file of a model, by its path relative to the model's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path.
    pub from: String,
    /// The path under which loaders look for it: that of full precision.
    pub to: String,
}

/// The files at the top level of a folder and in its subfolders, as `unet/config.json`.
pub fn list(folder: &Path) -> io::Result<Vec<String>> {
    let names = |folder: &Path| -> io::Result<Vec<String>> {
        // A file name that is not UTF-8 does not belong to a model.
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

/// The files of the model among `paths`, sorted. `index` is the content of [`INDEX`], if it exists. The weights of each
/// part are those of `variant`; like diffusers, parts without this variant use their weights without a variant.
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

/// The files of a CLIP model among `paths`, with or without its weights: those of transformers, else those of OpenCLIP.
pub fn choose_scorer(paths: &[String], weights: bool) -> Vec<String> {
    let names: Vec<&str> = paths.iter().map(String::as_str).filter(|path| !path.contains('/')).collect();
    let files: Vec<WeightFile<'_>> = names.iter().filter_map(|name| WeightFile::parse(name)).collect();
    let mut of_weights: Vec<&str> = one_precision(&files, None).into_iter().map(|file| file.name).collect();
    if of_weights.is_empty() {
        of_weights.extend(names.iter().filter(|name| **name == OPEN_CLIP_WEIGHTS));
    }
    let others = names.iter().copied().filter(|name| is_read(name) && !name.starts_with('.'));
    let wanted = of_weights.into_iter().filter(|_| weights);
    others.chain(wanted).map(str::to_owned).collect()
}

/// The file through which a part's weights are opened: the whole file, or the index of shards. `part` is empty for a
/// bare model.
pub fn weights_of<'a>(files: &'a [ModelFile], part: &str) -> Option<&'a ModelFile> {
    files.iter().find(|file| {
        let (folder, name) = file.from.rsplit_once('/').unwrap_or(("", &file.from));
        folder == part && WeightFile::parse(name).is_some_and(|weights| weights.role != Role::Shard)
    })
}

/// The folders of a pipeline's parts, or the top level of a bare model. Only plain names are accepted, because an index
/// can come from an untrusted source. The U-Net is a part even if the index does not name it, for example because it
/// was copied in manually.
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

    /// The files chosen from a pipeline, as `from > to` where the names differ.
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
    fn full_precision_is_chosen_and_other_files_are_ignored() -> Result<(), ModelError> {
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
    fn a_scorer_has_the_weights_of_one_library() {
        let all = [
            ".gitattributes",
            "README.md",
            "config.json",
            "merges.txt",
            "model.fp16.safetensors",
            "model.safetensors",
            "open_clip_config.json",
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
            "preprocessor_config.json",
            "unet/config.json",
        ]
        .map(str::to_owned);
        let small = ["config.json", "merges.txt", "open_clip_config.json", "preprocessor_config.json"];
        assert_eq!(choose_scorer(&all, false), small);
        assert_eq!(choose_scorer(&all, true), [&small[..], &["model.safetensors"]].concat());
        let of_open_clip: Vec<String> =
            all.iter().filter(|name| !name.starts_with("model.")).cloned().collect();
        assert_eq!(
            choose_scorer(&of_open_clip, true),
            [&small[..], &["open_clip_model.safetensors"]].concat()
        );
    }

    #[test]
    fn a_variant_is_chosen_under_plain_names() -> Result<(), ModelError> {
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
            "falls back to another variant"
        );
        Ok(())
    }

    #[test]
    fn an_unknown_variant_lists_the_available_ones() {
        let error = chosen(REPOSITORY, Some("bf16")).expect_err("no part has this variant");
        assert!(
            matches!(&error, ModelError::NoVariant { found, .. } if *found == ["fp16", "non_ema"]),
            "{error}"
        );
    }
}
