//! Readers of events: bars, plain lines, JSON. The only place that prints while stages run.
//!
//! Messages go to stderr, so that stdout is free for data; JSON is data.

mod alone;
mod bars;
mod json;
mod link;
mod plain;
mod words;

use std::io::IsTerminal;
use std::sync::Arc;

use crate::run::Sink;

pub use alone::Alone;
pub use bars::Bars;
pub use json::Json;
pub use link::linked;
pub use plain::Plain;

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Bars on a terminal, else plain lines.
    #[default]
    Auto,
    /// Bars, redrawn in place.
    Bars,
    /// Lines, for logs.
    Plain,
    /// One event per line on stdout.
    Json,
}

impl Style {
    /// The reader of this style, on the streams of this process.
    pub fn open(self) -> Arc<dyn Sink> {
        match self {
            Self::Auto if std::io::stderr().is_terminal() => Self::Bars.open(),
            Self::Auto | Self::Plain => Arc::new(Plain::new(std::io::stderr())),
            Self::Bars => Arc::new(Bars::new()),
            Self::Json => Arc::new(Json::new(std::io::stdout())),
        }
    }
}
