//! `laptop-diff cache du`: what the cache takes, by stage.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::super::error::CliError;
use super::super::output::{print, print_json, table};
use super::CacheArguments;
use crate::base::units;
use crate::cache::{Contents, Limits};
use crate::run::roots;

/// Show what the cache takes, by stage, and how much of it nobody needs
#[derive(Args)]
#[command(after_help = "\
Artefacts share files, which count for each of them; the total counts every file once.

Examples:
  laptop-diff cache du
  laptop-diff cache du --cache /scratch/cache --json")]
pub(super) struct Du {
    #[command(flatten)]
    cache: CacheArguments,
}

#[derive(Serialize)]
struct Usage {
    stages: BTreeMap<String, Share>,
    /// Artefacts whose keys have other bytes by now.
    replaced: Share,
    checkpoints: Share,
    /// Digests of files, explanations, locks.
    records_bytes: u64,
    bytes: u64,
    /// What `gc --all` would free.
    unneeded_bytes: u64,
}

#[derive(Default, Serialize)]
struct Share {
    count: usize,
    bytes: u64,
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Du {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let (store, settings) = self.cache.open()?;
        let needed = roots::needed(&store, &settings.runs)?;
        let all = store.collection(&Limits { all: true, ..Limits::default() }, &needed)?;
        let usage = Usage::of(&store.contents()?, all.bytes - all.left);
        if self.cache.json { print_json(&usage) } else { print(&usage.shown()) }
    }
}

impl Usage {
    fn of(contents: &Contents, unneeded_bytes: u64) -> Self {
        let mut stages: BTreeMap<String, Share> = BTreeMap::new();
        for kept in &contents.entries {
            let (stage, _) = kept.entry.stage().split_once('@').unwrap_or((kept.entry.stage(), ""));
            stages.entry(stage.to_owned()).or_default().add(kept.entry.files.bytes());
        }
        let (mut replaced, mut checkpoints) = (Share::default(), Share::default());
        contents.loose.iter().for_each(|loose| replaced.add(loose.bytes));
        contents.work.iter().for_each(|work| checkpoints.add(work.bytes));
        let (records_bytes, bytes) = (contents.others, contents.bytes);
        Self { stages, replaced, checkpoints, records_bytes, bytes, unneeded_bytes }
    }

    fn shown(&self) -> String {
        let row = |name: &str, share: &Share| {
            vec![name.to_owned(), share.count.to_string(), units::bytes(share.bytes)]
        };
        let head = ["stage", "artefacts", "size"].map(str::to_owned).to_vec();
        let mut rows = vec![head];
        let mut stages: Vec<_> = self.stages.iter().collect();
        stages.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes));
        rows.extend(stages.into_iter().map(|(name, share)| row(name, share)));
        for (name, share) in [("replaced artefacts", &self.replaced), ("checkpoints", &self.checkpoints)] {
            if share.count > 0 {
                rows.push(row(name, share));
            }
        }
        rows.push(vec!["records".to_owned(), String::new(), units::bytes(self.records_bytes)]);
        let (bytes, unneeded) = (units::bytes(self.bytes), units::bytes(self.unneeded_bytes));
        format!("{}\n{bytes} in all; no run and no pin needs {unneeded} of it\n", table(&rows, &[1, 2]))
    }
}
