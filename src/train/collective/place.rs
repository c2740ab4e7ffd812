//! Which rank this process is: from the environment that `srun`, `mpirun` or `torchrun` gives to each process.

use super::CollectiveError;

/// A row for each launcher: the variables that it sets.
struct Launcher {
    name: &'static str,
    rank: &'static str,
    size: &'static str,
    /// The number among the processes of this machine.
    local_rank: &'static str,
    /// The number of processes on this machine. Slurm writes `2` if all machines are alike, `2(x3)` for three of them.
    local_size: &'static str,
    /// What distinguishes this start from others.
    id: &'static [&'static str],
}

/// The innermost launcher comes first: `mpirun` inside of a Slurm job starts its own processes by `srun`, and these have
/// the variables of both. `SLURM_NTASKS` is not used, because a batch script has it too, in which one process runs.
const LAUNCHERS: [Launcher; 4] = [
    Launcher {
        name: "mpirun",
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
        id: &["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"],
    },
    Launcher {
        name: "mpiexec",
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_size: "MPI_LOCALNRANKS",
        id: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
    },
    Launcher {
        name: "torchrun",
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_size: "LOCAL_WORLD_SIZE",
        id: &["MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"],
    },
    Launcher {
        name: "srun",
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
        local_rank: "SLURM_LOCALID",
        local_size: "SLURM_STEP_TASKS_PER_NODE",
        id: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
    },
];

/// One process among those that train together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Its number among the processes of its machine, which chooses the GPU.
    pub local_rank: usize,
    /// Whether all of them run on one machine.
    pub one_machine: bool,
    /// Who started it.
    pub launcher: &'static str,
    /// Where rank 0 listens, if the launcher says so.
    pub address: Option<(String, u16)>,
    /// Distinguishes this start from others.
    pub(super) id: String,
}

impl Place {
    /// Reads the environment. `None` if no launcher started this process, or it started only one.
    pub fn find(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, CollectiveError> {
        let is_complete =
            |launcher: &&Launcher| [launcher.rank, launcher.size].iter().all(|name| variable(name).is_some());
        let Some(launcher) = LAUNCHERS.iter().find(is_complete) else { return Ok(None) };
        let number = |name: &str, from: usize, to: usize| match variable(name) {
            None => Ok(None),
            Some(found) => match found.trim().parse() {
                Ok(number) if (from..to).contains(&number) => Ok(Some(number)),
                _ => {
                    let needed = format!("a whole number from {from} to {}", to - 1);
                    Err(CollectiveError::Environment { variable: name.to_owned(), found, needed })
                }
            },
        };
        let size = number(launcher.size, 1, 100_000)?.unwrap_or(1);
        if size == 1 {
            return Ok(None);
        }
        let address = match (variable("MASTER_ADDR"), number("MASTER_PORT", 1, 65_536)?) {
            (Some(host), Some(port)) if launcher.name == "torchrun" => Some((host, port as u16)),
            _ => None,
        };
        let id = launcher.id.iter().map(|name| variable(name).unwrap_or_default());
        Ok(Some(Self {
            rank: number(launcher.rank, 0, size)?.unwrap_or(0),
            size,
            local_rank: number(launcher.local_rank, 0, size)?.unwrap_or(0),
            one_machine: variable(launcher.local_size).is_some_and(|local| local.trim() == size.to_string()),
            launcher: launcher.name,
            address,
            id: id.collect::<Vec<_>>().join("\0"),
        }))
    }

    /// Rank 0 of `size` processes on this machine; it listens at this port of the loopback.
    pub fn first_of(size: usize, port: u16) -> Self {
        let own = variables(0, size, port);
        let variable = |name: &str| own.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        Self::find(&variable).expect("its variables are numbers").expect("there are several ranks")
    }

    /// The environment of another rank that this first one starts on its machine.
    pub fn variables_of(&self, rank: usize) -> Vec<(&'static str, String)> {
        let port = self.address.as_ref().map_or(0, |(_, port)| *port);
        variables(rank, self.size, port)
    }

    /// How many processes share the cores of this machine, without a launcher that divides them.
    pub fn sharing(&self) -> usize {
        if self.launcher == "torchrun" && self.one_machine { self.size } else { 1 }
    }

    /// The variables of all launchers, which a child must not inherit.
    pub fn all_variables() -> impl Iterator<Item = &'static str> {
        let names = |launcher: &Launcher| {
            let Launcher { rank, size, local_rank, local_size, .. } = *launcher;
            [rank, size, local_rank, local_size]
        };
        LAUNCHERS.iter().flat_map(names).chain(["TORCHELASTIC_RUN_ID"])
    }
}

/// What torchrun would set for processes of one machine.
fn variables(rank: usize, size: usize, port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("RANK", rank.to_string()),
        ("WORLD_SIZE", size.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("LOCAL_WORLD_SIZE", size.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &str) -> Result<Option<Place>, CollectiveError> {
        let pairs: Vec<_> = variables.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Place::find(&|name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()))
    }

    #[test]
    fn each_launcher_is_understood() -> Result<(), CollectiveError> {
        let srun = "SLURM_PROCID=2 SLURM_STEP_NUM_TASKS=4 SLURM_LOCALID=0 SLURM_JOB_ID=7 SLURM_STEP_ID=0 ";
        for (variables, expected) in [
            (format!("{srun} SLURM_STEP_TASKS_PER_NODE=2(x2)"), (2, 4, 0, false, "srun")),
            (format!("{srun} SLURM_STEP_TASKS_PER_NODE=4"), (2, 4, 0, true, "srun")),
            (
                format!(
                    "{srun} OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 \
                     OMPI_COMM_WORLD_LOCAL_SIZE=2"
                ),
                (1, 2, 1, true, "mpirun"),
            ),
            (
                "PMI_RANK=0 PMI_SIZE=3 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=1".to_owned(),
                (0, 3, 0, false, "mpiexec"),
            ),
            ("RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2".to_owned(), (1, 2, 1, true, "torchrun")),
        ] {
            let place = found(&variables)?.expect("there are several ranks");
            let Place { rank, size, local_rank, one_machine, launcher, .. } = place;
            assert_eq!((rank, size, local_rank, one_machine, launcher), expected, "{variables}");
        }
        Ok(())
    }

    #[test]
    fn a_batch_script_and_a_single_process_are_alone() -> Result<(), CollectiveError> {
        for variables in [
            "",
            "SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_JOB_ID=7",
            "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1",
            "RANK=3",
            "MASTER_ADDR=n1 MASTER_PORT=none",
        ] {
            assert_eq!(found(variables)?, None, "{variables}");
        }
        Ok(())
    }

    #[test]
    fn an_address_is_that_of_torchrun() -> Result<(), CollectiveError> {
        let place = found("RANK=1 WORLD_SIZE=2 MASTER_ADDR=n1 MASTER_PORT=29500")?.expect("two ranks");
        assert_eq!(place.address, Some(("n1".to_owned(), 29500)));
        assert!(!place.one_machine);
        let own = Place::first_of(3, 4000);
        assert_eq!((own.rank, own.size, own.one_machine), (0, 3, true));
        assert_eq!(own.address, Some(("127.0.0.1".to_owned(), 4000)));
        Ok(())
    }

    #[test]
    fn a_wrong_number_is_named() {
        for (variables, words) in [
            ("RANK=2 WORLD_SIZE=2", "`RANK` is `2`; a whole number from 0 to 1"),
            ("RANK=0 WORLD_SIZE=two", "`WORLD_SIZE` is `two`"),
            ("RANK=0 WORLD_SIZE=2 MASTER_PORT=0", "`MASTER_PORT` is `0`"),
        ] {
            let error = found(variables).expect_err(variables).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
