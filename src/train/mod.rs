//! What every training needs, whatever its method.

mod settings;
pub mod watch;

pub use settings::TrainingSettings;
