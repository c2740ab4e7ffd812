//! The record of a run's jobs, `slurm/jobs.json` of the run folder, and the files beside it.

use std::fs;
use std::io;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backend::DeviceChoice;
use crate::base::{Digest, FileError, StageId, sealed};

/// The folder of jobs in a run folder.
pub const FOLDER: &str = "slurm";

/// The format of the record. History: 1, the first; 2, the tasks of arrays.
const FORMAT: u32 = 2;

/// The name of the last job. No stage's id begins like this.
pub(super) const LAST: &str = "_finish";

/// The jobs of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    format: u32,
    /// Whether all of them were submitted and may start.
    pub complete: bool,
    /// What `--until` said.
    pub until: Option<StageId>,
    /// The device of the jobs.
    pub device: DeviceChoice,
    /// The jobs of stages, each after those that it waits for.
    pub jobs: Vec<Job>,
    /// The job that finishes the run.
    pub last: Option<JobId>,
}

/// A job, or a task of an array of jobs. As text `17`, or `17_3` for a task, as Slurm writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId {
    /// The number of the job or array.
    pub job: u64,
    /// The number of the task in its array.
    pub task: Option<u32>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// The name of its files.
    pub name: String,
    /// The stages that it makes, in order.
    pub stages: Vec<StageId>,
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.task {
            Some(task) => write!(f, "{}_{task}", self.job),
            None => self.job.fmt(f),
        }
    }
}

impl FromStr for JobId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        Ok(match text.split_once('_') {
            Some((job, task)) => Self { job: job.parse()?, task: Some(task.parse()?) },
            None => Self { job: text.parse()?, task: None },
        })
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for JobId {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        text.parse()
    }
}

impl Submission {
    /// No jobs yet.
    pub(super) fn new(until: Option<StageId>, device: DeviceChoice) -> Self {
        Self { format: FORMAT, complete: false, until, device, jobs: Vec::new(), last: None }
    }

    /// The record in a run folder; `None` if the run was never submitted.
    pub fn read(run: &Path) -> Result<Option<Self>, FileError> {
        let path = file(run);
        match sealed::read_of(&path, FORMAT, |record: &Self| record.format) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(FileError::at(&path)),
        }
    }

    pub(super) fn write(&self, run: &Path) -> Result<(), FileError> {
        let path = file(run);
        sealed::write(&path, self).map_err(FileError::at(&path))
    }

    /// The numbers of all jobs, the last one too.
    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.iter().map(|job| job.id).chain(self.last).collect()
    }

    /// The job of a stage.
    pub(super) fn job(&self, stage: &StageId) -> Option<&Job> {
        self.jobs.iter().find(|job| job.stages.contains(stage))
    }

    /// Enters a job in place of those that had its stages.
    pub(super) fn enter(&mut self, job: Job) {
        self.jobs.retain_mut(|old| {
            old.stages.retain(|stage| !job.stages.contains(stage));
            !old.stages.is_empty()
        });
        self.jobs.push(job);
    }
}

fn file(run: &Path) -> PathBuf {
    run.join(FOLDER).join("jobs.json")
}

/// Is there once the jobs of the run were cancelled, so that none of them queues itself again.
pub(super) fn cancelled(run: &Path) -> PathBuf {
    run.join(FOLDER).join("cancelled")
}

/// The script of a job.
pub(super) fn script(run: &Path, job: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{job}.sbatch"))
}

/// How the names of the files begin that the tasks of an array print into; the number of the task follows. They are links to
/// the logs of their stages.
pub(super) fn array_log(run: &Path, job: &str) -> PathBuf {
    run.join(FOLDER).join(format!(".{job}-"))
}

/// What a job prints.
pub(super) fn log(run: &Path, job: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{job}.log"))
}

/// The events of a job's stages, until the last job takes them into those of the run.
pub fn event_log(run: &Path, job: &str) -> PathBuf {
    run.join(FOLDER).join(format!("{job}.jsonl"))
}

/// All logs of events that are there.
pub(super) fn event_logs(run: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(run.join(FOLDER)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    logs.sort();
    logs
}

/// The name of a job's files: that of its last stage, with what a file system, a shell or Slurm might misread replaced.
pub(super) fn name(stage: &StageId) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._=@,+-".contains(c);
    let plain: String = stage.as_str().chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    match plain == stage.as_str() {
        true => plain,
        false => format!("{plain}-{}", Digest::of(stage.as_str().as_bytes()).short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(job: u64) -> JobId {
        JobId { job, task: None }
    }

    #[test]
    fn a_record_is_read_back_and_a_job_takes_the_place_of_another() -> Result<(), FileError> {
        let run = tempfile::tempdir().expect("a folder");
        assert_eq!(Submission::read(run.path())?, None);
        let mut submission = Submission::new(Some("b".into()), DeviceChoice::Cuda(0));
        let job = |id, stages: &[&str]| Job {
            id: plain(id),
            name: "n".to_owned(),
            stages: stages.iter().map(|&stage| stage.into()).collect(),
        };
        submission.enter(job(1, &["a", "b"]));
        submission.enter(job(2, &["b"]));
        submission.enter(job(3, &["a"]));
        assert_eq!(submission.ids(), [plain(2), plain(3)]);
        assert_eq!(submission.job(&"a".into()).map(|job| job.id), Some(plain(3)));
        fs::create_dir(run.path().join(FOLDER)).expect("a folder");
        let task = JobId { job: 4, task: Some(7) };
        submission.enter(Job { id: task, ..job(4, &["c"]) });
        assert_eq!((task.to_string().as_str(), "4_7".parse()), ("4_7", Ok(task)));
        assert!(["4_[0-7]", "4_", "x"].iter().all(|text| text.parse::<JobId>().is_err()));
        submission.write(run.path())?;
        assert_eq!(Submission::read(run.path())?, Some(submission));
        Ok(())
    }

    #[test]
    fn names_of_files_are_plain_and_differ() {
        assert_eq!(name(&"retrained@criterion=a,ratio=0.3".into()), "retrained@criterion=a,ratio=0.3");
        let odd = ["a@x=1 2", "a@x=1%2", "a@x=1/2"].map(|id| name(&id.into()));
        assert!(odd.iter().all(|name| name.starts_with("a@x=1_2-")), "{odd:?}");
        assert!(odd[0] != odd[1] && odd[1] != odd[2], "{odd:?}");
    }
}
