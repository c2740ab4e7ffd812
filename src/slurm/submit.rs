//! Gives a run to Slurm: one job for each group of stages that the cache lacks, and one that finishes the run.
//!
//! All jobs are submitted held and released together, so that none can end, and be forgotten by Slurm, before those that wait for
//! it are there. A submission that was cut off leaves held jobs only; the next one cancels them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::SlurmError;
use super::array;
use super::asks::{Asks, Machine};
use super::commands::{self, JobState};
use super::group::{Group, groups};
use super::record::{self, FOLDER, JobId, LAST, Submission};
use super::script::{Script, Task};
use crate::base::lock::FileLock;
use crate::base::{Digest, FileError, StageId, files};
use crate::run::{Job, RunRecord, StageState, roots, survey};

/// How long to wait until it is seen whether a job that ends is over or will be queued again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run to submit.
pub struct Order<'a> {
    /// The run; its share is a survey.
    pub job: &'a Job<'a>,
    /// The settings and flags that say where.
    pub machine: Machine<'a>,
    /// This program, absolute.
    pub program: &'a Path,
    /// The working directory, absolute.
    pub folder: &'a Path,
    /// The threads of a process, if its job does not ask for CPU cores.
    pub threads: Option<usize>,
    /// The flags of jobs that say how to compute.
    pub flags: &'a [String],
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// How many stages are in the cache.
    pub cached: usize,
    /// How many are in new jobs.
    pub stages: usize,
    /// How many jobs were submitted, the last one included.
    pub jobs: usize,
    /// How many jobs of an earlier submission are in the queue.
    pub found: usize,
}

/// The jobs that are in the queue.
struct Live {
    submission: Submission,
    /// The jobs of stages.
    jobs: BTreeSet<JobId>,
    /// The last job.
    last: Option<JobId>,
}

/// Submits what the cache lacks and no job in the queue makes.
pub fn submit(order: &Order<'_>) -> Result<Submitted, SlurmError> {
    let job = order.job;
    commands::check()?;
    let record = survey(job)?;
    let run = job.runs.join(&job.pipeline.name);
    let run = fs::canonicalize(&run).map_err(FileError::at(&run))?;
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).map_err(FileError::at(&folder))?;
    let lock = run.join(".slurm.lock");
    let _lock = FileLock::acquire(&lock, job.interrupt, &mut |_| ()).map_err(FileError::at(&lock))?;
    let live = live(order, &run, &record)?;
    let covered: BTreeSet<&StageId> = live
        .submission
        .jobs
        .iter()
        .filter(|job| live.jobs.contains(&job.id))
        .flat_map(|job| &job.stages)
        .collect();
    let wanted = job.options.wanted(job.pipeline)?;
    let lacks = |index: &usize| record.stages[*index].state == StageState::Waiting;
    let needed: Vec<usize> = wanted.iter().copied().filter(lacks).collect();
    let cached = wanted.len() - needed.len();
    let needed = needed.into_iter().filter(|&index| !covered.contains(&record.stages[index].id));
    let asks = needed.map(|index| Ok((index, Asks::of(&order.machine, &job.pipeline.stages[index])?)));
    let asks = asks.collect::<Result<BTreeMap<_, _>, SlurmError>>()?;
    let mut submitted = Submitted { cached, stages: asks.len(), jobs: 0, found: live.jobs.len() };
    if asks.is_empty() && (live.jobs.is_empty() || live.last.is_some()) {
        return Ok(submitted);
    }
    let cancelled = record::cancelled(&run);
    if cancelled.exists() {
        fs::remove_file(&cancelled).map_err(FileError::at(&cancelled))?;
    }
    let groups = groups(job.pipeline, &asks);
    submitted.jobs = groups.len() + 1;
    // The jobs are held until the record that they change is there.
    let record = || {
        write_record(&run, &live, record, &asks)?;
        roots::begin(job.store, &run);
        Ok(())
    };
    New { order, run: &run, live: &live, ids: Vec::new() }.submit(&groups, record)?;
    Ok(submitted)
}

/// The jobs of this run that are in the queue. Those of a submission that was cut off are cancelled.
fn live(order: &Order<'_>, run: &Path, record: &RunRecord) -> Result<Live, SlurmError> {
    let (until, device) = (order.job.options.until.clone(), order.job.device);
    let fresh = || Submission::new(until.clone(), device);
    let none = || Live { submission: fresh(), jobs: BTreeSet::new(), last: None };
    let Some(submission) = Submission::read(run)? else { return Ok(none()) };
    let states = settled(&submission.ids())?;
    let is_live = |id: &JobId| states.get(id).is_some_and(JobState::is_live);
    if !submission.complete {
        let orphans = commands::queue()?.into_iter().filter(|(_, state)| state.is_live() && state.is_of(run));
        commands::cancel(&orphans.map(|(id, _)| id).collect::<Vec<_>>())?;
        return Ok(none());
    }
    let jobs: BTreeSet<JobId> = submission.jobs.iter().map(|job| job.id).filter(|id| is_live(id)).collect();
    let last = submission.last.filter(|id| is_live(id));
    if jobs.is_empty() {
        // It finishes what is over, and a new one will.
        commands::cancel(&last.into_iter().collect::<Vec<_>>())?;
        return Ok(none());
    }
    let before = RunRecord::read(run).map_err(FileError::at(&run.join("run.json")))?;
    let differs = [
        (before.pipeline != record.pipeline || before.file != record.file, "pipeline"),
        (submission.until != until, "--until"),
        (submission.device != device, "device"),
    ];
    match differs.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(SlurmError::OtherRun { run: record.name.clone(), what }),
        None => Ok(Live { submission, jobs, last }),
    }
}

/// The states of jobs, once none of them is just ending.
fn settled(ids: &[JobId]) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let states = commands::states(ids)?;
        if !states.values().any(JobState::is_ending) || Instant::now() > until {
            return Ok(states);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Writes the record of the run: a new one, or that of the jobs in the queue with the stages that are tried again.
fn write_record(
    run: &Path,
    live: &Live,
    record: RunRecord,
    asks: &BTreeMap<usize, Asks>,
) -> Result<(), SlurmError> {
    let written = match live.jobs.is_empty() {
        true => record.write(run),
        false => RunRecord::update(run, |before| {
            for &index in asks.keys() {
                before.stages[index] = record.stages[index].clone();
            }
            (before.finished, before.seconds, before.exit_code) = (None, None, None);
        }),
    };
    Ok(written.map_err(FileError::at(&run.join("run.json")))?)
}

/// The jobs that are being submitted.
struct New<'a> {
    order: &'a Order<'a>,
    run: &'a Path,
    live: &'a Live,
    ids: Vec<JobId>,
}

impl New<'_> {
    /// Submits all of them, or none.
    fn submit(
        mut self,
        groups: &[Group],
        write_record: impl FnOnce() -> Result<(), SlurmError>,
    ) -> Result<(), SlurmError> {
        let mut submission = self.live.submission.clone();
        submission.complete = false;
        let submitted = self.submit_held(groups, &mut submission).and_then(|()| write_record());
        let submitted = submitted.and_then(|()| commands::release(&self.ids));
        if let Err(error) = submitted {
            // The first error is the one to tell.
            let _ = commands::cancel(&self.ids);
            self.live.submission.write(self.run)?;
            return Err(error);
        }
        commands::cancel(&self.live.last.into_iter().collect::<Vec<_>>())?;
        submission.complete = true;
        Ok(submission.write(self.run)?)
    }

    fn submit_held(&mut self, groups: &[Group], submission: &mut Submission) -> Result<(), SlurmError> {
        submission.write(self.run)?;
        let mut left: Vec<&Group> = groups.iter().collect();
        let most = if left.len() > 1 { commands::most_tasks() } else { 0 };
        while !left.is_empty() {
            let alike = self.alike(&left);
            let after: Vec<_> = alike.iter().map(|&one| self.after(left[one], submission)).collect();
            let array = array::first(&after, most);
            let places: Vec<usize> = array.members.iter().map(|&member| alike[member]).collect();
            let tasks: Vec<Task> = places
                .iter()
                .enumerate()
                .map(|(index, &place)| {
                    self.task(left[place], array.numbers.as_ref().map(|numbers| numbers[index]))
                })
                .collect();
            for (id, task) in self.submit_tasks(&tasks, &left[places[0]].asks, array.after.as_deref())? {
                submission.enter(record::Job { id, name: task.name.clone(), stages: task.stages.clone() });
            }
            submission.write(self.run)?;
            let mut place = 0..;
            left.retain(|_| !places.contains(&place.next().expect("it never ends")));
        }
        let jobs: BTreeSet<u64> = self.ids.iter().chain(&self.live.jobs).map(|id| id.job).collect();
        let after = array::condition("afterany", jobs.iter().map(u64::to_string));
        let asks = Asks::finish(&self.order.machine);
        let job = self.submit_script(LAST, &[], &asks, after.as_deref())?;
        let id = JobId { job, task: None };
        self.ids.push(id);
        submission.last = Some(id);
        Ok(submission.write(self.run)?)
    }

    /// The places of the first group and of those that do the same in other branches and wait for nothing that is not submitted.
    fn alike(&self, left: &[&Group]) -> Vec<usize> {
        let Job { pipeline, .. } = self.order.job;
        let waiting: BTreeSet<usize> = left.iter().flat_map(|group| &group.stages).copied().collect();
        let is_ready = |group: &Group| {
            let mut sources = group.stages.iter().flat_map(|&index| pipeline.graph.sources(index));
            sources.all(|source| group.stages.contains(&source) || !waiting.contains(&source))
        };
        let is_forced = |group: &Group| -> Vec<bool> {
            group.stages.iter().map(|&index| self.order.job.is_forced(&pipeline.stages[index])).collect()
        };
        let fits = |group: &Group| {
            array::are_alike(pipeline, left[0], group)
                && is_ready(group)
                && is_forced(group) == is_forced(left[0])
        };
        let others = (1..left.len()).filter(|&place| fits(left[place]));
        std::iter::once(0).chain(others).collect()
    }

    /// The jobs that a group waits for: new ones or ones in the queue.
    fn after(&self, group: &Group, submission: &Submission) -> BTreeSet<JobId> {
        let pipeline = self.order.job.pipeline;
        let sources = group.stages.iter().flat_map(|&index| pipeline.graph.sources(index));
        let sources: BTreeSet<&StageId> = sources.map(|index| &pipeline.stages[index].id).collect();
        let jobs = sources.into_iter().filter_map(|id| submission.job(id)).map(|job| job.id);
        jobs.filter(|id| self.ids.contains(id) || self.live.jobs.contains(id)).collect()
    }

    fn task(&self, group: &Group, number: Option<u32>) -> Task {
        let job = self.order.job;
        let planned = || group.stages.iter().map(|&index| &job.pipeline.stages[index]);
        let stages: Vec<StageId> = planned().map(|stage| stage.id.clone()).collect();
        let force = planned().filter(|stage| job.is_forced(stage)).map(|stage| stage.id.clone()).collect();
        let name = record::name(stages.last().expect("BUG: a group has stages"));
        Task { name, stages, force, number }
    }

    /// Submits a job, or the tasks of an array; gives the job of each task.
    fn submit_tasks<'t>(
        &mut self,
        tasks: &'t [Task],
        asks: &Asks,
        after: Option<&str>,
    ) -> Result<Vec<(JobId, &'t Task)>, SlurmError> {
        let name = match tasks {
            [task] => task.name.clone(),
            tasks => {
                let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
                let branch = names[0].split('@').next().unwrap_or(names[0]);
                format!("{branch}.array-{}", Digest::of(names.join("\n").as_bytes()).short())
            }
        };
        for (task, number) in tasks.iter().filter_map(|task| Some((task, task.number?))) {
            let mut link = record::array_log(self.run, &name).into_os_string();
            link.push(number.to_string());
            let log = record::log(self.run, &task.name);
            let log = log.file_name().expect("BUG: a log is a file");
            files::replace_link(Path::new(log), Path::new(&link)).map_err(FileError::at(Path::new(&link)))?;
        }
        let job = self.submit_script(&name, tasks, asks, after)?;
        let ids: Vec<_> = tasks.iter().map(|task| (JobId { job, task: task.number }, task)).collect();
        self.ids.extend(ids.iter().map(|(id, _)| *id));
        Ok(ids)
    }

    fn submit_script(
        &self,
        job: &str,
        tasks: &[Task],
        asks: &Asks,
        after: Option<&str>,
    ) -> Result<u64, SlurmError> {
        let Order { job: run, program, folder, threads, flags, .. } = *self.order;
        let name = &run.pipeline.name;
        let script = Script { run: self.run, name, job, folder, program, tasks, flags, threads, asks };
        let path: PathBuf = record::script(self.run, job);
        fs::write(&path, script.text()).map_err(FileError::at(&path))?;
        commands::submit(&path, after)
    }
}
