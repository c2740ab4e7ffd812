//! `laptop-diff cache gc`: frees space.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::super::error::CliError;
use super::super::output::{note, print, print_json, silent, table};
use super::options::CacheArguments;
use crate::base::units::{self, Age, Bytes};
use crate::cache::{Candidate, Collection, Limits, Reason};
use crate::run::{roots, signals};

/// Free space: remove artefacts and checkpoints that nobody needs
#[derive(Args)]
#[command(after_help = "\
At least one of --all, --older-than, --max-size and --checkpoints-older-than says what may go. Artefacts that a run folder
or a pin needs stay, with the parts that they were made of; so does what a running process uses, on this machine or on
another. A process on another machine counts as dead after 30 seconds without a sign of life; the command waits for that
if there may be one. `laptop-diff clean RUN` removes a run folder, `laptop-diff cache pin` keeps what has none.

Examples:
  laptop-diff cache gc --older-than 30d --dry-run
  laptop-diff cache gc --max-size 200GB
  laptop-diff cache gc --checkpoints-older-than 2w   # checkpoints and training states, also those of runs
  laptop-diff cache gc --all                         # everything that no run and no pin needs")]
pub(super) struct Gc {
    /// Everything that no run and no pin needs
    #[arg(long)]
    all: bool,
    /// What no run and no pin needs and was not used for so long, such as 30d, 12h or 90min
    #[arg(long, value_name = "AGE")]
    older_than: Option<Age>,
    /// What no run and no pin needs and was not used for longest, until the cache is not larger than this, such as 200GB
    #[arg(long, value_name = "BYTES")]
    max_size: Option<Bytes>,
    /// Checkpoints of unfinished work and states of finished trainings that nobody resumed for so long, also those of runs
    #[arg(long, value_name = "AGE")]
    checkpoints_older_than: Option<Age>,
    /// Show what would be removed and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cache: CacheArguments,
}

#[derive(Serialize)]
struct Told<'a> {
    dry_run: bool,
    removed: &'a [Candidate],
    /// What a process has begun to use meanwhile.
    spared: &'a [Candidate],
    reasons: BTreeMap<Reason, Share>,
    bytes_before: u64,
    bytes_after: u64,
}

#[derive(Default, Serialize)]
struct Share {
    count: usize,
    bytes: u64,
}

impl Gc {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let limits = Limits {
            all: self.all,
            older_than: self.older_than.map(|Age(age)| age),
            checkpoints_older_than: self.checkpoints_older_than.map(|Age(age)| age),
            max_bytes: self.max_size.map(|Bytes(bytes)| bytes),
            only: None,
        };
        if !limits.all
            && limits.older_than.is_none()
            && limits.checkpoints_older_than.is_none()
            && limits.max_bytes.is_none()
        {
            return Err(CliError::NoScope);
        }
        let (store, settings) = self.cache.open()?;
        let interrupt = signals::listen();
        store.forget_the_silent(&interrupt, &mut |holder| note(&silent(holder)))?;
        let collection = store.collection(&limits, &roots::needed(&store, &settings.runs)?)?;
        let (removed, spared) = if self.dry_run {
            (collection.candidates.clone(), Vec::new())
        } else {
            let collected = store.collect(&collection, &interrupt)?;
            roots::forget_gone(&store)?;
            (collected.removed, collected.spared)
        };
        self.tell(&collection, &removed, &spared, limits.max_bytes)
    }

    fn tell(
        &self,
        collection: &Collection,
        removed: &[Candidate],
        spared: &[Candidate],
        most: Option<u64>,
    ) -> Result<(), CliError> {
        let mut reasons: BTreeMap<Reason, Share> = BTreeMap::new();
        for one in removed {
            let share = reasons.entry(one.reason).or_default();
            (share.count, share.bytes) = (share.count + 1, share.bytes + one.bytes);
        }
        let freed: u64 = removed.iter().map(|one| one.bytes).sum();
        let (before, after) = (collection.bytes, collection.bytes.saturating_sub(freed));
        if self.cache.json {
            let (dry_run, bytes_before, bytes_after) = (self.dry_run, before, after);
            return print_json(&Told { dry_run, removed, spared, reasons, bytes_before, bytes_after });
        }
        let mut text = String::new();
        if self.dry_run && !removed.is_empty() {
            let rows: Vec<_> = removed.iter().map(line).collect();
            text = format!("{}\n", table(&rows, &[1, 2]));
        }
        let verb = if self.dry_run { "would free" } else { "freed" };
        for (reason, share) in &reasons {
            let (bytes, things) = (units::bytes(share.bytes), things(share.count));
            text.push_str(&format!("{verb} {bytes} in {things}: {}\n", reason.in_words()));
        }
        if removed.is_empty() {
            text.push_str("there is nothing to remove\n");
        }
        let is = if self.dry_run { "would be" } else { "is" };
        text.push_str(&format!("the cache {is} {}, it was {}\n", units::bytes(after), units::bytes(before)));
        print(&text)?;
        if !spared.is_empty() {
            note(&format!("{} stayed, because a process has begun to use them", things(spared.len())));
        }
        if most.is_some_and(|most| after > most) {
            note(
                "what is left is needed by runs, pins or running processes; `laptop-diff cache ls` shows by which",
            );
        }
        Ok(())
    }
}

fn things(count: usize) -> String {
    format!("{count} {}", if count == 1 { "artefact or checkpoint" } else { "artefacts and checkpoints" })
}

fn line(one: &Candidate) -> Vec<String> {
    let unused = units::ago(one.unused_seconds as f64);
    vec![
        one.stage.clone(),
        units::bytes(one.bytes),
        format!("used {unused}"),
        one.reason.in_words().to_owned(),
    ]
}
