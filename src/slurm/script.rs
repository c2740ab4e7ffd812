//! The script of a job. The program runs as a step (`srun`), because only steps get the signals of a pre-emption before the job
//! is taken away. If it ends with code 130 it has written a checkpoint, and the job queues itself again.

use std::fmt::Write;
use std::path::Path;

use super::asks::Asks;
use super::record;
use crate::base::StageId;
use crate::run::ExitCode;

/// How long before the time limit a job is told to write its checkpoint: long enough for a large one on a slow disk, and at
/// most a quarter of the limit. Slurm may tell it a minute earlier.
const SECONDS_BEFORE_LIMIT: u64 = 300;

/// A job to write a script for.
pub(super) struct Script<'a> {
    /// The run folder, absolute.
    pub(super) run: &'a Path,
    /// The name of the run.
    pub(super) name: &'a str,
    /// The name of the job's files.
    pub(super) job: &'a str,
    /// The folder in which the program starts, absolute.
    pub(super) folder: &'a Path,
    /// This program, absolute.
    pub(super) program: &'a Path,
    /// What it makes: one piece of work, one for each task of an array, or nothing in the last job.
    pub(super) tasks: &'a [Task],
    /// The flags that say how to compute.
    pub(super) flags: &'a [String],
    /// The threads of a process, if its job does not ask for CPU cores.
    pub(super) threads: Option<usize>,
    pub(super) asks: &'a Asks,
}

/// The work of a job, or of one task of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// The name of its files.
    pub(super) name: String,
    /// Its stages, in order.
    pub(super) stages: Vec<StageId>,
    /// Those among them that are made from scratch.
    pub(super) force: Vec<StageId>,
    /// Its number in an array.
    pub(super) number: Option<u32>,
}

impl Task {
    fn arguments(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (flag, ids) in [("--stage", &self.stages), ("--force", &self.force)] {
            words.extend(ids.iter().flat_map(|id| [flag.to_owned(), id.to_string()]));
        }
        words.extend(["--name".to_owned(), self.name.clone()]);
        words
    }
}

impl Script<'_> {
    pub(super) fn text(&self) -> String {
        let stages = self.tasks.iter().flat_map(|task| &task.stages);
        let ids: Vec<String> = stages.map(|id| format!("`{}`", plain(id.as_str()))).collect();
        let does =
            if ids.is_empty() { "Finishes".to_owned() } else { format!("Makes {} of", ids.join(", ")) };
        let mut text =
            format!("#!/bin/bash\n# {does} the run {}. Written by laptop-diff.\n", plain(self.name));
        for option in self.options() {
            let _ = writeln!(text, "#SBATCH {option}");
        }
        let (heads, lines): (Vec<&String>, Vec<_>) =
            self.asks.lines.iter().partition(|line| line.starts_with("#SBATCH"));
        text.extend(heads.iter().map(|line| format!("{line}\n")));
        text.push('\n');
        text.extend(lines.iter().map(|line| format!("{line}\n")));
        let cpus = self.asks.cpus.map_or(String::new(), |cpus| format!(" --cpus-per-task={cpus}"));
        if self.is_array() {
            text.push_str("case \"$SLURM_ARRAY_TASK_ID\" in\n");
            for (task, number) in self.tasks.iter().filter_map(|task| Some((task, task.number?))) {
                let _ = writeln!(text, "    {number}) set -- {} ;;", words(&task.arguments()));
            }
            text.push_str("esac\n");
        }
        let _ = writeln!(text, "srun{cpus} {}", self.command());
        // The last job ends with the exit code of the run, which may be that of an interruption too.
        if !self.tasks.is_empty() {
            let cancelled = quoted(&record::cancelled(self.run).to_string_lossy());
            let interrupted = ExitCode::Interrupted.number();
            // The number alone of one of its tasks is that of the whole array.
            let id = match self.is_array() {
                true => "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
                false => "$SLURM_JOB_ID",
            };
            let _ = write!(
                text,
                "code=$?\n\
                 # {interrupted}: it was interrupted and wrote a checkpoint. The job goes on in its next turn.\n\
                 if [ \"$code\" -eq {interrupted} ] && [ ! -e {cancelled} ]; then\n    \
                 scontrol requeue \"{id}\"\nfi\nexit \"$code\"\n",
            );
        }
        text
    }

    fn is_array(&self) -> bool {
        self.tasks.iter().any(|task| task.number.is_some())
    }

    /// The tasks of an array, as Slurm takes them: `0,1,2%2`.
    fn numbers(&self) -> Option<String> {
        let numbers = self.tasks.iter().map(|task| Some(task.number?.to_string()));
        let numbers = numbers.collect::<Option<Vec<_>>>().filter(|numbers| !numbers.is_empty())?;
        let at_once = self.asks.at_once.map_or(String::new(), |count| format!("%{count}"));
        Some(format!("{}{at_once}", numbers.join(",")))
    }

    fn options(&self) -> Vec<String> {
        let Asks { partition, account, time, gpus, cpus, memory, nodes, ranks, exclusive, .. } = self.asks;
        // In the name of a file, `%` begins what Slurm fills in.
        let escaped = |path: &Path| path.to_string_lossy().replace('%', "%%");
        let log = match self.is_array() {
            true => escaped(&record::array_log(self.run, self.job)) + "%a",
            false => escaped(&record::log(self.run, self.job)),
        };
        let mut options = vec![
            format!("--job-name={}", option(&format!("{}/{}", self.name, self.job))),
            format!("--chdir={}", option(&self.folder.to_string_lossy())),
            format!("--output={}", option(&log)),
            "--open-mode=append".to_owned(),
            format!("--comment={}", option(&self.run.to_string_lossy())),
            "--requeue".to_owned(),
        ];
        let before = time.map_or(SECONDS_BEFORE_LIMIT, |limit| SECONDS_BEFORE_LIMIT.min(limit.seconds() / 4));
        options.push(format!("--signal=USR1@{before}"));
        options.extend(self.numbers().map(|numbers| format!("--array={numbers}")));
        options.extend(partition.iter().map(|name| format!("--partition={}", name.as_str())));
        options.extend(account.iter().map(|name| format!("--account={}", name.as_str())));
        options.extend(time.iter().map(|limit| format!("--time={limit}")));
        options.push(format!("--nodes={nodes}"));
        options.push(format!("--ntasks-per-node={}", ranks / nodes));
        options.extend((*gpus > 0).then(|| format!("--gpus-per-node={gpus}")));
        options.extend(cpus.iter().map(|cpus| format!("--cpus-per-task={cpus}")));
        options.extend(memory.iter().map(|bytes| format!("--mem={}M", bytes.div_ceil(1 << 20))));
        options.extend(exclusive.then(|| "--exclusive".to_owned()));
        options
    }

    /// The command of a step.
    fn command(&self) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut text = words(&[path(self.program), "job".to_owned(), path(self.run)]);
        match self.tasks {
            _ if self.is_array() => text.push_str(" \"$@\""),
            [task] => text.push_str(&format!(" {}", words(&task.arguments()))),
            _ => {}
        }
        let threads = self.asks.cpus.map(|cpus| cpus.get()).or(self.threads);
        let threads = threads.iter().flat_map(|threads| ["--threads".to_owned(), threads.to_string()]);
        let flags: Vec<String> = self.flags.iter().cloned().chain(threads).collect();
        format!("{text} {}", words(&flags)).trim_end().to_owned()
    }
}

/// Words of the shell.
fn words(all: &[String]) -> String {
    all.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Text for a comment.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A word of the shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._=@,+:-".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The value of an option of `#SBATCH`, which knows quotes and backslashes.
fn option(value: &str) -> String {
    match quoted(value) == value {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::DeviceChoice;
    use crate::config::SlurmSettings;
    use crate::slurm::Machine;
    use crate::slurm::group::{Group, groups};
    use crate::slurm::testing::{SWEEP, ids, pipeline};

    /// The scripts of all jobs, as they lie on a cluster with these settings.
    fn scripts(settings: &str, device: DeviceChoice) -> String {
        let settings: SlurmSettings = serde_yaml::from_str(settings).expect("settings");
        let machine = Machine { settings: &settings, device, ranks: None };
        let pipeline = pipeline(SWEEP);
        let asks = pipeline.stages.iter().map(|stage| Asks::of(&machine, stage).expect("they divide"));
        let groups = groups(&pipeline, &asks.enumerate().collect::<BTreeMap<_, _>>());
        let device = machine.device(&pipeline.stages).to_string();
        let task = |group: &Group, number: Option<u32>| {
            let stages: Vec<StageId> = ids(&pipeline, &group.stages).into_iter().map(StageId::from).collect();
            let force = if stages[0].as_str() == "points" { stages[1..].to_vec() } else { Vec::new() };
            Task { name: record::name(&stages[stages.len() - 1]), stages, force, number }
        };
        let is_branch = |group: &&Group| !pipeline.stages[group.stages[0]].branch.is_empty();
        let (branches, plain): (Vec<&Group>, Vec<&Group>) = groups.iter().partition(is_branch);
        let mut texts: Vec<String> =
            plain.iter().map(|group| script(&[task(group, None)], &group.asks, &device)).collect();
        let half = branches.len() / 2;
        for (one, other) in branches[..half].iter().zip(&branches[half..]) {
            let tasks = [task(one, Some(0)), task(other, Some(1))];
            texts.push(script(&tasks, &one.asks, &device));
        }
        texts.push(script(&[task(branches[0], None)], &branches[0].asks, &device));
        texts.push(script(&[], &Asks::finish(&machine), &device));
        texts.join("\n")
    }

    fn script(tasks: &[Task], asks: &Asks, device: &str) -> String {
        let job = tasks.first().map_or(record::LAST.to_owned(), |task| task.name.clone());
        let flags = ["--cache", "/scratch/cache", "--device", device].map(str::to_owned);
        let (run, folder) = (Path::new("/home/o'neil/100 %/runs/sweep"), Path::new("/home/o'neil/100 %"));
        let (program, threads) = (Path::new("/opt/bin/laptop-diff"), Some(2));
        Script { run, name: "sweep", job: &job, folder, program, tasks, flags: &flags, threads, asks }.text()
    }

    /// Compares scripts with those that were accepted.
    fn check(name: &str, text: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../tests/slurm/scripts");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text));
    }

    #[test]
    fn a_cluster_without_settings() {
        check("without-settings", &scripts("{}", DeviceChoice::Cpu));
    }

    #[test]
    fn a_cluster_with_gpus() {
        let settings = "\
default: { partition: gpu, account: vision, time: 8:00:00, gpus: 1, cpus: 8, memory: 64 GiB, lines: [\"#SBATCH --qos=high\"] }
load: { partition: cpu, memory: 100 GiB }
prune: { memory: 80 GB }
finish: { partition: cpu, memory: 4 GB, cpus: 1 }
distill: { time: 0:10:00, gpus: 4, ranks: 8, nodes: 2, branches-at-once: 3, lines: [module load cuda] }
";
        check("with-gpus", &scripts(settings, DeviceChoice::Auto));
    }

    #[test]
    fn words_are_quoted_for_those_who_read_them() {
        assert_eq!(quoted("a@x=0.3,y=b"), "a@x=0.3,y=b");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(option("/a b/\"c\"\\"), r#""/a b/\"c\"\\""#);
    }
}
