//! An MLflow server: what it is asked, and what is known of a run there after a crash.

mod client;
mod http;
mod picture;
mod run;

pub(super) use client::Client;
pub(super) use picture::Picture;
pub(super) use run::{Owner, Run};
