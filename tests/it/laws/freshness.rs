//! A parameter that can change the bytes enters the key: for every property of every stage's schema there is either an
//! input or a file, which the planner adds, or another value here that must change what the stage describes.

use std::collections::BTreeSet;

use laptop_diff::base::{Digest, Manifest};
use laptop_diff::stage::{self, STAGES, Stage};
use serde_yaml::{Mapping, Value};

/// By stage: the least `with:` block that has every input and file, then another value for each other parameter.
const KNOBS: &[(&str, &str, &str)] = &[
    ("load", "{ model: m, tokenizer: t }", "{ dtype: bf16, variant: fp16, prediction: v_prediction }"),
    (
        "calibrate",
        "{ model: m, prompts: p, pictures: p }",
        "{ file: f, samples: 3, points-per-trajectory: 2, drawing: { steps: 3 }, captions: optional, background: black }",
    ),
    (
        "score",
        "{ model: m, calibration: c, criteria: [timestep-weighted, diff-pruning, delta-clip], \
           delta-clip: { scorer: s, prompts: p } }",
        "{ criteria: [random], granularity: [attn1], additivity-sets: 3, batch: 3, variants: 3, space: velocity, \
           timestep-weighted: { weighting: clean-latents }, diff-pruning: { threshold: 0.05 }, \
           delta-clip: { scorer: s, prompts: p, pictures: 3 } }",
    ),
    ("profile", "{ model: m }", "{ batch: 2, repetitions: 3 }"),
    (
        "select",
        "{ scores: s, profile: p, ratio: 0.5 }",
        "{ ratio: 0.25, objective: gram, solver: greedy, criterion: magnitude, fits: vega, layout: vega, \
           budgets: { memory: 2GB }, keep: [mid_block.*], remove: [a], linear: true, refine: { model: m, calibration: c } }",
    ),
    ("prune", "{ model: m, selection: p }", "{}"),
    (
        "reconstruct",
        "{ teacher: t, student: s, calibration: c }",
        "{ kinds: [conv2], held-out: 30, batch: 3 }",
    ),
    ("export", "{ model: m, to: diffusers, lora: l }", "{ to: comfyui, dtype: f16 }"),
    (
        "encode",
        "{ model: m, prompts: p, pictures: p, webdataset: p, parquet: p, cached-latents: p }",
        "{ samples: 3, drawing: { steps: 3 }, captions: optional, background: black, aspect-buckets: true, \
           caption-column: c }",
    ),
    ("encode-texts", "{ model: m, prompts: p }", "{ samples: 3 }"),
    ("distill", "{ teacher: t, student: s, data: d, texts: x }", "{ training: { steps: 3 } }"),
    (
        "evaluate",
        "{ models: { teacher: t }, metrics: [attribute-accuracy, pick-score, cmmd], prompts: p, scorer: s, \
           scorers: { pick-score: q }, captions: c, points: h, selection: p, reference: r }",
        "{ models: { other: t }, teacher: other, metrics: [clip-score], pictures: 3, seeds: 2, attributes: { shape: [ring] }, \
           outside: { geneval: g }, differences: { pick-score: 0.1 }, settings: { low: { guidance-scale: 2 } }, drawing: { steps: 3 } }",
    ),
];

/// Parameters that say whether a stage may do its work, and never change its bytes.
const PERMISSIONS: &[(&str, &str, &str)] = &[
    ("export", "allow-unrecognised", "true"),
    ("encode", "max-skipped", "3 %"),
    ("calibrate", "max-skipped", "3 %"),
    ("evaluate", "gates", "[teacher.attribute-accuracy > 50]"),
    ("evaluate", "small-sets", "true"),
];

fn mapping(text: &str) -> Mapping {
    serde_yaml::from_str(text).expect("the table is YAML")
}

fn parse(name: &str, block: &Mapping) -> Box<dyn Stage> {
    stage::deserialize(name, Value::Mapping(block.clone())).expect("the table holds right blocks")
}

fn key(stage: &dyn Stage) -> Digest {
    let mut manifest = Manifest::default();
    stage.describe(&mut manifest);
    // A change is told by its name, so each name stands once.
    let names: Vec<&str> = manifest.entries().map(|(name, _)| name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    manifest.key()
}

#[test]
fn every_parameter_enters_the_key() {
    for info in STAGES {
        let (_, least, others) = KNOBS
            .iter()
            .find(|(name, ..)| *name == info.name)
            .unwrap_or_else(|| panic!("add `{}`", info.name));
        let (least, others) = (mapping(least), mapping(others));
        let stage = parse(info.name, &least);
        let mut covered: BTreeSet<String> = BTreeSet::new();
        covered.extend(stage.inputs().into_iter().map(|input| input.name));
        // Of a map of files, the parameter is the part before the dot.
        let parameter = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        covered.extend(stage.files().into_iter().map(|file| parameter(&file.name)));
        // The planner makes a commit of it.
        covered.extend(
            stage.files().into_iter().filter_map(|file| file.revision.map(|_| "revision".to_owned())),
        );
        for (parameter, value) in &others {
            let mut changed = least.clone();
            changed.insert(parameter.clone(), value.clone());
            let name = parameter.as_str().expect("parameters are text").to_owned();
            assert_ne!(key(&*parse(info.name, &changed)), key(&*stage), "`{name}` of `{}`", info.name);
            covered.insert(name);
        }
        let schema = (info.schema)(&mut schemars::SchemaGenerator::default());
        let properties =
            schema.get("properties").and_then(|one| one.as_object()).expect("stages have parameters");
        for name in properties.keys().filter(|name| {
            !PERMISSIONS
                .iter()
                .any(|(stage, parameter, _)| (*stage, *parameter) == (info.name, name.as_str()))
        }) {
            assert!(covered.contains(name), "`{name}` of `{}` has no other value in this test", info.name);
        }
    }
}

#[test]
fn every_parameter_of_drawing_enters_the_key() {
    let others = mapping(
        "{ sampler: euler, steps: 3, guidance-scale: 1, negative-prompt: blurry, size: 8x8, vae-tile: 8, batch: 3 }",
    );
    for (stage, least) in [
        ("calibrate", "{ model: m, prompts: p, drawing: {} }"),
        ("encode", "{ model: m, prompts: p, drawing: {} }"),
        ("evaluate", "{ models: { teacher: t }, metrics: [macs], prompts: p, drawing: {} }"),
        (
            "score",
            "{ model: m, calibration: c, criteria: [delta-clip], delta-clip: { scorer: s, prompts: p, drawing: {} } }",
        ),
    ] {
        let least = mapping(least);
        for (name, value) in &others {
            // Latents that are drawn are not decoded.
            if name == "vae-tile" && ["calibrate", "encode"].contains(&stage) {
                continue;
            }
            let mut changed = least.clone();
            let block = match stage {
                "score" => &mut changed["delta-clip"]["drawing"],
                _ => &mut changed["drawing"],
            };
            block.as_mapping_mut().expect("a block").insert(name.clone(), value.clone());
            assert_ne!(key(&*parse(stage, &least)), key(&*parse(stage, &changed)), "{name:?} of `{stage}`");
        }
    }
    let schema = serde_json::to_value(schemars::schema_for!(stage::Drawing)).expect("a schema is JSON");
    let properties = schema["properties"].as_object().expect("it has parameters");
    assert!(properties.keys().all(|name| others.contains_key(name.as_str())), "{properties:?}");
}

#[test]
fn stating_a_default_changes_nothing() {
    for (name, least, default) in [
        ("load", "{ model: m }", "{ model: m, dtype: f32 }"),
        (
            "score",
            "{ model: m, calibration: c }",
            "{ model: m, calibration: c, granularity: [block, resnet] }",
        ),
        (
            "select",
            "{ scores: s, ratio: 0.5 }",
            "{ ratio: 5e-1, solver: knapsack, scores: s, criterion: output-loss }",
        ),
    ] {
        assert_eq!(key(&*parse(name, &mapping(least))), key(&*parse(name, &mapping(default))), "{name}");
    }
}

#[test]
fn what_lies_inside_a_parameter_enters_the_key_too() {
    let least = "{ scores: s, profile: p, ratio: 0.5, budgets: {}, refine: { model: m, calibration: c } }";
    for (parameter, name, value) in [
        ("budgets", "macs", "0.3"),
        ("budgets", "latency", "0.3"),
        ("budgets", "memory", "0.3"),
        ("refine", "evaluations", "3"),
        ("refine", "batch", "3"),
    ] {
        let block = mapping(least);
        let mut changed = block.clone();
        let inner = changed[parameter].as_mapping_mut().expect("a block");
        inner.insert(name.into(), serde_yaml::from_str(value).expect("a number"));
        assert_ne!(key(&*parse("select", &block)), key(&*parse("select", &changed)), "{parameter}.{name}");
    }
}

#[test]
fn what_only_a_criterion_reads_enters_the_key_with_it() {
    let least = "{ model: m, calibration: c, criteria: [CRITERION], delta-clip: { scorer: s, prompts: p } }";
    for (criterion, others) in [
        ("timestep-weighted", "{ weighting: clean-latents }"),
        ("diff-pruning", "{ threshold: 0.05 }"),
        ("delta-clip", "{ pictures: 3, drawing: { steps: 3 } }"),
    ] {
        for (name, value) in &mapping(others) {
            for (asked, matters) in [(criterion, true), ("random", false)] {
                let block = mapping(&least.replace("CRITERION", asked));
                let mut changed = block.clone();
                let inner = changed.entry(criterion.into()).or_insert_with(|| Value::Mapping(Mapping::new()));
                inner.as_mapping_mut().expect("a block").insert(name.clone(), value.clone());
                let same = key(&*parse("score", &block)) == key(&*parse("score", &changed));
                assert_eq!(same, !matters, "`{name:?}` of `{criterion}` with `{asked}`");
            }
        }
    }
}

#[test]
fn a_permission_enters_no_key() {
    for (stage, parameter, value) in PERMISSIONS {
        let (_, least, _) = KNOBS.iter().find(|(name, ..)| name == stage).expect("a row");
        let mut changed = mapping(least);
        changed.insert((*parameter).into(), serde_yaml::from_str(value).expect("a value"));
        assert_eq!(
            key(&*parse(stage, &mapping(least))),
            key(&*parse(stage, &changed)),
            "{stage}.{parameter}"
        );
    }
}
