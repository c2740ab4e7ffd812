//! No two values of a parameter share a key. Pairs of `with:` blocks are drawn from the schemas; where what they
//! describe is equal, so are the stages, except where [`plain`] says that a value changes nothing.

use std::cell::Cell;

use laptop_diff::base::Manifest;
use laptop_diff::metric::{METRICS, Need};
use laptop_diff::score::CRITERIA;
use laptop_diff::stage::{self, DEFAULT_SAMPLER, STAGES, Stage, StageInfo};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

/// Words that could run together, and what could hold them apart.
const WORDS: &[&str] =
    &["a", "b", " ", ", ", ",", "\"", "\",\"", "[", "]", "\\", ":", "\n", "large", "red circle"];

/// A schema with the definitions that it refers to.
struct Schemas {
    definitions: Map<String, Value>,
}

impl Schemas {
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema["$ref"].as_str() {
            Some(path) => {
                let name = path.rsplit('/').next().expect("a reference has a name");
                self.resolve(self.definitions.get(name).expect("the definition was collected"))
            }
            None => schema,
        }
    }

    /// Values of a schema. `name` is that of the property.
    fn values(&self, name: &str, schema: &Value) -> BoxedStrategy<Value> {
        let schema = self.resolve(schema);
        if let Some(words) = known(name) {
            let one = proptest::sample::select(words).prop_map(Value::from);
            return match kind(schema) {
                "array" => proptest::collection::vec(one, 1..4).prop_map(Value::from).boxed(),
                _ => one.boxed(),
            };
        }
        if let Some(values) = schema["enum"].as_array() {
            return proptest::sample::select(values.clone()).boxed();
        }
        if let Some(value) = schema.get("const") {
            return Just(value.clone()).boxed();
        }
        if let Some(several) = ["anyOf", "oneOf"].into_iter().find_map(|key| schema[key].as_array()) {
            let several = several.iter().filter(|one| one["type"] != "null");
            return several
                .map(|one| self.values(name, one))
                .reduce(|a, b| a.prop_union(b).boxed())
                .expect("one");
        }
        match kind(schema) {
            "boolean" => any::<bool>().prop_map(Value::from).boxed(),
            "integer" => (1..4u64).prop_map(Value::from).boxed(),
            "number" => {
                proptest::sample::select(vec![0.1, 0.25, 0.3, 0.1 + 0.2, 0.5]).prop_map(Value::from).boxed()
            }
            "string" if schema["pattern"].is_string() => {
                proptest::sample::select(vec!["8x8", "8x16", "16x8", "88x8"]).prop_map(Value::from).boxed()
            }
            "string" => proptest::collection::vec(proptest::sample::select(WORDS), 1..4)
                .prop_map(|words| words.concat().into())
                .boxed(),
            "array" => {
                let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
                let most = schema["maxItems"].as_u64().map_or(least + 3, |most| most as usize);
                proptest::collection::vec(self.values("", &schema["items"]), least..=most)
                    .prop_map(Value::from)
                    .boxed()
            }
            "object" => self.objects(schema),
            other => panic!("a schema of the type `{other}`: {schema}"),
        }
    }

    fn objects(&self, schema: &Value) -> BoxedStrategy<Value> {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut all = Just(Map::new()).boxed();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let (name, value) = (name.clone(), self.values(name, schema));
            let given =
                if required.contains(&name.as_str()) { Just(true).boxed() } else { any::<bool>().boxed() };
            all = (all, given, value)
                .prop_map(move |(mut map, given, value)| {
                    given.then(|| map.insert(name.clone(), value));
                    map
                })
                .boxed();
        }
        if schema["additionalProperties"].is_object() {
            let names = proptest::sample::select(WORDS);
            let entries = (names, self.values("", &schema["additionalProperties"]));
            let named = proptest::collection::vec(entries, 1..3);
            all = (all, named)
                .prop_map(|(mut map, named)| {
                    map.extend(named.into_iter().map(|(name, value)| (name.to_owned(), value)));
                    map
                })
                .boxed();
        }
        all.prop_map(Value::Object).boxed()
    }
}

/// Names that a table knows: other words would mean that the stage asks for nothing.
fn known(property: &str) -> Option<Vec<&'static str>> {
    match property {
        "metrics" => Some(METRICS.iter().map(|metric| metric.name()).collect()),
        "criteria" => Some(CRITERIA.iter().map(|info| info.name).collect()),
        "sampler" => Some(vec!["ddim", "euler", DEFAULT_SAMPLER]),
        "memory" => Some(vec!["1GB", "1GiB", "1073741824B"]),
        _ => None,
    }
}

fn kind(schema: &Value) -> &str {
    let kinds = schema["type"].as_array().into_iter().flatten().chain([&schema["type"]]);
    kinds.filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
}

/// The same value with neighbours of its lists run together by `separator`: what joined words cannot tell apart.
fn run_together(value: &Value, separator: &str) -> Value {
    match value {
        Value::Array(items) => match items.as_slice() {
            [Value::String(one), Value::String(two), rest @ ..] => {
                let first = Value::from(format!("{one}{separator}{two}"));
                Value::Array([&[first], rest].concat())
            }
            _ => value.clone(),
        },
        Value::Object(map) => {
            map.iter().map(|(name, value)| (name.clone(), run_together(value, separator))).collect()
        }
        _ => value.clone(),
    }
}

/// The block without what is documented to change nothing.
fn plain(stage: &str, block: &Value) -> Value {
    let mut map = block.as_object().expect("a block is a mapping").clone();
    let of_trajectories = ["sampler", "steps", "guidance-scale", "negative-prompt"];
    if ["calibrate", "encode"].contains(&stage) {
        // It says whether the stage may end, not what is in it.
        map.remove("max-skipped");
        let sources = ["pictures", "webdataset", "parquet", "cached-latents"];
        if block["file"].is_string() || !sources.iter().any(|name| block[*name].is_string()) {
            remove(&mut map, &["captions", "background", "caption-column", "aspect-buckets"]);
        }
    }
    match stage {
        // `main` is the default.
        "load" => drop(map.entry("revision").or_insert(json!("main"))),
        // The points of a file are taken as they are.
        "calibrate" if block["file"].is_string() => {
            remove(&mut map, &["samples", "points-per-trajectory", "drawing"]);
        }
        // Latents are not decoded, and pictures are not drawn.
        "calibrate" | "encode" if block["prompts"].is_string() => {
            map.get_mut("drawing").and_then(Value::as_object_mut).map(|inner| inner.remove("vae-tile"));
        }
        "calibrate" | "encode" => {
            if let Some(inner) = map.get_mut("drawing").and_then(Value::as_object_mut) {
                remove(inner, &of_trajectories);
            }
            map.remove("points-per-trajectory");
        }
        // It says whether a file may be written, not what is in it.
        "export" => drop(map.remove("allow-unrecognised")),
        "select" if block["budgets"] == json!({}) => drop(map.remove("budgets")),
        // What no metric needs.
        "evaluate" => {
            let needs =
                |name: &str| block["metrics"].as_array().is_some_and(|all| all.contains(&name.into()));
            if !needs("attribute-accuracy") {
                remove(&mut map, &["attributes", "captions"]);
            }
            let scoring = METRICS.iter().filter(|metric| metric.needs().contains(&Need::Scorer));
            let asked: Vec<&str> = scoring.map(|metric| metric.name()).filter(|name| needs(name)).collect();
            let own = map.get_mut("scorers").and_then(Value::as_object_mut);
            let own: Vec<String> = own.map_or_else(Vec::new, |own| {
                own.retain(|name, _| asked.contains(&name.as_str()));
                own.keys().cloned().collect()
            });
            if own.is_empty() {
                map.remove("scorers");
            }
            if asked.iter().all(|name| own.iter().any(|own| own == name)) {
                map.remove("scorer");
            }
            if !["cmmd", "fd-dinov2", "fid"].into_iter().any(needs) {
                map.remove("reference");
            }
            // They compare the results and change none.
            map.remove("gates");
            map.remove("small-sets");
        }
        // The parameters of criteria that are not asked for; an empty block is no block.
        "score" => {
            let asked = block["criteria"].as_array().cloned().unwrap_or_default();
            for info in CRITERIA {
                if !asked.contains(&info.name.into()) {
                    map.remove(info.name);
                } else if info.parameters.is_some() {
                    map.entry(info.name).or_insert(json!({}));
                }
            }
        }
        _ => {}
    }
    let mut block = Value::Object(map);
    default_sampler(&mut block, stage == "calibrate");
    block
}

fn remove(map: &mut Map<String, Value>, names: &[&str]) {
    names.iter().for_each(|name| drop(map.remove(*name)));
}

/// Leaves out the sampler where it is the default. `calibrate` has another one, which its reader fills in.
fn default_sampler(value: &mut Value, is_calibrate: bool) {
    let Some(map) = value.as_object_mut() else { return };
    if !is_calibrate && map.get("sampler") == Some(&json!(DEFAULT_SAMPLER)) {
        map.remove("sampler");
    }
    map.values_mut().for_each(|value| default_sampler(value, is_calibrate));
}

/// What the key of a stage holds, with names of stages and paths in place of digests.
fn described(stage: &dyn Stage) -> Manifest {
    let mut manifest = Manifest::default();
    stage.describe(&mut manifest);
    for input in stage.inputs() {
        manifest.field(&format!("input {}", input.name), input.stage);
    }
    for file in stage.files() {
        manifest.field(
            &format!("file {}", file.name),
            format_args!("{} {:?}", file.path.display(), file.revision),
        );
    }
    manifest
}

fn parse(info: &StageInfo, block: &Value) -> Option<Box<dyn Stage>> {
    stage::deserialize(info.name, block.clone()).ok()
}

/// Searches the blocks of a stage for two that `described` cannot tell apart, though their stages differ.
fn search(info: &StageInfo, described: fn(&dyn Stage) -> Manifest) -> Result<(), String> {
    let mut generator = schemars::SchemaGenerator::default();
    let schema = (info.schema)(&mut generator);
    let schemas = Schemas { definitions: generator.definitions().clone() };
    let blocks = schemas.values("", schema.as_value());
    let names: Vec<String> =
        schema.as_value()["properties"].as_object().expect("parameters").keys().cloned().collect();
    let separator = proptest::sample::select(vec![" ", ",", ", ", "\n", "\",\"", ""]);
    let read = Cell::new(0);
    let compare = |one: &Value, two: &Value| -> Result<(), TestCaseError> {
        let (Some(first), Some(second)) = (parse(info, one), parse(info, two)) else { return Ok(()) };
        read.set(read.get() + usize::from(one != two));
        if described(&*first) == described(&*second) {
            let meaning = |block: &Value| format!("{:?}", parse(info, &plain(info.name, block)));
            prop_assert_eq!(meaning(one), meaning(two), "`{}`: {} and {}", info.name, one, two);
        }
        Ok(())
    };
    let pairs = (blocks.clone(), blocks, proptest::sample::select(names), separator);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(400) });
    let outcome = runner.run(&pairs, |(one, other, name, separator)| {
        // Another value of one parameter; every list with its neighbours run together.
        let mut changed = one.clone();
        let map = changed.as_object_mut().expect("a block is a mapping");
        match other.get(&name) {
            Some(value) => drop(map.insert(name, value.clone())),
            None => drop(map.remove(&name)),
        }
        compare(&one, &changed)?;
        compare(&one, &run_together(&one, separator))
    });
    assert!(outcome.is_err() || read.get() > 50, "`{}`: only {} pairs that differ", info.name, read.get());
    outcome.map_err(|error| error.to_string())
}

#[test]
fn two_values_of_a_parameter_do_not_share_a_key() {
    for info in STAGES {
        if let Err(error) = search(info, described) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_search_finds_words_that_run_together() {
    /// The same with the items of lists joined by spaces.
    fn joined(stage: &dyn Stage) -> Manifest {
        let mut manifest = Manifest::default();
        for (name, value) in described(stage).entries() {
            let list: Option<Vec<String>> = serde_json::from_str(value).ok();
            manifest.field(name, list.map_or_else(|| value.to_owned(), |items| items.join(" ")));
        }
        manifest
    }
    for name in ["evaluate", "select"] {
        let info = STAGES.iter().find(|info| info.name == name).expect("a stage");
        assert!(search(info, joined).is_err(), "`{name}`");
    }
}
