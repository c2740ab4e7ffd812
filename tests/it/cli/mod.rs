//! The real program, as users run it: commands, files, exit codes and messages.

mod browser;
#[cfg(feature = "remote")]
mod bucket;
mod checks;
mod damage;
mod doctor;
mod errors;
mod fetching;
mod gates;
mod generate;
#[cfg(unix)]
mod gpu_script;
mod handover;
#[cfg(target_os = "linux")]
mod hard_conditions;
mod hostile;
mod housekeeping;
mod kept_parts;
mod limits;
mod load;
mod lora;
mod overflow;
mod ownership;
mod ranks;
mod remote;
mod schedules;
mod schemas;
mod settings;
mod side_by_side;
mod slurm;
mod sweep;
mod tracking;
mod training;
