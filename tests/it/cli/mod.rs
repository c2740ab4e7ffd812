//! The real program, as users run it: commands, files, exit codes and messages.

mod checks;
mod damage;
mod doctor;
mod errors;
mod generate;
mod handover;
mod hostile;
mod limits;
mod load;
mod lora;
mod overflow;
mod ownership;
mod ranks;
mod schedules;
mod schemas;
mod settings;
mod sweep;
mod training;
