//! Errors of pipeline and settings files. Every error underlines its place.

use std::fmt;
use std::path::PathBuf;

use miette::{Diagnostic, LabeledSpan, SourceCode, SourceSpan};

use super::source_text::{Place, SourceText};
use crate::base::{ArtefactKind, FileError, names, shown, units};
use crate::model::files::hub::HubError;

/// An error and its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.kind)]
pub struct ConfigError(Box<Located>);

#[derive(Debug)]
struct Located {
    kind: ConfigErrorKind,
    source: Option<(SourceText, SourceSpan)>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum ConfigErrorKind {
    #[error("cannot read the pipeline file {0}")]
    #[diagnostic(code(pipeline::unreadable), help("the first argument is the path of a pipeline file"))]
    Unreadable(FileError),

    #[error("{} holds no pipeline", path.display())]
    #[diagnostic(
        code(yaml::empty),
        help("a pipeline file begins with `format: 1` and `name: ...`, and has `stages:`")
    )]
    Empty { path: PathBuf },

    #[error("{} is larger than {}", path.display(), units::bytes(*limit))]
    #[diagnostic(code(yaml::too_large), help("give a YAML file of at most {limit} bytes"))]
    TooLarge { path: PathBuf, limit: u64 },

    #[error("{} is not a text file in UTF-8: it has zero bytes, or the byte order mark of UTF-16", path.display())]
    #[diagnostic(code(yaml::not_text), help("if it is YAML in UTF-16, save it as UTF-8"))]
    NotText { path: PathBuf },

    #[error("the file is not UTF-8: it has the byte {byte:#04x} in line {line}, column {column}")]
    #[diagnostic(
        code(yaml::not_utf8),
        help("save the file as UTF-8; if it is Latin-1, this byte is `{}`", shown::line(&char::from(*byte).to_string()))
    )]
    NotUtf8 { byte: u8, line: usize, column: usize },

    #[error("lists and mappings are nested more than {deepest} deep")]
    #[diagnostic(
        code(yaml::too_deep),
        help("no parameter needs such nesting: look for a bracket that is not closed")
    )]
    TooDeep { deepest: usize },

    #[error("the file holds more than one YAML document")]
    #[diagnostic(code(yaml::documents), help("keep one; a line `---` begins the next"))]
    Documents,

    #[error("the aliases of the file (`*name`) stand for too many values")]
    #[diagnostic(code(yaml::aliases), help("write the values out"))]
    Aliases,

    #[error("the file is not YAML: {message}")]
    #[diagnostic(code(pipeline::syntax), help("{}", syntax_help(message)))]
    Syntax { message: String },

    #[error("the key `{key}` is given twice")]
    #[diagnostic(code(pipeline::duplicate_key), help("keep one; the first is in line {first_line}"))]
    DuplicateKey { key: String, first_line: usize },

    #[error("unknown key `{key}` in {within}")]
    #[diagnostic(code(pipeline::unknown_key), help("{}", names::help(key, known)))]
    UnknownKey { key: String, within: String, known: Vec<String> },

    #[error("`{key}` in {within} is now called `{new}`")]
    #[diagnostic(code(pipeline::renamed_key), help("{}", renamed_help(new)))]
    RenamedKey { key: String, within: String, new: &'static str },

    #[error("{within} needs the key `{key}`")]
    #[diagnostic(code(pipeline::missing_key), help("add `{key}: ...` here"))]
    MissingKey { key: String, within: String },

    #[error("{within}: unknown value `{found}`")]
    #[diagnostic(code(pipeline::unknown_value), help("{}", names::help(found, known)))]
    UnknownValue { found: String, within: String, known: Vec<String> },

    #[error("{within}: found {found} where {needed} is needed")]
    #[diagnostic(code(pipeline::wrong_type))]
    WrongType {
        found: String,
        needed: String,
        within: String,
        #[help]
        help: Option<String>,
    },

    #[error("{within} is null")]
    #[diagnostic(code(pipeline::null), help("leave the key out for its default, or write '' for empty text"))]
    Null { within: String },

    #[error("{within}: {message}")]
    #[diagnostic(code(pipeline::bad_value))]
    BadValue {
        message: String,
        within: String,
        #[help]
        help: Option<String>,
    },

    #[error("format {found} is unknown; this program reads format {known}")]
    #[diagnostic(code(pipeline::format), help("write `format: {known}`, or use a newer laptop-diff"))]
    Format { found: u64, known: u64 },

    #[error("`{found}` cannot be a {what}")]
    #[diagnostic(
        code(pipeline::name),
        help(
            "it becomes a folder's name: ASCII letters, digits, `-` and `_`, a letter or digit first, at most 64"
        )
    )]
    Name { found: String, what: &'static str },

    #[error("the pipeline has no stages")]
    #[diagnostic(code(pipeline::empty), help("`laptop-diff list stages` shows which stages there are"))]
    NoStages,

    #[error("two stages have the id `{id}`")]
    #[diagnostic(code(pipeline::duplicate_id), help("the first is in line {first_line}; ids must differ"))]
    DuplicateId { id: String, first_line: usize },

    #[error("unknown stage `{name}`")]
    #[diagnostic(code(pipeline::unknown_stage), help("{}", names::help(name, known)))]
    UnknownStage { name: String, known: Vec<String> },

    #[error("`with` stands before `use`")]
    #[diagnostic(
        code(pipeline::with_before_use),
        help("put the line `use: ...` first: it says how to read `with`")
    )]
    WithBeforeUse,

    #[error("`{parameter}` of `{stage}` refers to the stage `{found}`, which does not exist")]
    #[diagnostic(code(pipeline::unknown_id), help("{}", names::help(found, known)))]
    UnknownId { stage: String, parameter: String, found: String, known: Vec<String> },

    #[error(
        "`{parameter}` of `{stage}` needs a {} artefact, but `{found}` (use: {name}) makes a {made} artefact",
        kinds(needed)
    )]
    #[diagnostic(code(pipeline::wrong_kind), help("{}", kind_help(needed, fitting)))]
    WrongKind {
        stage: String,
        parameter: String,
        needed: &'static [ArtefactKind],
        found: Box<str>,
        name: Box<str>,
        made: ArtefactKind,
        fitting: Box<[String]>,
    },

    #[error("the stages depend on each other in a cycle: {path}")]
    #[diagnostic(code(pipeline::cycle), help("change one of these references to a stage outside the cycle"))]
    Cycle { path: String },

    #[error("`{parameter}` of `{stage}`: {} does not exist", path.display())]
    #[diagnostic(code(pipeline::missing_file), help("paths are relative to the folder of the pipeline file, {}", folder.display()))]
    MissingFile { stage: String, parameter: String, path: PathBuf, folder: PathBuf },

    #[error(transparent)]
    #[diagnostic(transparent)]
    Hub(Box<HubError>),

    #[error("{message}")]
    #[diagnostic(code(pipeline::sweep), help("{help}"))]
    Sweep { message: String, help: String },

    #[error("the sweep has {count} combinations of values; at most {most} can be planned")]
    #[diagnostic(
        code(pipeline::sweep_too_large),
        help(
            "shorten the lists, or give parts of them one after the other with --over; a cached stage is not run again"
        )
    )]
    TooManyCombinations { count: u128, most: usize },

    #[error("{kind}, with {combination}")]
    #[diagnostic(code(pipeline::combination), help("{}", combination_help(kind)))]
    Combination { combination: String, kind: Box<ConfigErrorKind> },

    #[error("`{given}`: {message}")]
    #[diagnostic(code(pipeline::set), help("{help}"))]
    Override { given: String, message: String, help: String },

    #[error("unknown setting `{key}` in {file}")]
    #[diagnostic(code(settings::unknown_key), help("{}", names::help(key, known)))]
    UnknownSetting { key: String, file: String, known: Vec<String> },

    #[error("{message}")]
    #[diagnostic(code(settings::bad_value), help("`laptop-diff schema settings` describes every setting"))]
    BadSetting { message: String },
}

impl ConfigError {
    /// `kind` at `place` of `source`.
    pub fn at(kind: ConfigErrorKind, source: &SourceText, place: &Place) -> Self {
        Self::spanned(kind, source, source.span(place))
    }

    pub(super) fn spanned(kind: ConfigErrorKind, source: &SourceText, span: SourceSpan) -> Self {
        Self(Box::new(Located { kind, source: Some((source.clone(), span)) }))
    }

    /// The same place with another error.
    pub(super) fn map(mut self, tell: impl FnOnce(ConfigErrorKind) -> ConfigErrorKind) -> Self {
        self.0.kind = tell(self.0.kind);
        self
    }

    /// The same problem, without the text that it is in.
    pub(super) fn without_source(mut self) -> Self {
        self.0.source = None;
        self
    }

    /// The same problem, at a place of another text.
    pub(super) fn moved(mut self, source: &SourceText, place: &Place) -> Self {
        self.0.source = Some((source.clone(), source.span(place)));
        self
    }

    /// What is wrong.
    pub fn kind(&self) -> &ConfigErrorKind {
        &self.0.kind
    }

    /// Line and column, from 1, where the problem has a place in a file.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.0.source.as_ref().map(|(source, span)| source.line_column(span.offset()))
    }
}

impl From<ConfigErrorKind> for ConfigError {
    fn from(kind: ConfigErrorKind) -> Self {
        Self(Box::new(Located { kind, source: None }))
    }
}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.kind.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.kind.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source.as_ref().map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span) = self.0.source.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), *span))))
    }
}

fn combination_help(kind: &ConfigErrorKind) -> String {
    kind.help().map_or("leave this value out of `sweep`".to_owned(), |help| help.to_string())
}

impl ConfigErrorKind {
    /// A `sweep:` that cannot be read.
    pub(super) fn sweep(message: String) -> Self {
        let help =
            "name a parameter and its values, each once: `selection.ratio: [0.3, 0.5]`, or `seed: [1, 2]`";
        Self::Sweep { message, help: help.to_owned() }
    }
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("unknown anchor") {
        "an alias `*name` needs the anchor `&name` before it; text that begins with * needs quotes"
    } else if message.contains("control characters") {
        "delete this character, or write it inside double quotes, as \"\\e\" or \"\\u001b\""
    } else if message.contains("cannot start any token") || message.contains("tab character") {
        "YAML is indented with spaces, never with tabs; text that begins with one of @ ` % needs quotes"
    } else {
        "look at the indentation and at unclosed quotes and brackets, here and in the line above; \
         text that holds `: ` or ` #` needs quotes"
    }
}

fn kinds(needed: &[ArtefactKind]) -> String {
    needed.iter().map(ArtefactKind::to_string).collect::<Vec<_>>().join(" or ")
}

fn kind_help(needed: &[ArtefactKind], fitting: &[String]) -> String {
    let needed = kinds(needed);
    match fitting {
        [] => format!(
            "no stage of this pipeline makes a {needed} artefact; `laptop-diff list stages` shows which can"
        ),
        names => format!("a {needed} artefact is made by {}", names::list(names)),
    }
}

/// What to write instead.
fn renamed_help(new: &str) -> String {
    match new.rsplit_once('.') {
        Some((block, key)) => format!("write `{block}: {{ {key}: ... }}`; with --set it is `ID.{new}=...`"),
        None => format!("write `{new}: ...`"),
    }
}
