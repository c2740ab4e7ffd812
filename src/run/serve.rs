//! What a worker does: it plans nothing and writes nothing of the run folder, but obtains the stages that the process of the
//! run names, and tells it what happens.
//!
//! Workers are processes and not threads, because much belongs to a process: its peak memory, its memory limit and its
//! allocator, which has one arena; candle's threads; the rounding of products on a GPU; and the damage when memory runs out or a mapped
//! file is cut short, which then ends one stage and not the run.

use std::io::{self, BufRead, Write};
use std::sync::{PoisonError, mpsc};
use std::thread;

use super::message::{Answer, Order, Task};
use super::work::{Work, Workshop};
use super::{Event, ExitCode, Failure, Job, RunError, Sink};
use crate::backend::memory;
use crate::cache::Obtained;
use crate::plan::PlanError;

/// Obtains stages until the process of the run is over or dies; then this process ends as well.
pub fn serve(job: &Job<'_>) {
    let (give, tasks) = mpsc::channel();
    let shop = Workshop::new(job);
    thread::scope(|scope| {
        scope.spawn(|| hear(job, &give));
        for task in tasks {
            say(&match obtain(&shop, &task) {
                Ok(obtained) => Answer::Obtained {
                    ran: matches!(obtained, Obtained::Made(_)),
                    made: shop.made.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                },
                Err(error) => Answer::Failed(Failure::of(&error, error.exit_code())),
            });
        }
    })
}

/// Reads what the process of the run wants.
fn hear(job: &Job<'_>, tasks: &mpsc::Sender<Task>) {
    for line in io::stdin().lock().lines() {
        match line.map(|line| serde_json::from_str(&line)) {
            Ok(Ok(Order::Obtain(task))) => drop(tasks.send(task)),
            Ok(Ok(Order::Stop)) => job.interrupt.ask(),
            _ => break,
        }
    }
    // Nobody waits for what is being made. Its checkpoint is on the disk.
    end()
}

fn end() -> ! {
    std::process::exit(ExitCode::Interrupted.number().into())
}

fn obtain(shop: &Workshop<'_>, task: &Task) -> Result<Obtained, RunError> {
    let job = shop.job;
    if let Some(bytes) = task.memory {
        memory::allow(bytes);
    }
    shop.made.lock().unwrap_or_else(PoisonError::into_inner).extend(&task.made);
    let id = &job.pipeline.stages[task.stage].id;
    let files = job.pipeline.files(task.stage).map_err(PlanError::from)?;
    let manifest = shop.reader(task.stage, &task.inputs, &files).manifest()?;
    if manifest.key() != task.key {
        return Err(RunError::Changed { stage: id.clone() });
    }
    let folder = shop.run_folder();
    let folder = std::fs::canonicalize(&folder).unwrap_or(folder);
    let work = Work {
        shop,
        index: task.stage,
        artefacts: &task.inputs,
        files: &files,
        manifest: &manifest,
        folder: &folder,
        sink: &ToRun,
        note: task.note.as_deref(),
    };
    let obtained = work.obtain(&mut || Ok(()));
    job.store.save_digests();
    memory::give_back();
    obtained
}

/// Sends the events of a worker to the process of the run.
pub struct ToRun;

impl Sink for ToRun {
    fn event(&self, event: &Event) {
        say(&Answer::Event(event.clone()));
    }
}

/// A process that nobody hears ends when its stdin does.
fn say(answer: &Answer) {
    let mut line = serde_json::to_vec(answer).expect("answers hold only what JSON can say");
    line.push(b'\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}
