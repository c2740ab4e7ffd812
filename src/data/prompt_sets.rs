//! The prompt sets that people publish results on, by name. Their files are not ours to distribute: users put them into one
//! folder, whose README says where each comes from. What was read is compared with the set: the number of prompts, and
//! their digest where a file of the set was at hand to compute it from. Each such constant says from which.

use std::path::Path;

use super::DataError;
use super::prompts::read_column;
use crate::base::Digest;
use crate::base::names::{self, UnknownName};

/// A published prompt set.
#[derive(Debug)]
pub struct PromptSet {
    /// Its name.
    pub name: &'static str,
    /// Its files in the folder, in order.
    pub files: &'static [&'static str],
    /// The column of a table.
    column: Option<&'static str>,
    /// The number of prompts.
    count: usize,
    /// The digest of the prompts as a JSON list.
    pub digest: Option<&'static str>,
    /// Where it comes from, and how big it is.
    pub from: &'static str,
}

/// The sets.
pub const PROMPT_SETS: &[PromptSet] = &[
    PromptSet {
        name: "partiprompts",
        files: &["PartiPrompts.tsv"],
        column: Some("Prompt"),
        count: 1632,
        digest: Some(PARTI),
        from: "PartiPrompts.tsv of github.com/google-research/parti takes 0.1 MB",
    },
    PromptSet {
        name: "hpsv2",
        files: &["anime.json", "concept-art.json", "paintings.json", "photo.json"],
        column: None,
        count: 3200,
        digest: Some(HPSV2),
        from: "the four files of benchmark/ in the dataset zhwang/HPDv2 on the hub take 0.3 MB",
    },
    PromptSet {
        name: "pick-a-pic",
        files: &["pick-a-pic.parquet"],
        column: Some("caption"),
        count: 500,
        digest: None,
        from: "the Parquet file of the split test_unique of yuvalkirstain/pickapic_v1_no_images on the hub takes 0.2 MB",
    },
    PromptSet {
        name: "coco-30k",
        files: &["coco-30k.csv"],
        column: None,
        count: 30_000,
        digest: Some(COCO),
        from: "metadata.csv of BK-SDM's mscoco_val2014_30k takes 2.5 MB (scripts/get_mscoco_files.sh of github.com/Nota-NetsPresso/BK-SDM)",
    },
];

/// Of the file of the first release, commit 2c99f66 of google-research/parti.
const PARTI: &str = "b447c8f47dda6259d4598ccdcb0d3d7dec05b2503b5e2dade98b3675e2c5df3d";

/// Of the files in apple/ml-diffusion-alignment-gflownet, commit 12c5952, which are the bytes of those in quang-ngh/alignment,
/// commit de63d47, and have the sizes that the hub shows for zhwang/HPDv2.
const HPSV2: &str = "181866cd3985e3573e3e09c11f0f653a6cf12a2bf8abaf317510843679be9b9d";

/// Of data/mscoco_val2014_30k/metadata.csv in Yuhyeong/BK-SDM, commit 15ebb8a, a copy of BK-SDM with its data.
const COCO: &str = "0c30c68be21a3f285e3b6a46f2afde074497d78f6b465efeba066399d63cd737";

/// The set of this name.
pub fn find(name: &str) -> Result<&'static PromptSet, UnknownName> {
    names::find("prompt set", PROMPT_SETS, |set| set.name, name)
}

impl PromptSet {
    /// All its prompts, from a folder.
    pub fn read(&self, folder: &Path) -> Result<Vec<String>, DataError> {
        let mut prompts = Vec::new();
        for file in self.files {
            prompts.extend(read_column(&folder.join(file), self.column)?);
        }
        let digest = self.digest.is_none_or(|digest| digest_of(&prompts) == digest);
        if prompts.len() == self.count && digest {
            return Ok(prompts);
        }
        let reason = match prompts.len() == self.count {
            true => format!("it is not `{}`: its prompts have the digest {}", self.name, digest_of(&prompts)),
            false => format!("`{}` has {} prompts, but {} were read", self.name, self.count, prompts.len()),
        };
        Err(DataError::Source {
            path: folder.to_owned(),
            reason,
            help: format!("fetch it again: {}", self.from),
        })
    }
}

impl PromptSet {
    /// The file without its ending and the number in it of each prompt, in a set of files of equal length.
    pub fn places(&self) -> Vec<(String, usize)> {
        let each = self.count / self.files.len();
        let stem = |index: usize| self.files[index / each].split('.').next().unwrap_or_default().to_owned();
        (0..each * self.files.len()).map(|index| (stem(index), index % each)).collect()
    }
}

/// The digest of a list of prompts, whatever file they come from.
pub fn digest_of(prompts: &[String]) -> String {
    Digest::of(serde_json::Value::from(prompts.to_vec()).to_string().as_bytes()).to_string()
}
