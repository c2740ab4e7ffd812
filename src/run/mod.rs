//! Executes a plan: states, events, the record of a run.
