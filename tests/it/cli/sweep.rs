//! Sweeps, done to the real program: what is shared runs once, a branch is what `--set` would give, a failure stays in its
//! branch, what was cut off goes on, and one report shows it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Sandbox, expect, expect_code, root};
use serde_json::Value;

const PIPELINE: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: prompts.txt, samples: 2, drawing: { steps: 1, guidance-scale: 1 } } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude, random], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - id: result
    use: evaluate
    with: { models: { teacher: teacher, pruned: student }, metrics: [output-loss, clip-score], prompts: prompts.txt, points: points, scorer: '{nano}/scorer', drawing: { steps: 1, guidance-scale: 1 } }
";

/// A sandbox with the pipeline and this `sweep:` in `small.yaml`.
fn sandbox(sweep: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    sandbox.write("small.yaml", &format!("{PIPELINE}{sweep}"));
    sandbox
}

fn record(sandbox: &Sandbox, name: &str) -> Value {
    let text = fs::read(sandbox.path("runs").join(name).join("run.json")).expect("run.json");
    serde_json::from_slice(&text).expect("run.json is JSON")
}

/// A field of every stage of a run, by id.
fn each(record: &Value, field: &str) -> BTreeMap<String, String> {
    let stages = record["stages"].as_array().expect("stages").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    stages.map(|stage| (text(&stage["id"]), text(&stage[field]))).collect()
}

/// The ids of the stages in a state.
fn are(record: &Value, state: &str) -> BTreeSet<String> {
    each(record, "state").into_iter().filter(|(_, found)| found == state).map(|(id, _)| id).collect()
}

/// How many parts of evaluations are in the cache.
fn parts(sandbox: &Sandbox) -> usize {
    let entries = fs::read_dir(sandbox.path("cache/v1/entries")).expect("entries").flatten();
    let is_part = |text: String| text.contains("\"part\"");
    entries.filter(|entry| fs::read_to_string(entry.path()).is_ok_and(is_part)).count()
}

/// How often a stage was started in all runs of a name.
fn starts(sandbox: &Sandbox, name: &str) -> BTreeMap<String, usize> {
    let log = fs::read_to_string(sandbox.path("runs").join(name).join("events.jsonl")).expect("a log");
    let mut starts = BTreeMap::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("each line is an event");
        if event["event"]["type"] == "stage-started" {
            *starts.entry(event["event"]["stage"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
    }
    starts
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

#[test]
fn what_no_value_reaches_runs_once_and_another_value_runs_alone() {
    let sandbox = sandbox("sweep: { selection.ratio: [0.3, 0.5] }\n");
    expect_code(&sandbox.run(&["run", "small.yaml"]), 0);
    let shared = ["teacher", "points", "scores"];
    let branches = |ratio: &str| ["selection", "student", "result"].map(|id| format!("{id}@ratio={ratio}"));
    let mut all = set(&shared);
    all.extend(["0.3", "0.5"].into_iter().flat_map(branches));
    assert_eq!(are(&record(&sandbox, "small"), "done"), all);
    assert!(starts(&sandbox, "small").values().all(|&count| count == 1));
    assert!(sandbox.path("runs/small/student@ratio=0.3/unet/config.json").is_file());

    // Of each model pictures, their features and the output loss; the texts; pictures of noise and their features.
    assert_eq!(parts(&sandbox), 3 * 3 + 3, "a teacher for both branches, and two students");

    expect_code(&sandbox.run(&["sweep", "small.yaml", "--over", "selection.ratio=0.3,0.4,0.50"]), 0);
    let again = record(&sandbox, "small");
    assert_eq!(are(&again, "done"), branches("0.4").into());
    assert_eq!(are(&again, "cached"), all);
    assert_eq!(parts(&sandbox), 4 * 3 + 3, "a student more");
    // Fewer metrics, a selection, and other models are no matter of a part; how pictures are drawn is.
    let single = ["run", "small.yaml", "--set", "selection.ratio=0.3", "--set"];
    for (change, found) in [
        ("result.metrics=[output-loss]", 15),
        ("result.selection=selection", 15),
        ("result.drawing.steps=2", 19),
    ] {
        expect_code(&sandbox.run(&[&single[..], &[change]].concat()), 0);
        assert_eq!(parts(&sandbox), found, "{change}");
    }

    // A score of another batch is another score; a selection reads one of the two.
    let output = sandbox.run(&["run", "small.yaml", "--until", "selection", "--over", "scores.batch=1,2"]);
    expect_code(&output, 0);
    let batches = are(&record(&sandbox, "small"), "done");
    assert_eq!(batches.iter().filter(|id| id.starts_with("scores@")).count(), 2, "{batches:?}");
    let all = each(&record(&sandbox, "small"), "state");
    assert!(all.contains_key("selection@batch=2,ratio=0.5") && !all.contains_key("student"), "{all:?}");
    assert_eq!(all.len(), 2 + 2 + 3 * 4);
}

#[test]
fn a_branch_is_what_set_gives() {
    let sandbox = sandbox("");
    let sweep =
        ["sweep", "small.yaml", "--over", "seed=1,2", "--over", "selection.criterion=magnitude,random"];
    expect_code(&sandbox.run(&sweep), 0);
    let swept = record(&sandbox, "small");
    let single =
        ["run", "small.yaml", "--set", "name=one", "--set", "seed=2", "--set", "selection.criterion=random"];
    expect_code(&sandbox.run(&single), 0);
    let one = record(&sandbox, "one");
    let artefacts = |record: &Value| -> BTreeMap<String, Value> {
        let stages = record["stages"].as_array().expect("stages").iter();
        stages
            .map(|stage| {
                (stage["id"].as_str().expect("an id").to_owned(), stage["artefact"]["digest"].clone())
            })
            .collect()
    };
    assert_eq!(are(&one, "cached").len(), 6, "nothing ran: {one}");
    let (keys, digests) = (each(&swept, "key"), artefacts(&swept));
    for (id, key) in each(&one, "key") {
        let reached: &[&str] = match id.as_str() {
            "teacher" => &[],
            "points" | "scores" => &["seed=2"],
            _ => &["criterion=random", "seed=2"],
        };
        let branch = if reached.is_empty() { id.clone() } else { format!("{id}@{}", reached.join(",")) };
        assert_eq!(keys.get(&branch), Some(&key), "{branch}");
        assert_eq!(digests[&branch], artefacts(&one)[&id], "{branch}");
    }
    // Each selection is priced with the scores of its own seed.
    let page = fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a report");
    for id in keys.keys().filter(|id| id.starts_with("selection@")) {
        let selection =
            fs::read(sandbox.path("runs/small").join(id).join("selection.json")).expect("a selection");
        let selection: Value = serde_json::from_slice(&selection).expect("JSON");
        let sum = selection["predicted"]["objective"].as_f64().expect("a sum of scores");
        // Four digits.
        let decimals = (3.0 - sum.log10().floor()).max(0.0) as usize;
        let shown = format!("{sum:.decimals$}");
        let shown = shown.trim_end_matches('0').trim_end_matches('.');
        assert!(page.contains(&format!(">{shown}</text>")), "{id}: {shown}");
    }
    assert_eq!(page.matches("id=\"").count(), 0, "no id is there twice");

    // `--set` takes an axis of the file away.
    sandbox.write("small.yaml", &format!("{PIPELINE}sweep: {{ selection.ratio: [0.3, 0.4] }}\n"));
    let output = sandbox.run(&["graph", "small.yaml", "--set", "selection.ratio=0.3"]);
    expect_code(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
}

#[test]
fn a_failure_stays_in_its_branch_and_the_report_shows_the_others() {
    // Another selection that stands last, and that no student was made by.
    let sandbox = sandbox(
        "  - { id: other, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.05 } }
sweep:
  selection.criterion: [magnitude, random]
  selection.ratio: [0.3, 0.999, 0.5]
",
    );
    let output = sandbox.run(&["run", "small.yaml", "--keep-going"]);
    expect(
        &output,
        3,
        &[
            "2 stages failed",
            "selection@criterion=magnitude,ratio=0.999",
            "select::ratio_unreachable",
            "16 ran, 0 cached, 2 failed, 4 skipped",
        ],
    );
    let record = record(&sandbox, "small");
    assert_eq!(
        are(&record, "failed"),
        set(&["selection@criterion=magnitude,ratio=0.999", "selection@criterion=random,ratio=0.999"])
    );

    let page =
        fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a report of what came about");
    assert!(!page.contains("<script"));
    for text in ["selection × 6", "Sweep over", "which failed"] {
        assert!(page.contains(text), "{text:?} is not in the report");
    }
    let plots = page.split("class=\"plots\"").nth(1).and_then(|rest| rest.split("<table").next());
    let plots = plots.expect("plots before the table");
    for text in ["share of parameters removed", "class=\"line\"", "output-loss", "random"] {
        assert!(plots.contains(text), "{text:?} is not in the plots");
    }
    let rows =
        page.split("class=\"sweep\"").nth(1).and_then(|rest| rest.split("</table>").next()).expect("a table");
    assert_eq!(rows.matches("<tr>").count(), 1 + 6);
    let other = fs::read(sandbox.path("runs/small/other/selection.json")).expect("a selection");
    let other: Value = serde_json::from_slice(&other).expect("JSON");
    let ratio = 100.0 * other["ratio_reached"].as_f64().expect("a share");
    assert!(
        !rows.contains(&format!("{ratio:.1} %")),
        "a row has the selection that its student was made by: {rows}"
    );

    let again = sandbox.run(&["sweep", "small.yaml", "--over", "selection.ratio=0.3,0.5"]);
    expect(&again, 0, &["0 ran, 16 cached"]);
    let page = fs::read_to_string(sandbox.path("runs/small/report.html")).expect("a newer report");
    assert!(!page.contains("which failed"), "the report is of the sweep as it is now");

    // Going only so far where all is there leaves the page; what cannot be read is told in its place.
    let again = ["sweep", "small.yaml", "--over", "selection.ratio=0.3,0.5", "--until", "selection"];
    expect_code(&sandbox.run(&again), 0);
    let path = sandbox.path("runs/small/report.html");
    assert_eq!(fs::read_to_string(&path).expect("the report"), page);
    let run = ["sweep", "small.yaml", "--over", "selection.ratio=0.3,0.5"];
    expect_code(&sandbox.run(&run), 0);
    let selection = fs::canonicalize(sandbox.path("runs/small/other/selection.json")).expect("a selection");
    fs::write(selection, "{}").expect("writable");
    let report = sandbox.run(&["report", "runs/small", "--out", "page.html"]);
    expect(&report, 4, &["runs/small/other/selection.json is damaged"]);
    let page = fs::read_to_string(sandbox.path("page.html")).expect("a report in spite of one file");
    assert!(page.contains("cannot be shown") && page.contains("class=\"line\""), "the rest is shown");
}

#[test]
fn a_killed_sweep_goes_on() {
    let sweep = "sweep: { selection.ratio: [0.3, 0.4, 0.5] }\n";
    let calm = sandbox(sweep);
    expect_code(&calm.run(&["run", "small.yaml"]), 0);
    let stormy = sandbox(sweep);
    for stage in ["result@ratio=0.3", "student@ratio=0.5"] {
        let mut child = stormy.start(&["run", "small.yaml"]);
        let begun = Instant::now();
        let log = || fs::read_to_string(stormy.path("runs/small/events.jsonl")).unwrap_or_default();
        while !log().contains(&format!("\"type\":\"stage-started\",\"stage\":\"{stage}\"")) {
            assert!(begun.elapsed() < Duration::from_secs(300), "the sweep does not come to {stage}");
            sleep(Duration::from_millis(2));
        }
        child.kill().expect("SIGKILL is allowed");
        child.wait().expect("a child to wait for");
    }
    expect_code(&stormy.run(&["run", "small.yaml"]), 0);
    assert_eq!(stormy.digests("small"), calm.digests("small"));
}

#[test]
fn a_wrong_axis_says_where_it_is_and_what_would_be_right() {
    let file = |sweep: &str, code: i32, words: &[&str]| {
        let sandbox = sandbox(&format!("sweep:\n{sweep}"));
        for command in ["run", "plan", "graph", "sweep"] {
            expect(&sandbox.run(&[command, "small.yaml"]), code, words);
        }
        assert!(!sandbox.path("runs").exists(), "nothing ran");
    };
    file(
        "  selektion.ratio: [0.3]\n",
        3,
        &["pipeline::sweep", "small.yaml:14:3", "did you mean `selection`"],
    );
    file(
        "  selection.rato: [0.3]\n",
        3,
        &["pipeline::combination", "small.yaml:14:20", "did you mean `ratio`"],
    );
    file(
        "  selection.ratio: [0.3, half]\n",
        3,
        &["small.yaml:14:26", "\"half\"", "with selection.ratio=half"],
    );
    file(
        "  selection.layout: [vega]\n",
        3,
        &["small.yaml:14:22", "leave out `ratio` or `layout`", "with selection.layout=vega"],
    );

    let flag = |over: &str, code: i32, words: &[&str]| {
        expect(&sandbox("").run(&["sweep", "small.yaml", "--over", over]), code, words);
    };
    flag("selection.ratio", 2, &["--over selection.ratio", "no `=`"]);
    flag("selektion.ratio=0.3", 3, &["after --over selektion.ratio=0.3", "did you mean `selection`"]);
    flag("selection.ratio=0.3,1.5", 3, &["after --over", "`1.5`", "above 0 and below 1"]);
    flag("selection.ratio=", 3, &["is empty"]);
    let swept = sandbox("sweep: { result.models: [{ teacher: teacher, pruned: student }] }\n");
    for flags in [
        ["--over", "selection.ratio=0.3,0.4", "--set", "selection.ratio=0.5"],
        ["--set", "result.models.pruned=teacher", "--until", "result"],
    ] {
        expect(
            &swept.run(&[&["sweep", "small.yaml"], &flags[..]].concat()),
            2,
            &["already sweeps this value"],
        );
    }
    let until = |id: &str, words: &[&str]| {
        expect(&swept.run(&["run", "small.yaml", "--until", id]), 2, words);
    };
    until("resutl", &["did you mean `result`", "`teacher`, `points`"]);
    until("resutl@models=x", &["run::unknown_stage", "result@models="]);
    expect(&sandbox("").run(&["sweep", "small.yaml"]), 2, &["cli::nothing_to_sweep", "--over"]);
}

#[test]
fn a_plan_counts_and_the_shipped_sweeps_are_right() {
    let sandbox = Sandbox::new();
    for (name, summary) in [
        ("nano-criteria", "166 stages in 54 combinations of criterion and ratio: 0 cached, 166 to run"),
        ("nano-sweep", "17 stages in 3 combinations of ratio: 0 cached, 17 to run"),
    ] {
        let output = sandbox.run(&["plan", &root().join(format!("pipelines/{name}.yaml")).to_string_lossy()]);
        expect_code(&output, 0);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.trim_end().ends_with(summary), "{text}");
    }
}

#[test]
fn every_shipped_pipeline_of_the_small_model_can_be_planned() {
    let sandbox = Sandbox::new();
    let files = fs::read_dir(root().join("pipelines")).expect("a folder").flatten();
    let files: Vec<_> = files.map(|file| file.path().to_string_lossy().into_owned()).collect();
    let small: Vec<_> =
        files.iter().filter(|file| file.contains("/nano") && file.ends_with(".yaml")).collect();
    assert!(small.len() >= 7, "{files:?}");
    for file in small {
        expect_code(&sandbox.run(&["plan", file]), 0);
    }
}
