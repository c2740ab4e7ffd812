//! Resolved pipelines of the small stages in [`crate::config::testing`].

use super::ResolvedPipeline;
use crate::config::{ConfigError, testing};

/// A pipeline with stages that some axes of a sweep reach and others do not.
pub(super) const SWEPT: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: m, use: load, with: { model: nano } }
  - { id: first, use: select, with: { model: m } }
  - { id: second, use: select, with: { model: m, after: first } }
  - { id: e, use: evaluate, with: { models: { model: m } } }
";

pub(super) fn resolve(text: &str) -> Result<ResolvedPipeline, ConfigError> {
    resolve_with(text, &[])
}

pub(super) fn resolve_with(text: &str, overrides: &[&str]) -> Result<ResolvedPipeline, ConfigError> {
    ResolvedPipeline::new(testing::file(text, overrides)?)
}
