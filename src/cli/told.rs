//! Errors on stderr. Every text of an error can come from a file, so all of them are escaped here, in one place.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, ReportHandler, SourceCode};

use crate::base::shown;

/// Writes an error with its code, causes, help and place to stderr. If nobody reads stderr, there is nothing to do: the
/// exit code tells the rest.
pub(super) fn tell(error: &dyn Diagnostic) {
    let page = Page(Told::of(error)).to_string();
    let _ = writeln!(io::stderr(), "{page}");
}

struct Page<'a>(Told<'a>);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MietteHandlerOpts::new().build().debug(&self.0, f)
    }
}

/// An error in escaped words. Its source text is safe to show as it is: [`crate::config::SourceText`] sees to that.
struct Told<'a> {
    original: &'a dyn Diagnostic,
    words: Words,
    related: Vec<Told<'a>>,
}

/// The words of an error and of its causes.
#[derive(Debug)]
struct Words {
    message: String,
    code: Option<String>,
    help: Option<String>,
    cause: Option<Box<Words>>,
    /// Whether the cause has a code and help, and is shown as an error of its own.
    cause_is_diagnostic: bool,
}

impl<'a> Told<'a> {
    fn of(original: &'a dyn Diagnostic) -> Self {
        let related = original.related().into_iter().flatten().map(Told::of).collect();
        Self { original, words: Words::of(original), related }
    }
}

impl Words {
    fn of(error: &dyn Diagnostic) -> Self {
        let escaped = |text: Box<dyn fmt::Display + '_>| shown::message(&text.to_string());
        let inner = error.diagnostic_source();
        let cause = inner.map(Self::of).or_else(|| error.source().map(Self::of_error));
        Self {
            message: shown::message(&error.to_string()),
            code: error.code().map(escaped),
            help: error.help().map(escaped),
            cause: cause.map(Box::new),
            cause_is_diagnostic: inner.is_some(),
        }
    }

    fn of_error(error: &dyn Error) -> Self {
        Self {
            message: shown::message(&error.to_string()),
            code: None,
            help: None,
            cause: error.source().map(Self::of_error).map(Box::new),
            cause_is_diagnostic: false,
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Words {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl Diagnostic for Words {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.code.as_ref().map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn diagnostic_source(&self) -> Option<&dyn Diagnostic> {
        let cause = self.cause.as_deref().filter(|_| self.cause_is_diagnostic);
        cause.map(|cause| cause as &dyn Diagnostic)
    }
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.fmt(f)
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.words, f)
    }
}

impl Error for Told<'_> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.words.source()
    }
}

impl Diagnostic for Told<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.words.code()
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.words.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.original.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.original.labels()
    }

    fn related<'b>(&'b self) -> Option<Box<dyn Iterator<Item = &'b dyn Diagnostic> + 'b>> {
        let related = self.related.iter().map(|told| told as &dyn Diagnostic);
        (!self.related.is_empty()).then(|| Box::new(related) as Box<dyn Iterator<Item = _>>)
    }

    fn diagnostic_source(&self) -> Option<&dyn Diagnostic> {
        self.words.diagnostic_source()
    }
}
