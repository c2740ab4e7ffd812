//! Captions from anywhere as one line of text.

/// A caption in one line, empty if there is none. The error is the reason to skip its sample.
pub(super) type Caption = Result<String, String>;

/// The largest caption in bytes. A text encoder reads some hundreds.
pub(super) const MOST_BYTES: u64 = 1 << 20;

/// A caption file as one line: UTF-8 with or without a mark, or UTF-16 with one.
pub(super) fn decode(bytes: &[u8]) -> Caption {
    if bytes.len() as u64 > MOST_BYTES {
        return Err("longer than 1 MiB".to_owned());
    }
    let wide = |bytes: &[u8], number: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| number([pair[0], pair[1]])).collect();
        String::from_utf16(&units).map_err(|_| "not UTF-16".to_owned())
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes)?,
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            std::str::from_utf8(bytes)
                .map_err(|error| {
                    let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
                    format!("line {line} is not UTF-8; save it as UTF-8")
                })?
                .to_owned()
        }
    };
    one_line(&text)
}

/// A caption in one line: line ends become spaces.
pub(super) fn one_line(text: &str) -> Caption {
    if text.contains('\0') {
        return Err("contains a NUL character".to_owned());
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.collect::<Vec<_>>().join(" "))
}

/// The caption among named values: that of `column`, or the first with a usual name.
pub(in crate::data) fn usual<'n>(names: &[&'n str], column: Option<&str>) -> Option<&'n str> {
    const USUAL: [&str; 4] = ["text", "caption", "prompt", "txt"];
    let find = |wanted: &str| names.iter().find(|name| name.eq_ignore_ascii_case(wanted)).copied();
    match column {
        Some(column) => names.iter().find(|name| **name == column).copied(),
        None => USUAL.into_iter().find_map(find),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_read_as_people_save_them() {
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain("ein Löwe".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        for (bytes, expected) in [
            (&b"a red\r\ncircle\r\n"[..], "a red circle"),
            (b"\xef\xbb\xbfa star \n\n", "a star"),
            ("\u{1f981} lion".as_bytes(), "\u{1f981} lion"),
            (&utf16, "ein Löwe"),
            (b"  \n", ""),
        ] {
            assert_eq!(decode(bytes), Ok(expected.to_owned()));
        }
        for (bytes, words) in
            [(&b"fine\nL\xf6we"[..], "line 2 is not UTF-8"), (b"a\0b", "NUL"), (&[b'a'; 1 << 21], "longer")]
        {
            assert!(decode(bytes).is_err_and(|reason| reason.contains(words)), "{words}");
        }
    }

    #[test]
    fn the_usual_names_are_found() {
        assert_eq!(usual(&["url", "TEXT", "caption"], None), Some("TEXT"));
        assert_eq!(usual(&["url", "caption"], Some("url")), Some("url"));
        assert_eq!(usual(&["url", "caption"], Some("URL")), None);
        assert_eq!(usual(&["url"], None), None);
    }
}
