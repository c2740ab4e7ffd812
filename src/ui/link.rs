//! Hyperlinks (OSC 8) in terminals that show them: <https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda>.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use supports_hyperlinks::Stream;

/// `text`, or on a terminal that can, `text` as a link to a file.
pub fn linked(text: &str, file: &Path, stream: Stream) -> String {
    match std::path::absolute(file) {
        Ok(file) if supports_hyperlinks::on(stream) => link(text, &file),
        _ => text.to_owned(),
    }
}

/// All bytes of the path but plain ones are percent-encoded, so that nothing in a name ends the sequence.
fn link(text: &str, file: &Path) -> String {
    let encoded: String = file
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|&byte| match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("\x1b]8;;file://{encoded}\x1b\\{text}\x1b]8;;\x1b\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_sequence() {
        let told = link("runs/x", Path::new("/a b/\u{1b}\\ü/report.html"));
        assert_eq!(told, "\x1b]8;;file:///a%20b/%1B%5C%C3%BC/report.html\x1b\\runs/x\x1b]8;;\x1b\\");
    }
}
