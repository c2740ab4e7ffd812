//! The DAG of a pipeline, the key of every stage, and why a stage would run.
