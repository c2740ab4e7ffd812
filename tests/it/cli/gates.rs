//! Gates on the results of an evaluation: the exit code, the terminal, the events and the report.

use crate::common::{Sandbox, expect_code};

const PIPELINE: &str = "\
format: 1
name: gates
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher, again: teacher }
      metrics: [pick-score, parameters]
      prompts: '{nano}/prompts/evaluation.txt'
      pictures: 4
      scorer: '{nano}/scorer'
      drawing: { steps: 4, guidance-scale: 3 }
      gates: [{gates}]
";

fn sandbox(gates: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("gates.yaml", &PIPELINE.replace("{gates}", gates));
    sandbox
}

#[test]
fn a_gate_that_is_not_met_ends_the_run_with_code_7_after_everything_is_written() {
    let met = "again.pick-score.wins >= 50 %";
    let missed = "again.parameters < 10";
    let sandbox = sandbox(&format!("{met}, {missed}"));
    let output = sandbox.run(&["run", "gates.yaml"]);
    expect_code(&output, 7);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&format!("gate met    result: {met} is met: found 0.5")), "{text}");
    assert!(text.contains(&format!("gate missed result: {missed} is not met: found")), "{text}");
    assert!(text.contains("run::gates"), "{text}");
    let read =
        |name: &str| std::fs::read_to_string(sandbox.path("runs/gates").join(name)).expect("it is written");
    assert!(read("result/metrics.json").contains("pick-score"));
    assert!(read("events.jsonl").contains("\"type\":\"gate-compared\""));
    let page = read("report.html");
    assert!(
        page.contains(&missed.replace('<', "&lt;")) && page.contains("not met"),
        "the report lacks the gates"
    );

    // A cached evaluation is compared with the gates as they are now.
    sandbox.write("gates.yaml", &PIPELINE.replace("{gates}", met));
    let output = sandbox.run(&["run", "gates.yaml"]);
    expect_code(&output, 0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cached      result"), "gates enter no key");
    assert!(!read("report.html").contains("not met"));

    // Gates at the top of the file are its only evaluation's.
    let text = format!("{}gates: [{met}, 'result.{missed}']\n", PIPELINE.replace("{gates}", met));
    sandbox.write("gates.yaml", &text);
    let output = sandbox.run(&["run", "gates.yaml"]);
    expect_code(&output, 7);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cached      result") && text.matches("gate met ").count() == 2, "{text}");
    assert!(text.contains(&format!("gate missed result: {missed} is not met")), "{text}");
}

#[test]
fn a_wrong_gate_is_underlined_before_anything_runs() {
    let sandbox = sandbox("agin.pick-score >= 20");
    let refused = |words: &[&str]| {
        let output = sandbox.run(&["run", "gates.yaml"]);
        expect_code(&output, 3);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for words in words {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!sandbox.path("cache/v1/entries").exists(), "a stage ran");
    };
    refused(&["`agin` is not among the models", "agin.pick-score >= 20", "^^^^", "did you mean `again`"]);

    // At the top of a pipeline, of its only evaluation or of the one that is named.
    let plain = PIPELINE.replace("{gates}", "");
    let with = |gates: &str, stages: &str| {
        sandbox.write("gates.yaml", &format!("{plain}{stages}gates: [{gates}]\n"));
    };
    with("agin.parameters > 1", "");
    refused(&["gates.yaml:15:9", "`agin` is not among the models"]);
    with("result.agin.parameters > 1", "");
    refused(&["gates.yaml:15:9", "`agin` is not among the models"]);
    let second = "  - { id: other, use: evaluate, with: { models: { teacher: teacher }, metrics: [macs], prompts: x } }\n";
    with("again.parameters > 1", second);
    refused(&["does not say which evaluation", "result.again.parameters > 1"]);
    let without = plain.split("  - id: result").next().expect("the first stage");
    sandbox.write("gates.yaml", &format!("{without}gates: [again.parameters > 1]\n"));
    refused(&["no stage of the pipeline evaluates models"]);
}
