//! The parts of an evaluation: another metric, scorer or seed makes only what it adds.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::common::{Sandbox, expect_code, root};

const PIPELINE: &str = "\
format: 1
name: parts
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher, again: teacher }
      metrics: [{metrics}]
      prompts: '{nano}/prompts/evaluation.txt'
      pictures: 3
      seeds: {seeds}
      scorer: {scorer}
      drawing: { steps: 2, batch: 2 }
";

/// How many parts of each kind were made since the last call.
struct Counter<'a> {
    sandbox: &'a Sandbox,
    before: BTreeMap<String, usize>,
}

impl Counter<'_> {
    fn parts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in fs::read_dir(self.sandbox.path("cache/v1/entries")).expect("the cache has entries") {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
            let entry: Value = serde_json::from_str(&text).expect("JSON");
            let manifest = entry["manifest"]["entries"].as_array().expect("a manifest").iter();
            let value = |name: &str| {
                let found = manifest.clone().find(|pair| pair[0] == name);
                found.map(|pair| pair[1].as_str().expect("text").to_owned())
            };
            if let Some(part) = value("of the part").or_else(|| value("part")) {
                *counts.entry(part).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Runs the pipeline and compares what it made, as `1 gallery, 2 values`.
    #[track_caller]
    fn expect(&mut self, metrics: &str, seeds: usize, scorer: &str, made: &str) {
        let text = PIPELINE.replace("{metrics}", metrics).replace("{seeds}", &seeds.to_string());
        self.sandbox.write("parts.yaml", &text.replace("{scorer}", scorer));
        expect_code(&self.sandbox.run(&["run", "parts.yaml"]), 0);
        let now = self.parts();
        let new = |(part, count): (&String, &usize)| match count - self.before.get(part).unwrap_or(&0) {
            0 => None,
            new => Some(format!("{new} {part}")),
        };
        assert_eq!(now.iter().filter_map(new).collect::<Vec<_>>().join(", "), made, "{metrics}");
        self.before = now;
    }
}

#[test]
fn a_metric_or_a_scorer_more_draws_nothing_again() {
    let sandbox = Sandbox::new();
    let scorer = root().join("examples/nano-sd/scorer");
    fs::create_dir(sandbox.path("other")).expect("writable");
    for entry in fs::read_dir(&scorer).expect("readable") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, sandbox.path("other").join(path.file_name().expect("a name"))).expect("readable");
    }
    let config = fs::read_to_string(sandbox.path("other/config.json")).expect("text");
    sandbox.write("other/config.json", &format!("{config}\n"));

    let scorer = format!("'{}'", scorer.display());
    let mut counter = Counter { sandbox: &sandbox, before: BTreeMap::new() };
    // Both models are the same, so each of their parts is made once.
    counter.expect("clip-score", 1, &scorer, "1 features, 1 features of noise, 1 gallery, 1 noise, 1 texts");
    counter.expect("clip-score, pick-score, latency", 1, &scorer, "");
    counter.expect("clip-score, parameters, macs", 1, &scorer, "2 values");
    counter.expect("pick-score", 1, "other", "1 features, 1 features of noise, 1 texts");
    counter.expect("pick-score", 2, "other", "1 features, 1 gallery");
    counter.expect("parameters", 2, "other", "");
}

#[test]
fn a_setting_is_a_column_and_draws_only_what_differs() {
    let sandbox = Sandbox::new();
    let scorer = format!("'{}'", root().join("examples/nano-sd/scorer").display());
    let mut counter = Counter { sandbox: &sandbox, before: BTreeMap::new() };
    counter.expect(
        "clip-score, macs",
        1,
        &scorer,
        "1 features, 1 features of noise, 1 gallery, 1 noise, 1 texts, 1 values",
    );
    // A setting like `drawing:` draws nothing; networks are measured once.
    let with = |settings: &str| format!("{scorer}\n      settings: {settings}");
    counter.expect("clip-score, macs", 1, &with("{ same: { steps: 2 } }"), "");
    let other = with(
        "{ low: { guidance-scale: 2 } }\n      gates: [teacher.low.clip-score >= 0, again.low.clip-score.wins >= 50 %]",
    );
    counter.expect("clip-score, macs", 1, &other, "1 features, 1 gallery");
    let text = fs::read_to_string(sandbox.path("runs/parts/result/metrics.json")).expect("it is written");
    let metrics: Value = serde_json::from_str(&text).expect("JSON");
    let models: Vec<_> =
        metrics["models"].as_array().expect("models").iter().map(|model| &model["model"]).collect();
    assert_eq!(models, ["teacher", "again", "teacher.low", "again.low"]);
    assert_ne!(metrics["models"][0]["metrics"]["clip-score"], metrics["models"][2]["metrics"]["clip-score"]);
    assert!(sandbox.path("runs/parts/result/images/again.low/002.png").is_file());
}
