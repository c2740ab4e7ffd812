//! What `laptop-diff plan` says before a run, after it, and after each kind of change.

use super::{check, run, sandbox, transcript};

#[test]
fn plan_says_what_would_run_and_why() {
    let sandbox = sandbox("", "");
    let mut text = String::new();
    let mut plan = |arguments: &[&str]| {
        let arguments = [&["plan", "small.yaml"], arguments].concat();
        text += &transcript(&sandbox, &arguments);
        text.push('\n');
    };
    plan(&[]);
    let ran = run(&sandbox, &["run", "small.yaml"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    plan(&["--exit-code"]);
    plan(&["--set", "selection.ratio=0.4", "--exit-code"]);
    plan(&["--set", "seed=2"]);
    plan(&["--set", "scores.criteria=[magnitude]"]);
    plan(&["--over", "selection.ratio=0.3,0.5"]);
    sandbox.write("prompts.txt", "a red circle\na green star\n");
    plan(&[]);
    check("plan", &text);
}
