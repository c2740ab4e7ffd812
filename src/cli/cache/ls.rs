//! `laptop-diff cache ls`: the artefacts of the cache, one per line.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::super::error::CliError;
use super::super::output::{note, print, print_json, table};
use super::options::CacheArguments;
use crate::base::{ArtefactKind, Digest, units};
use crate::cache::{Contents, Kept, Needed, Work};
use crate::run::roots;

/// List the artefacts of the cache with their sizes, their last use, and who needs them
#[derive(Args)]
#[command(after_help = "\
The last column names the run folders and pins that need an artefact; `cache gc` leaves those alone.

Examples:
  laptop-diff cache ls
  laptop-diff cache ls --sort size
  laptop-diff cache ls --unneeded --json")]
pub(super) struct Ls {
    /// What comes first: the last used, the largest, or the stages in the order of their names
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Only what no run and no pin needs
    #[arg(long)]
    unneeded: bool,
    #[command(flatten)]
    cache: CacheArguments,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    #[default]
    Used,
    Size,
    Stage,
}

/// One entry.
#[derive(Serialize)]
struct Row {
    key: Digest,
    /// Absent for unfinished work.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<ArtefactKind>,
    stage: String,
    bytes: u64,
    /// How long it took to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<String>,
    unused_seconds: u64,
    needed_by: Vec<String>,
}

impl Ls {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (store, settings) = self.cache.open()?;
        let needed = roots::needed(&store, &settings.runs)?;
        let mut rows = rows(store.contents()?, needed);
        rows.retain(|row| !self.unneeded || row.needed_by.is_empty());
        match self.sort {
            Sort::Used => rows.sort_by_key(|row| row.unused_seconds),
            Sort::Size => rows.sort_by_key(|row| std::cmp::Reverse(row.bytes)),
            Sort::Stage => rows.sort_by(|one, two| one.stage.cmp(&two.stage)),
        }
        if self.cache.json {
            return print_json(&rows);
        }
        if rows.is_empty() {
            note(&format!("there is no such artefact in {}", store.root().display()));
            return Ok(());
        }
        let head = ["key", "stage", "size", "took", "last used", "needed by"].map(str::to_owned).to_vec();
        let lines: Vec<_> = [head].into_iter().chain(rows.iter().map(line)).collect();
        print(&table(&lines, &[2, 3, 4]))
    }
}

fn rows(contents: Contents, mut needed: Needed) -> Vec<Row> {
    needed.add_parts(&contents);
    let names = |digests: &[Digest]| -> Vec<String> {
        let mut names: Vec<_> = digests.iter().flat_map(|digest| needed.by(digest).to_vec()).collect();
        names.sort();
        names.dedup();
        names
    };
    let entry = |kept: &Kept| Row {
        key: kept.entry.key,
        digest: Some(kept.entry.digest),
        kind: Some(kept.entry.made.kind),
        stage: what(kept),
        bytes: kept.entry.files.bytes(),
        seconds: Some(kept.entry.made.seconds),
        made: Some(kept.entry.made.finished.clone()),
        unused_seconds: kept.age().as_secs(),
        needed_by: names(&[kept.entry.key, kept.entry.digest]),
    };
    let work = |work: &Work| Row {
        key: work.key,
        digest: None,
        kind: None,
        stage: "unfinished work".to_owned(),
        bytes: work.bytes,
        seconds: None,
        made: None,
        unused_seconds: work.age().as_secs(),
        needed_by: names(&[work.key]),
    };
    contents.entries.iter().map(entry).chain(contents.work.iter().map(work)).collect()
}

/// The stage, and what of it an intermediate artefact is.
fn what(kept: &Kept) -> String {
    let stage = kept.entry.stage();
    let part = kept.entry.manifest.entries().find(|(name, _)| matches!(*name, "part" | "of the part"));
    match part {
        _ if kept.entry.is_training_state() => format!("{stage}, training state"),
        Some((_, part)) => format!("{stage}, {part}"),
        None => stage.to_owned(),
    }
}

fn line(row: &Row) -> Vec<String> {
    vec![
        row.key.short(),
        row.stage.clone(),
        units::bytes(row.bytes),
        row.seconds.map_or_else(String::new, units::seconds),
        units::ago(row.unused_seconds as f64),
        row.needed_by.join(", "),
    ]
}
