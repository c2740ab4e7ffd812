//! What a run needs and this machine lacks: a plan is made all the same, and a run ends before its first stage with a list.

use crate::common::{Sandbox, expect_code};

const PIPELINE: &str = "\
format: 1
name: lacking
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher }
      metrics: [pick-score, hps-v2, parameters]
      prompts: { set: partiprompts }
      scorers:
        pick-score: { model: yuvalkirstain/PickScore_v1, processor: '{nano}/scorer' }
        hps-v2: { model: ./scorers/hps-v2.1, processor: '{nano}/scorer' }
";

/// Of each missing file its name, where it comes from and how big it is.
const LACKING: [&str; 8] = [
    "yuvalkirstain/PickScore_v1",
    "hf download yuvalkirstain/PickScore_v1 --revision main",
    "takes 3.9 GB",
    "scorers/hps-v2.1",
    "HPS_v2.1_compressed.pt of xswu/HPSv2",
    "examples/convert-weights.py",
    "prompts/PartiPrompts.tsv",
    "github.com/google-research/parti",
];

/// A message without the places where its lines are broken.
fn unwrapped(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace('│', " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_plan_works_offline_and_a_run_lists_what_to_fetch_before_its_first_stage() {
    let sandbox = Sandbox::new();
    sandbox.write("lacking.yaml", PIPELINE);
    let run = |command: &str| {
        let mut command = sandbox.command(&[command, "lacking.yaml"]);
        command.env("HF_HUB_OFFLINE", "1").output().expect("the program starts")
    };
    let (plan, refused) = (run("plan"), run("run"));
    expect_code(&plan, 0);
    expect_code(&refused, 4);
    for (what, text) in [("plan", plan.stdout), ("run", refused.stderr)] {
        // Lines break at spaces and slashes.
        let solid = |text: &str| text.split_whitespace().collect::<String>();
        let text = unwrapped(&text);
        for words in LACKING {
            assert!(solid(&text).contains(&solid(words)), "{what} lacks `{words}`: {text}");
        }
    }
    assert!(!sandbox.path("cache/v1/entries").exists(), "a stage ran");
}

#[test]
fn prompts_of_a_set_are_compared_with_its_number_and_digest() {
    let sandbox = Sandbox::new();
    sandbox.write("lacking.yaml", &PIPELINE.replace("pick-score, hps-v2, ", ""));
    let others = (0..1632).map(|index| format!("prompt {index}\tAbstract"));
    let table: Vec<String> = ["Prompt\tCategory".to_owned()].into_iter().chain(others).collect();
    sandbox.write("prompts/PartiPrompts.tsv", &table.join("\n"));
    let refused = |words: &str| {
        let output = sandbox.run(&["plan", "lacking.yaml"]);
        expect_code(&output, 4);
        let text = unwrapped(&output.stderr);
        assert!(text.contains(words), "{words}: {text}");
    };
    refused("its prompts have the digest");
    sandbox.write("prompts/PartiPrompts.tsv", &table[..100].join("\n"));
    refused("has 1632 prompts, but 99 were read");
}
