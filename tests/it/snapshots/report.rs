//! The text of a report: headings, tables and captions without the plots.

use std::fs;

use super::{check, run, sandbox};
use crate::common::Sandbox;

#[test]
fn a_report_reads_well() {
    let sandbox = sandbox("", "");
    let ran = run(&sandbox, &["run", "small.yaml"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let page = fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a report");
    tables(&sandbox);
    insta::with_settings!({ filters => vec![
        // Measured numbers differ between processors in their last digits, and memory and sizes between machines.
        (r"\d+\.\d{3,}(e-?\d+)?|\b\d(\.\d+)?e-?\d+\b", "[number]"),
        (r"× \d+\.\d+", "× [number]"),
        (r"\d+ % of the largest", "[number] % of the largest"),
        (r"kernels \| \d+", "kernels | [version]"),
        (r"-?\d+(\.\d+)?(×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)? \[-?[\d.]+, -?[\d.]+\](×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?", "[estimate]"),
        (r"-?\d+(\.\d+)?×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+", "[number]"),
        (r"\b\d+(\.\d+)? (B|kB|MB|GB)\b", "[bytes]"),
    ]}, { check("report", &text_of(&page)) });
}

/// The tables of a run and of two, and the list of runs.
fn tables(sandbox: &Sandbox) {
    let ran = run(sandbox, &["run", "small.yaml", "--set", "name=other", "--set", "selection.ratio=0.3"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed = |arguments: &[&str]| {
        let output = run(sandbox, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let both = ["report", "runs/small", "runs/other"];
    let settings = printed(&[&both[..], &["--format", "csv", "--table", "settings"]].concat());
    assert_eq!(settings, "stage,setting,small,other\nselection,ratio,0.5,0.3\n");
    let json: serde_json::Value =
        serde_json::from_str(&printed(&[&both[..], &["--format", "json"]].concat())).expect("JSON");
    let ratio = |run: usize| json["selections"][run]["asked, %"].as_f64();
    assert_eq!((ratio(0), ratio(1)), (Some(50.0), Some(30.0)), "{json:#}");
    let csv = printed(&["report", "runs/small", "--format", "csv"]);
    let pruned =
        csv.lines().find(|line| line.starts_with("small,result,pruned,parameters,lower,parameters,1,"));
    assert!(pruned.is_some_and(|line| line.contains(",1492724,")), "{csv}");
    let markdown = printed(&["report", "runs/small", "--format", "md", "--table", "selections"]);
    assert!(
        markdown
            .contains("| small | selection | magnitude | additive | knapsack | 50.0 | 51.0 | 12 | 1.6 M |"),
        "{markdown}"
    );

    printed(&[&both[..], &["--out", "both.html"]].concat());
    let page = fs::read_to_string(sandbox.path("both.html")).expect("a page");
    assert!(text_of(&page).contains("selection | ratio | 0.5 | 0.3 |"), "{}", text_of(&page));

    let runs = printed(&["runs"]);
    let lines: Vec<&str> = runs.lines().collect();
    assert!(lines.len() == 3 && lines[1].contains("runs/") && lines[1].contains("done"), "{runs}");
    let missing = run(sandbox, &["report", "runs/small", "--format", "md", "--table", "gates"]);
    assert_eq!(missing.status.code(), Some(2), "{}", String::from_utf8_lossy(&missing.stderr));
}

/// The text of a page, a line for each block and row. A picture gives its label.
fn text_of(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    // The element whose content is left out.
    let mut within = "";
    while let Some(open) = rest.find('<') {
        if within.is_empty() {
            text += &rest[..open];
        }
        let end = rest[open..].find('>').map_or(rest.len(), |end| open + end + 1);
        let tag = &rest[open..end];
        rest = &rest[end..];
        let name = tag
            .trim_start_matches(['<', '/'])
            .split(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        match name {
            _ if within == name && !within.is_empty() && tag.starts_with("</") => within = "",
            _ if !within.is_empty() => {}
            "style" => within = "style",
            "script" => within = "script",
            "svg" => {
                text += &format!("[plot: {}]\n", label(tag, "aria-label"));
                within = "svg";
            }
            "img" => text += &format!("[picture: {}]", label(tag, "alt")),
            "b" | "span" | "small" | "option" => text.push(' '),
            "td" | "th" if tag.starts_with("</") => text += " | ",
            "h1" | "h2" if !tag.starts_with("</") => text += "\n\n# ",
            "h3" if !tag.starts_with("</") => text += "\n## ",
            "tr" if tag.starts_with("</") => {}
            "h1" | "h2" | "h3" | "p" | "tr" | "br" | "li" | "caption" | "table" | "div" | "summary"
            | "figure" | "figcaption" | "button" | "pre" | "title" => text.push('\n'),
            _ => {}
        }
    }
    let text = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to));
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines
        .join("\n")
        .split("\n\n")
        .map(|part| part.trim_matches('\n'))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// The value of an attribute of a tag.
fn label<'a>(tag: &'a str, attribute: &str) -> &'a str {
    let start = format!("{attribute}=\"");
    tag.split(&start).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}
