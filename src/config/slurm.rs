//! What jobs ask of Slurm: the settings `slurm:`, for all stages and for each kind of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::base::units::Bytes;
use crate::base::{Whole, names, parsed};
use crate::stage::STAGES;

/// The name of what holds for all stages.
const DEFAULT: &str = "default";

/// The name of the job that finishes a run.
pub const FINISH: &str = "finish";

/// CPU cores of a process; no machine has more.
pub type Cores = Whole<1, 4096>;

/// GPUs of a machine.
pub type Gpus = Whole<0, 64>;

/// Machines of a job.
pub type Nodes = Whole<1, 10_000>;

/// Processes of a job.
pub type Ranks = Whole<1, 1024>;

/// Branches of a sweep.
pub type Branches = Whole<1, 1_000_000>;

/// By `default`, `finish` or the `use:` name of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SlurmSettings(BTreeMap<Kind, Resources>);

/// `default`, `finish`, or the `use:` name of a stage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
struct Kind(String);

/// What a job asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Resources {
    /// Partition, or several with commas. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Word>,
    /// Account that the time is charged to. Default: the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Word>,
    /// Time limit, as Slurm writes it: `8:00:00`, `2-00:00:00`. A job that needs longer goes on in a next turn. Default: the
    /// partition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub time: Option<TimeLimit>,
    /// GPUs on each machine. Under `default` it holds for the stages that compute. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// CPU cores of each process, which also sets `threads`. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cores>,
    /// Memory on each machine, such as `64 GB`. Default: the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9.]+ *([kKMGT]i?)?B$"))]
    pub memory: Option<Bytes>,
    /// Machines. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// Processes that train together, over all machines: one per GPU. Only `distill` uses more than one. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Ranks>,
    /// Branches of a sweep that run at once. Default: as many as the cluster lets run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branches_at_once: Option<Branches>,
    /// Lines for the script of the job: `#SBATCH --qos=high`, `module load cuda`. Those of a kind follow those of `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<String>>,
}

impl SlurmSettings {
    /// What holds for all stages.
    pub fn default_resources(&self) -> Resources {
        self.of(DEFAULT)
    }

    /// What was written for one kind of job only.
    pub fn of(&self, stage: &str) -> Resources {
        self.0.iter().find(|(kind, _)| kind.0 == stage).map(|(_, found)| found.clone()).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "`default`, `finish` or the name of a kind of stage")
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut known: Vec<String> = STAGES.iter().map(|stage| stage.name.to_owned()).collect();
        known.splice(..0, [DEFAULT, FINISH].map(str::to_owned));
        match known.iter().any(|name| name == text) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("`{text}` is no kind of stage; {}", names::help(text, &known))),
        }
    }
}

impl JsonSchema for Kind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Kind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names = [DEFAULT, FINISH].into_iter().chain(STAGES.iter().map(|stage| stage.name));
        schemars::json_schema!({ "enum": names.collect::<Vec<_>>() })
    }
}

/// A name as Slurm takes it: no white space, so that it cannot begin another option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Word(#[schemars(regex(pattern = r"^[^\s]+$"))] String);

impl Word {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
        match !text.is_empty() && text.chars().all(is_plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("`{text}` is not a name; write it without blanks and quotes")),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "a name")
    }
}

/// A time limit in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct TimeLimit(u64);

impl TimeLimit {
    /// Its seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

/// What Slurm's manual lists for `--time`: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes,
/// days-hours:minutes:seconds.
impl FromStr for TimeLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a time limit; write 8:00:00 for hours or 2-00:00:00 for days");
        let number = |part: &str| match part.len() {
            1..=6 => part.parse::<u32>().map(u64::from).map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        let (days, rest) = match text.trim().split_once('-') {
            Some((days, rest)) => (Some(number(days)?), rest),
            None => (None, text.trim()),
        };
        let parts = rest.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        let seconds = match (days, &parts[..]) {
            (None, [minutes]) => minutes * 60,
            (None, [minutes, seconds]) => minutes * 60 + seconds,
            (Some(days), [hours]) => (days * 24 + hours) * 3600,
            (Some(days), [hours, minutes]) => ((days * 24 + hours) * 60 + minutes) * 60,
            (days, [hours, minutes, seconds]) => {
                ((days.unwrap_or(0) * 24 + hours) * 60 + minutes) * 60 + seconds
            }
            _ => return Err(wrong()),
        };
        if seconds == 0 { Err(wrong()) } else { Ok(Self(seconds)) }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        write!(f, "{days}-{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

impl From<TimeLimit> for String {
    fn from(limit: TimeLimit) -> Self {
        limit.to_string()
    }
}

impl<'de> Deserialize<'de> for TimeLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "a time limit such as 8:00:00")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (text, expected) in [
            ("90", "0-01:30:00"),
            ("90:30", "0-01:30:30"),
            ("8:00:00", "0-08:00:00"),
            ("2-12", "2-12:00:00"),
            ("2-12:30", "2-12:30:00"),
            ("1-00:00:01", "1-00:00:01"),
            ("48:00:00", "2-00:00:00"),
        ] {
            let limit: TimeLimit = text.parse().expect(text);
            assert_eq!(limit.to_string(), expected, "{text}");
            assert_eq!(limit.to_string().parse(), Ok(limit), "it is read back");
        }
        for wrong in ["", "0", "8h", "1:2:3:4", "1-", "-1", "1-1:1:1:1", "99999999999999999999"] {
            assert!(wrong.parse::<TimeLimit>().is_err_and(|error| error.contains("8:00:00")), "{wrong}");
        }
    }

    #[test]
    fn a_kind_adds_to_what_holds_for_all() -> Result<(), serde_yaml::Error> {
        let text =
            "default: { partition: gpu, time: '8:00:00', memory: 32 GB }\ndistill: { gpus: 4, ranks: 4 }\n";
        let settings: SlurmSettings = serde_yaml::from_str(text)?;
        assert_eq!(settings.default_resources().partition.as_ref().map(Word::as_str), Some("gpu"));
        assert_eq!(settings.of("distill").ranks.map(Whole::get), Some(4));
        assert_eq!(settings.of("score"), Resources::default());
        for (text, word) in [
            ("distil: {}", "did you mean `distill`"),
            ("default: { partition: a b }", "`a b` is not a name"),
            ("default: { partition: '' }", "not a name"),
            ("default: { gpu: 1 }", "unknown field `gpu`"),
            ("default: { time: soon }", "`soon` is not a time limit"),
        ] {
            let error = serde_yaml::from_str::<SlurmSettings>(text).expect_err(text).to_string();
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
        Ok(())
    }
}
