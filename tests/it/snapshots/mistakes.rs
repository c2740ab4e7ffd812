//! Typical mistakes, each with all that the program answers: code, place, and what would be right.

use super::{PIPELINE, check, sandbox, transcript};

/// In a pipeline file: its name, what is replaced, by what.
const IN_THE_FILE: &[(&str, &str, &str)] = &[
    ("not YAML", "seed: 1", "seed: [1"),
    ("an empty file", PIPELINE, ""),
    ("a control character", "name: small", "name: sm\u{1b}[31mall"),
    ("two documents", "seed: 1", "seed: 1\n---"),
    ("a misspelt key at the top", "seed: 1", "sede: 1"),
    ("a misspelt parameter", "ratio: 0.5", "rato: 0.5"),
    ("a parameter given twice", "ratio: 0.5", "ratio: 0.5, ratio: 0.4"),
    ("a number out of range", "ratio: 0.5", "ratio: 1.5"),
    ("a number inside a parameter out of range", "ratio: 0.5", "budgets: { macs: 1.5 }"),
    ("a word in place of a number", "ratio: 0.5", "ratio: half"),
    ("a number in quotes", "seed: 1", "seed: '1'"),
    ("a word in place of a list", "criteria: [magnitude, random]", "criteria: magnitude"),
    ("an empty path", "prompts: prompts.txt, samples", "prompts: '', samples"),
    ("a number below what is needed", "seed: 1", "seed: -1"),
    ("a number of more than 64 bits", "seed: 1", "seed: 18446744073709551616"),
    ("null in place of text", "model: teacher, calibration", "model: ~, calibration"),
    ("an amount of memory without a unit", "ratio: 0.5", "budgets: { memory: '8' }"),
    ("neither a ratio nor budgets", ", ratio: 0.5", ""),
    ("an unknown solver", "ratio: 0.5", "ratio: 0.5, solver: knapsak"),
    ("an unknown criterion to select by", "criterion: magnitude", "criterion: magnitud"),
    ("an unknown criterion", "criteria: [magnitude, random]", "criteria: [magnitud]"),
    ("a stage that does not exist", "scores: scores", "scores: score"),
    ("an artefact of the wrong kind", "scores: scores", "scores: points"),
    ("an unknown stage name", "use: select", "use: selekt"),
    ("the same id twice", "id: scores", "id: points"),
    ("a format of the future", "format: 1", "format: 9"),
    ("a missing file", "prompts: prompts.txt, samples", "prompts: absent.txt, samples"),
    ("a model folder that does not exist", "model: '{nano}'", "model: absent"),
    ("the old name of `selection`", "selection: selection }", "plan: selection }"),
];

/// On the command line.
const TYPED: &[(&str, &[&str])] = &[
    ("no such file", &["run", "absent.yaml"]),
    ("an unknown stage in --set", &["plan", "small.yaml", "--set", "selektion.ratio=0.3"]),
    ("a value out of range in --set", &["plan", "small.yaml", "--set", "selection.ratio=3"]),
    ("a number of more than 64 bits in --set", &["plan", "small.yaml", "--set", "seed=18446744073709551616"]),
    ("no value in --set", &["plan", "small.yaml", "--set", "selection.ratio="]),
    ("an unknown stage in --until", &["run", "small.yaml", "--until", "selektion"]),
    ("a device that does not exist", &["run", "small.yaml", "--device", "tpu"]),
    ("a sweep of nothing", &["sweep", "small.yaml"]),
    ("a folder that is not a run", &["report", "."]),
    ("an unknown export format", &["export", "model", "--to", "comfui"]),
    ("a folder that is not a model", &["inspect", "."]),
];

#[test]
fn typical_mistakes_say_what_would_be_right() {
    let mut text = String::new();
    let as_it_is = sandbox("", "");
    let asked =
        IN_THE_FILE.iter().map(|(name, old, new)| (*name, Some((*old, *new)), &["run", "small.yaml"][..]));
    let asked = asked.chain(TYPED.iter().map(|(name, arguments)| (*name, None, *arguments)));
    for (name, change, arguments) in asked {
        let changed = change.map(|(old, new)| {
            assert_eq!(PIPELINE.matches(old).count(), 1, "{old:?} is not one place of the pipeline");
            sandbox(old, new)
        });
        let transcript = transcript(changed.as_ref().unwrap_or(&as_it_is), arguments);
        assert!(transcript.contains("exit code"), "{name} is not refused: {transcript}");
        text += &format!("# {name}\n{transcript}\n");
    }
    check("mistakes", &text);
}
