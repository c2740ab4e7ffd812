//! Pipeline files, changed line by line and word by word.

use crate::bytes;
use crate::chance::Chance;

/// A changed file.
pub(crate) fn changed(valid: &[&str], chance: &mut Chance) -> String {
    let mut lines: Vec<String> = chance.pick(valid).lines().map(str::to_owned).collect();
    for _ in 0..=chance.below(3) {
        change(&mut lines, chance);
    }
    let text = lines.join(if chance.once_in(16) { "\r\n" } else { "\n" });
    if chance.once_in(8) {
        let mut raw = text.into_bytes();
        bytes::change(&mut raw, chance);
        return String::from_utf8_lossy(&raw).into_owned();
    }
    text
}

fn change(lines: &mut Vec<String>, chance: &mut Chance) {
    let at = chance.below(lines.len());
    let other = chance.below(lines.len());
    if lines.is_empty() {
        return lines.push(value(chance));
    }
    match chance.below(10) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        3 => {
            let starts = [" ", "  ", "\t", "- ", "? ", "# ", "--- "];
            lines[at].insert_str(0, starts[chance.below(starts.len())]);
        }
        4 => lines[at] = lines[at].trim_start().to_owned(),
        5 => lines.insert(at, value(chance)),
        // The value of the line, or of one of the words in it.
        _ => {
            let ends: Vec<usize> = lines[at].match_indices(": ").map(|(start, _)| start + 2).collect();
            let Some(&start) = ends.get(chance.below(ends.len())) else { return };
            let length = lines[at][start..].find([',', '}', ']']).unwrap_or(lines[at].len() - start);
            lines[at].replace_range(start..start + length, &value(chance));
        }
    }
}

fn value(chance: &mut Chance) -> String {
    let values = [
        "0",
        "-1",
        "9223372036854775807",
        "18446744073709551616",
        "1e308",
        ".inf",
        ".nan",
        "1e-320",
        "null",
        "~",
        "",
        "true",
        "''",
        "\"\\u0000\"",
        "[]",
        "{}",
        "[[]]",
        "{ a: b }",
        "[1, 2, 3]",
        "&a [*a]",
        "*a",
        "&a b",
        "!!binary aGk=",
        "!x y",
        "|\n  text",
        ">-\n  text",
        "<<: *a",
        "2001-01-01",
        "0x7fffffffffffffff",
        "0o777",
        "1_000",
        "1:20",
        "512x512",
        "4294967296x8",
        "../../../etc/passwd",
        "/dev/zero",
        "teacher",
        "selection",
        "@",
        "`",
        "%",
        "%YAML 9.9",
        "\u{feff}",
        "\u{1b}[2J",
        "ü: 漢字",
        "- - - -",
        "? : ?",
        "{{{{",
        "]]]]",
        "...",
        "---",
    ];
    match chance.below(16) {
        0 => chance.pick(&["[", "{", "- ", "a: ", "? "]).repeat(*chance.pick(&[10, 200, 1000])),
        1 => "x".repeat(*chance.pick(&[100, 5000])),
        2 => chance.number().to_string(),
        _ => (*chance.pick(&values)).to_owned(),
    }
}
