//! Every number of every stage has bounds in the schema, and the program refuses exactly what lies outside them, with the
//! key, the line and what is needed. The parameters are those of the schema, so a new one is tested without a word here.

use std::path::Path;

use laptop_diff::config::{PipelineFile, schema};
use serde_json::{Value, json};

/// By stage: a `with:` block that has every input and file, and blocks with what they require.
const LEAST: &[(&str, &str)] = &[
    ("load", r#"{ "model": "m" }"#),
    ("calibrate", r#"{ "model": "m", "prompts": "p" }"#),
    ("score", r#"{ "model": "m", "calibration": "c", "delta-clip": { "scorer": "s", "prompts": "p" } }"#),
    ("profile", r#"{ "model": "m" }"#),
    (
        "select",
        r#"{ "scores": "s", "profile": "p", "ratio": 0.5, "budgets": { "latency": 0.5 },
             "refine": { "model": "m", "calibration": "c" } }"#,
    ),
    ("prune", r#"{ "model": "m", "selection": "p" }"#),
    ("reconstruct", r#"{ "teacher": "t", "student": "s", "calibration": "c" }"#),
    ("export", r#"{ "model": "m", "to": "diffusers" }"#),
    ("encode", r#"{ "model": "m", "prompts": "p" }"#),
    ("encode-texts", r#"{ "model": "m", "prompts": "p" }"#),
    ("distill", r#"{ "teacher": "t", "student": "s", "data": "d" }"#),
    ("evaluate", r#"{ "models": { "teacher": "t" }, "metrics": ["macs"], "prompts": "p" }"#),
];

/// A number of a schema: where it is, and its bounds.
#[derive(Debug)]
struct Number {
    path: Vec<String>,
    whole: bool,
    low: (f64, bool),
    high: (f64, bool),
}

/// Adds the numbers below `schema`, following references into `whole`.
fn numbers(whole: &Value, schema: &Value, path: &[String], found: &mut Vec<Number>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").expect("a reference into this schema");
        return numbers(whole, &whole["$defs"][name], path, found);
    }
    for either in schema["anyOf"].as_array().into_iter().flatten() {
        numbers(whole, either, path, found);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        numbers(whole, property, &[path, std::slice::from_ref(name)].concat(), found);
    }
    if schema["items"].is_object() {
        numbers(whole, &schema["items"], &[path, &["0".to_owned()]].concat(), found);
    }
    let is = |name: &str| match &schema["type"] {
        Value::Array(names) => names.contains(&json!(name)),
        one => one == name,
    };
    if is("integer") || is("number") {
        let bound = |including: &str, excluding: &str| {
            let bound = schema[including].as_f64().map(|bound| (bound, true));
            bound
                .or_else(|| schema[excluding].as_f64().map(|bound| (bound, false)))
                .unwrap_or_else(|| panic!("{} has no `{including}`", path.join(".")))
        };
        found.push(Number {
            path: path.to_vec(),
            whole: is("integer"),
            low: bound("minimum", "exclusiveMinimum"),
            high: bound("maximum", "exclusiveMaximum"),
        });
    }
}

impl Number {
    fn holds(&self, value: f64) -> bool {
        let ((low, with_low), (high, with_high)) = (self.low, self.high);
        (value > low || with_low && value == low) && (value < high || with_high && value == high)
    }

    /// Numbers as YAML writes them, around the bounds and far away from them, and their values.
    fn extremes(&self) -> Vec<(String, f64)> {
        let far = [
            ("0", 0.0),
            ("-1", -1.0),
            ("2147483648", 2f64.powi(31)),
            ("9223372036854775807", 2f64.powi(63)),
            ("18446744073709551615", 2f64.powi(64)),
            ("18446744073709551616", 2f64.powi(64)),
            ("1e308", 1e308),
            ("-1e308", -1e308),
            ("1e-320", 1e-320),
            (".inf", f64::INFINITY),
            ("-.inf", f64::NEG_INFINITY),
            (".nan", f64::NAN),
        ];
        let near = match self.whole {
            true => [self.low.0 - 1.0, self.low.0, self.high.0, self.high.0 + 1.0],
            false => [self.low.0.next_down(), self.low.0, self.high.0, self.high.0.next_up()],
        };
        let near = near.map(|value| match self.whole {
            true => (format!("{value:.0}"), value),
            false => (format!("{value:e}"), value),
        });
        near.into_iter().chain(far.map(|(text, value)| (text.to_owned(), value))).collect()
    }
}

/// A pipeline with this one stage, in which the number at `path` is `text`.
fn pipeline(name: &str, with: &Value, path: &[String], text: &str) -> String {
    const HERE: &str = "THE NUMBER";
    let mut with = with.clone();
    let mut place = &mut with;
    for step in path {
        place = match step.parse::<usize>() {
            // A list of two numbers, the first of which is meant.
            Ok(_) => {
                *place = json!([null, 0.5]);
                &mut place[0]
            }
            Err(_) => &mut place[step],
        };
    }
    *place = json!(HERE);
    let with = with.to_string().replace(&format!("\"{HERE}\""), text);
    format!("format: 1\nname: n\nstages:\n  - id: one\n    use: {name}\n    with: {with}\n")
}

#[test]
fn every_number_of_every_stage_has_bounds_that_hold() {
    let whole = serde_json::to_value(schema::pipeline()).expect("a schema is JSON");
    let mut tried = 0;
    for stage in whole["properties"]["stages"]["items"]["oneOf"].as_array().expect("the stages") {
        let name = stage["title"].as_str().expect("a stage has a name");
        let (_, least) =
            LEAST.iter().find(|(least, _)| *least == name).unwrap_or_else(|| panic!("add `{name}`"));
        let least: Value = serde_json::from_str(least).expect("the table is JSON");
        let mut found = Vec::new();
        numbers(&whole, &stage["properties"]["with"], &[], &mut found);
        for number in &found {
            for (text, value) in number.extremes() {
                // `1e-320` and `1e308` are not whole, whatever the bounds.
                let allowed = number.holds(value) && !(number.whole && text.contains('e'));
                let pipeline = pipeline(name, &least, &number.path, &text);
                let read =
                    PipelineFile::parse(Path::new("n.yaml"), &pipeline, &[]).and_then(|file| file.pipeline());
                let key = number.path.iter().rfind(|step| *step != "0").expect("a parameter has a name");
                match read {
                    Ok(_) => assert!(allowed, "`{key}: {text}` of `{name}` is outside {number:?}"),
                    Err(error) => {
                        let words = error.to_string();
                        assert!(words.contains(key), "`{key}: {text}` of `{name}`: {words}");
                        assert!(error.position().is_some(), "{words}");
                        // Inside its bounds, a number may still not go with another: pieces divide a batch.
                        let alone = !words.contains("must divide") && !words.contains("multiple of");
                        assert!(!(allowed && alone), "`{key}: {text}` of `{name}`: {words}, for {number:?}");
                    }
                }
                tried += 1;
            }
        }
    }
    // 39 numbers (2026-11).
    assert!(tried > 39 * 16 - 1, "{tried}");
}

#[test]
fn a_seed_is_any_number_of_64_bits() {
    for (seed, right) in
        [("0", true), ("18446744073709551615", true), ("18446744073709551616", false), ("-1", false)]
    {
        let text = format!(
            "format: 1\nname: n\nseed: {seed}\nstages: [{{ id: a, use: load, with: {{ model: m }} }}]\n"
        );
        let read = PipelineFile::parse(Path::new("n.yaml"), &text, &[]).and_then(|file| file.pipeline());
        assert_eq!(read.is_ok(), right, "{seed}: {:?}", read.err().map(|error| error.to_string()));
    }
}
