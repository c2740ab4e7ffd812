//! Tar archives in which the members of one sample stand together and share a name up to the first dot: webdataset's
//! layout, which img2dataset writes. The rules are those of webdataset's `tariterators.py`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::captions;
use super::metadata::caption_in;
use super::walk::is_picture;
use crate::base::python_json;
use crate::data::DataError;
use crate::data::sample::{Archive, Candidate, Found, LeftOut, Place};

/// What names of such files end with.
pub const ENDINGS: &[&str] = &[".tar", ".tar.gz", ".tgz"];

/// The largest text member that is read.
const MOST_TEXT: u64 = 1 << 20;

/// The members of one sample.
struct Group {
    key: String,
    /// Extension, start and size of the picture.
    picture: Option<(String, u64, u64)>,
    /// Extension and bytes of texts.
    texts: Vec<(String, Vec<u8>)>,
    /// Why it cannot be used.
    fault: Option<String>,
}

/// The samples of these archives, each with its name. `scratch` takes the contents of compressed ones, which cannot be
/// read in pieces, until the program ends. `column` names the caption in JSON members.
pub fn list(files: &[(String, PathBuf)], column: Option<&str>, scratch: &Path) -> Result<Found, DataError> {
    let (mut found, mut unpacked) = (Found::default(), None);
    for (name, path) in files {
        let opened = || File::open(path).map_err(DataError::file(path));
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar")) {
            let archive = Archive::Path(Arc::new(path.clone()));
            Lister { name, column, archive, offset: 0, found: &mut found }.list(opened()?)?;
        } else {
            let file: &Arc<File> = match &mut unpacked {
                Some(file) => file,
                none => {
                    let file = tempfile::tempfile_in(scratch).map_err(DataError::file(scratch))?;
                    none.insert(Arc::new(file))
                }
            };
            let offset = (&**file).seek(SeekFrom::End(0)).map_err(DataError::file(scratch))?;
            let copied = Copying { from: MultiGzDecoder::new(opened()?), to: Arc::clone(file) };
            let archive = Archive::Unpacked(Arc::clone(file));
            Lister { name, column, archive, offset, found: &mut found }.list(copied)?;
        }
    }
    Ok(found)
}

/// Writes down what is read.
struct Copying<R> {
    from: R,
    to: Arc<File>,
}

impl<R: Read> Read for Copying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        (&*self.to).write_all(&buffer[..read])?;
        Ok(read)
    }
}

struct Lister<'a> {
    name: &'a str,
    column: Option<&'a str>,
    archive: Archive,
    /// Where the archive begins in its file.
    offset: u64,
    found: &'a mut Found,
}

impl Lister<'_> {
    fn list(mut self, reader: impl Read) -> Result<(), DataError> {
        let mut group: Option<Group> = None;
        let mut archive = tar::Archive::new(reader);
        let before = self.found.candidates.len() + self.found.left_out.len();
        let ended = archive.entries().and_then(|entries| {
            for entry in entries {
                self.member(entry?, &mut group)?;
            }
            Ok(())
        });
        // The member that the archive ends inside belongs to the sample at work.
        if let (Err(error), Some(group)) = (&ended, group.as_mut()) {
            group.fault = Some(format!("the archive cannot be read here: {error}"));
        }
        self.close(group);
        match ended {
            Err(error) if self.found.candidates.len() + self.found.left_out.len() == before => {
                Err(DataError::Source {
                    path: PathBuf::from(self.name),
                    reason: format!("it is not a tar archive: {error}"),
                    help: "copy or download the file again".to_owned(),
                })
            }
            Err(error) => {
                self.found.notes.push(format!("{} cannot be read to its end: {error}", self.name));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn member<R: Read>(&mut self, mut entry: tar::Entry<'_, R>, group: &mut Option<Group>) -> io::Result<()> {
        if !entry.header().entry_type().is_file() {
            return Ok(());
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (folder, file) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(folder, file)| (folder, file));
        let Some((stem, extension)) = file.split_once('.').filter(|(stem, _)| !stem.is_empty()) else {
            return Ok(());
        };
        if path.starts_with("__") && path.ends_with("__") {
            return Ok(());
        }
        let key = if folder.is_empty() { stem.to_owned() } else { format!("{folder}/{stem}") };
        if group.as_ref().is_none_or(|group| group.key != key) {
            let begun = Group { key, picture: None, texts: Vec::new(), fault: None };
            self.close(group.replace(begun));
        }
        let group = group.as_mut().expect("it was begun above");
        let (extension, bytes) = (extension.to_lowercase(), entry.size());
        if is_picture(&extension) {
            let start = self.offset + entry.raw_file_position();
            if group.picture.replace((extension, start, bytes)).is_some() {
                group.fault = Some("it has two pictures".to_owned());
            }
            // A member that is cut off is found before the next one is asked for.
            if io::copy(&mut entry, &mut io::sink())? < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        } else if extension.rsplit('.').next().is_some_and(is_picture) {
            group.fault = Some(format!(
                "its picture has the extension `{extension}`: everything after the first dot of a name"
            ));
        } else if matches!(extension.as_str(), "txt" | "caption" | "json") {
            let mut text = Vec::new();
            entry.take(MOST_TEXT + 1).read_to_end(&mut text)?;
            if group.texts.iter().any(|(other, _)| *other == extension) {
                group.fault = Some(format!("it has two members `{extension}`"));
            }
            group.texts.push((extension, text));
        }
        Ok(())
    }

    /// A finished sample.
    fn close(&mut self, group: Option<Group>) {
        let Some(Group { key, picture, texts, fault }) = group else { return };
        let caption = caption(&texts, self.column);
        let name = format!("{}/{key}", self.name);
        let reason = match (fault, picture, caption) {
            (None, Some((extension, start, bytes)), Ok(caption)) => {
                let place = Place::Part { archive: self.archive.clone(), start, bytes };
                let name = format!("{name}.{extension}");
                return self.found.candidates.push(Candidate { name, caption, repeats: 1, place });
            }
            (Some(fault), ..) => fault,
            (None, None, _) => "it has no picture; members of one sample must stand together".to_owned(),
            (None, Some(_), Err(reason)) => reason,
        };
        self.found.left_out.push(LeftOut { name, reason });
    }
}

/// The caption among the text members of a sample: a text file, or a value of the JSON file.
fn caption(texts: &[(String, Vec<u8>)], column: Option<&str>) -> Result<String, String> {
    let find = |wanted: &str| texts.iter().find(|(extension, _)| extension == wanted).map(|(_, text)| text);
    for extension in ["txt", "caption"] {
        if column.is_none()
            && let Some(text) = find(extension)
        {
            let caption = captions::decode(text).map_err(|reason| format!("its caption: {reason}"))?;
            if !caption.is_empty() {
                return Ok(caption);
            }
        }
    }
    let Some(text) = find("json") else { return Ok(String::new()) };
    let values: Value = python_json::from_slice(text).map_err(|error| format!("its JSON member: {error}"))?;
    captions::one_line(&caption_in(&values, column)).map_err(|reason| format!("its caption {reason}"))
}
