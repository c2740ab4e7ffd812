//! Several processes for one run: found from what a launcher says, or started here by `--ranks`.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode as ProcessExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::CliError;
use super::options;
use crate::base::{Interrupt, Whole, child};
use crate::config::Settings;
use crate::run::{self, ExitCode};
use crate::stage::Task;
use crate::train::collective::{Collective, CollectiveError, Place, TcpGroup, Timing, gather, tell};

/// A number of processes on one machine.
pub(super) type Ranks = Whole<1, 1024>;

/// How long a process may take to end after rank 0 said so.
const PATIENCE: Duration = Duration::from_secs(30);

/// The place of this process among several, before they are connected.
pub(super) struct Start {
    place: Place,
    /// Where rank 0 of `--ranks` listens.
    listener: Option<TcpListener>,
}

impl Start {
    /// `None` if this process works alone.
    pub(super) fn find(asked: Option<Ranks>) -> Result<Option<Self>, CollectiveError> {
        let asked = asked.map(Whole::get);
        let place = Place::find(&|name| env::var(name).ok())?;
        match (place, asked) {
            // The processes of `--ranks` have the same arguments as the first.
            (Some(Place { size, launcher, .. }), Some(asked)) if asked != size => {
                Err(CollectiveError::Twice { asked, launcher, size })
            }
            (Some(place), _) => Ok(Some(Self { place, listener: None })),
            (None, None | Some(1)) => Ok(None),
            (None, Some(size)) => {
                let system =
                    |source| CollectiveError::System { action: "listening for the other ranks", source };
                let listener = TcpListener::bind("127.0.0.1:0").map_err(system)?;
                let port = listener.local_addr().map_err(system)?.port();
                Ok(Some(Self { place: Place::first_of(size, port), listener: Some(listener) }))
            }
        }
    }

    /// Connects the ranks. Rank 0 does `lead` and tells the others how it ended; they follow it until then.
    pub(super) fn lead_or_follow(
        self,
        mut settings: Settings,
        lead: impl FnOnce(&Settings, &Arc<Interrupt>, &TcpGroup) -> Result<(), CliError>,
    ) -> Result<ProcessExitCode, CliError> {
        options::start(&settings, self.place.sharing())?;
        settings.device = settings.device.of_process(self.place.local_rank);
        let interrupt = run::signals::listen();
        let crew = self.gather(&settings, &interrupt)?;
        if crew.ranks.rank() > 0 {
            return Ok(run::follow(&crew.ranks, settings.device, &interrupt)?.into());
        }
        let ended = lead(&settings, &interrupt, &crew.ranks);
        crew.end(ended.as_ref().map_or_else(CliError::exit_code, |()| ExitCode::Done));
        ended.map(|()| ExitCode::Done.into())
    }

    /// Starts the other processes if nobody else did, and connects all of them.
    fn gather(self, settings: &Settings, interrupt: &Interrupt) -> Result<Crew, CliError> {
        let mut children = Children { processes: Vec::new(), patience: Duration::ZERO };
        if self.listener.is_some() {
            for rank in 1..self.place.size {
                children.start(rank, &self.place)?;
            }
        }
        let mut watch = || {
            interrupt.check()?;
            children.check()
        };
        let ranks = gather(&self.place, &settings.runs, self.listener, Timing::default(), &mut watch)?;
        children.patience = PATIENCE;
        Ok(Crew { ranks, _children: children })
    }
}

/// The connected ranks. The connections close before the processes of `--ranks` are waited for.
struct Crew {
    ranks: TcpGroup,
    _children: Children,
}

impl Crew {
    /// Tells the other ranks that the run ended; called by rank 0.
    fn end(self, code: ExitCode) {
        // A rank that is gone has its own exit code.
        let _ = tell(&self.ranks, &Task::End(code.number()));
    }
}

/// The processes of `--ranks`, by rank from 1.
struct Children {
    processes: Vec<Child>,
    /// How long they may take to end by themselves.
    patience: Duration,
}

impl Children {
    /// Starts the command of this process once more. Its messages go to stderr too; data is printed by rank 0 alone.
    fn start(&mut self, rank: usize, first: &Place) -> Result<(), CollectiveError> {
        let start = || {
            let mut command = Command::new(env::current_exe()?);
            command.args(env::args_os().skip(1)).stdin(Stdio::null()).stdout(Stdio::null());
            for name in Place::all_variables() {
                command.env_remove(name);
            }
            command.envs(first.variables_of(rank));
            command.spawn()
        };
        let system = |source| CollectiveError::System { action: "starting another process", source };
        self.processes.push(start().map_err(system)?);
        Ok(())
    }

    /// Fails if one of them ended.
    fn check(&mut self) -> Result<(), CollectiveError> {
        for (rank, child) in (1..).zip(&mut self.processes) {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(CollectiveError::Ended { rank, status: status.to_string() });
            }
        }
        Ok(())
    }
}

/// None of them outlives rank 0.
impl Drop for Children {
    fn drop(&mut self) {
        let until = Instant::now() + self.patience;
        for child in &mut self.processes {
            let _ = child::end(child, until);
        }
    }
}
