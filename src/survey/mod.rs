//! What of a model works here, part by part: the one place that opens every part of what a user brings. `load` refuses
//! what is refused here, before hours of work; `inspect` shows it.

mod directory;
mod error;
mod file;
mod fit;
mod parts;

use serde::Serialize;

use crate::model::Part;

pub use directory::{model_files, open, survey_directory};
pub use error::SurveyError;
pub use file::survey_file;

/// The parts of a model, in the order of [`Part::ALL`], and what nothing reads.
#[derive(Debug)]
pub struct Survey {
    /// Every part and its state.
    pub parts: Vec<(Part, State)>,
    /// Whole sentences on what is in the model but not read.
    pub notes: Vec<String>,
}

/// Whether a part can be used.
#[derive(Debug)]
pub enum State {
    /// It can.
    Usable,
    /// The model has none; stages that need one refuse the model.
    Absent,
    /// It is there, but it cannot be used or does not fit the other parts.
    Refused(Box<SurveyError>),
}

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Configurations and the headers of weights.
    Headers,
    /// Every weight too, which must be finite.
    Weights,
}

/// A part as `inspect` shows it.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its folder in a pipeline.
    pub part: &'static str,
    /// `usable`, `absent` or `refused`.
    pub state: &'static str,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Survey {
    /// The survey, or the first refusal.
    pub fn or_refusal(self) -> Result<Self, SurveyError> {
        Part::ALL.into_iter().try_fold(self, Self::or_refusal_of)
    }

    /// The survey, or the refusal of one part.
    pub fn or_refusal_of(self, part: Part) -> Result<Self, SurveyError> {
        let Self { mut parts, notes } = self;
        let place =
            parts.iter().position(|(found, state)| *found == part && matches!(state, State::Refused(_)));
        match place.map(|place| parts.remove(place).1) {
            Some(State::Refused(error)) => Err(*error),
            _ => Ok(Self { parts, notes }),
        }
    }

    /// The parts as `inspect` shows them.
    pub fn rows(&self) -> Vec<Row> {
        let row = |(part, state): &(Part, State)| {
            let (state, reason) = match state {
                State::Usable => ("usable", None),
                State::Absent => ("absent", None),
                State::Refused(error) => ("refused", Some(error.to_string())),
            };
            Row { part: part.folder(), state, reason }
        };
        self.parts.iter().map(row).collect()
    }

    /// Sets the state of a part that was usable so far.
    fn refuse(&mut self, part: Part, error: SurveyError) {
        for (found, state) in &mut self.parts {
            if *found == part && matches!(state, State::Usable) {
                *state = State::Refused(Box::new(error));
                return;
            }
        }
    }

    fn is_refused(&self, part: Part) -> bool {
        self.parts.iter().any(|(found, state)| *found == part && matches!(state, State::Refused(_)))
    }

    /// Whether a part is there and can be used.
    pub fn is_usable(&self, part: Part) -> bool {
        self.parts.iter().any(|(found, state)| *found == part && matches!(state, State::Usable))
    }
}
