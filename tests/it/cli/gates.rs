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
}

#[test]
fn a_wrong_gate_is_underlined_before_anything_runs() {
    let sandbox = sandbox("agin.pick-score >= 20");
    let output = sandbox.run(&["run", "gates.yaml"]);
    expect_code(&output, 3);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for words in ["`agin` is not among the models", "agin.pick-score >= 20", "^^^^", "did you mean `again`"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!sandbox.path("cache/v1/entries").exists(), "a stage ran");
}
