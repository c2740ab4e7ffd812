//! The file names that diffusers and transformers give to weights.

/// A weights file, parsed from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WeightFile<'a> {
    pub(super) name: &'a str,
    stem: &'static str,
    pub(super) variant: Option<&'a str>,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Whole,
    Index,
    Shard,
}

impl<'a> WeightFile<'a> {
    /// `STEM.safetensors`, `STEM-00001-of-00002.safetensors` and `STEM.safetensors.index.json`. diffusers 0.42 and
    /// transformers 5 add a variant like this: `STEM.fp16.safetensors`, `STEM.fp16-00001-of-00002.safetensors`,
    /// `STEM.safetensors.index.fp16.json`; older versions of diffusers wrote `STEM-00001-of-00002.fp16.safetensors` and
    /// `STEM.safetensors.fp16.index.json`.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (stem, rest) = ["diffusion_pytorch_model", "model"].into_iter().find_map(|stem| {
            Some((stem, name.strip_prefix(stem).filter(|rest| rest.starts_with(['.', '-']))?))
        })?;
        let (mut variant, mut role, mut known) = (None, Role::Whole, [false; 3]);
        for word in rest.split('.') {
            let numbered = word.rsplit_once("-of-").and_then(|(word, _)| word.rsplit_once('-'));
            if numbered.is_some() {
                role = Role::Shard;
            }
            match numbered.map_or(word, |(word, _)| word) {
                "" => {}
                "safetensors" => known[0] = true,
                "index" => known[1] = true,
                "json" => known[2] = true,
                word if variant.is_none() => variant = Some(word),
                _ => return None,
            }
        }
        match known {
            [true, false, false] => Some(Self { name, stem, variant, role }),
            [true, true, true] if role == Role::Whole => {
                Some(Self { name, stem, variant, role: Role::Index })
            }
            _ => None,
        }
    }

    /// Its name without the variant. Shards keep theirs, because the index refers to them by name.
    pub(super) fn plain_name(&self) -> String {
        match self.role {
            Role::Whole => format!("{}.safetensors", self.stem),
            Role::Index => format!("{}.safetensors.index.json", self.stem),
            Role::Shard => self.name.to_owned(),
        }
    }
}

/// The weights of `variant`, else those without a variant, else those of the first variant present. If a precision
/// exists both as one file and as shards, the single file is used.
pub(super) fn one_precision<'a>(weights: &[WeightFile<'a>], variant: Option<&str>) -> Vec<WeightFile<'a>> {
    let is_there = |variant: Option<&str>| weights.iter().any(|file| file.variant == variant);
    let first = weights.iter().filter_map(|file| file.variant).min();
    let wanted = [variant, None, first].into_iter().find(|&variant| is_there(variant)).flatten();
    let mut chosen: Vec<_> = weights.iter().filter(|file| file.variant == wanted).copied().collect();
    if chosen.iter().any(|file| file.role == Role::Whole) {
        chosen.retain(|file| file.role == Role::Whole);
    }
    chosen
}

/// The file of a folder through which its weights are opened: full precision, else the first variant.
pub(super) fn opened_by(names: &[String]) -> Option<&str> {
    let weights: Vec<_> = names.iter().filter_map(|name| WeightFile::parse(name)).collect();
    one_precision(&weights, None).into_iter().find(|file| file.role != Role::Shard).map(|file| file.name)
}
