//! Inputs that change while a stage runs: nothing is kept under the key of what was there before.

use super::*;
use crate::run::ExitCode;

/// Runs a stage that changes something by `change`, given the sandbox's folder, after it has read its file.
fn failing(change: impl Fn(&Path) + Send + Sync + 'static) -> (Sandbox, Ran) {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.folder.join("data")).expect("writable");
    write(&sandbox.folder.join("data/prompts.txt"), "a red square");
    write(&sandbox.folder.join("data/other.txt"), "a blue circle");
    let folder = sandbox.folder.clone();
    let stage = fake("b", &["a"]).file("data").act(move |context| {
        change(&folder);
        put(context, "read before")
    });
    let ran = sandbox.run(&[fake("a", &[]), stage]);
    (sandbox, ran)
}

fn expect_changed(ran: &Ran, sandbox: &Sandbox, path: &str) {
    assert_eq!(ran.exit_code(), ExitCode::File.number());
    let line = ran.error().line();
    assert!(line.contains("changed while the stage ran") && line.ends_with(path), "{line}");
    assert_eq!((ran.are(StageState::Failed), entries(sandbox)), (vec!["b"], 1));
}

#[test]
fn a_file_that_changes_is_named_and_nothing_is_kept() {
    let (sandbox, ran) = failing(|folder| write(&folder.join("data/prompts.txt"), "a red circle"));
    expect_changed(&ran, &sandbox, "data/prompts.txt");
    let (sandbox, ran) = failing(|folder| {
        // As `cp -p` would have it: equal size and time of modification.
        let path = folder.join("data/other.txt");
        let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("it has a time");
        write(&path, "a blue square");
        fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(time)).expect("writable");
    });
    expect_changed(&ran, &sandbox, "data/other.txt");
    let (sandbox, ran) = failing(|folder| fs::remove_file(folder.join("data/other.txt")).expect("there"));
    expect_changed(&ran, &sandbox, "data/other.txt");
    let (sandbox, ran) = failing(|folder| write(&folder.join("data/third.txt"), "new"));
    expect_changed(&ran, &sandbox, "data/third.txt");
}

#[test]
fn an_input_artefact_that_changes_is_named_too() {
    let (sandbox, ran) = failing(|folder| {
        let artefacts = fs::read_dir(folder.join("cache/v1/artefacts")).expect("there");
        let file = artefacts.flatten().next().expect("that of `a`").path().join("selection.json");
        fs::remove_file(&file).expect("there");
        write(&file, "evil");
    });
    assert_eq!((ran.exit_code(), entries(&sandbox)), (ExitCode::File.number(), 1));
    assert!(ran.error().line().contains("`reads.0` changed"), "{}", ran.error().line());
}

#[test]
fn a_file_that_is_only_touched_is_no_change() {
    let (sandbox, ran) = failing(|folder| {
        let path = folder.join("data/prompts.txt");
        fs::rename(&path, folder.join("moved")).expect("there");
        write(&path, "a red square");
        fs::write(folder.join("data/.DS_Store"), "of a tool").expect("writable");
    });
    assert_eq!((ran.exit_code(), entries(&sandbox)), (0, 2));
}

#[test]
fn an_intermediate_artefact_of_a_changed_file_is_not_kept() {
    let sandbox = Sandbox::new();
    let path = sandbox.folder.join("prompts.txt");
    write(&path, "a red square");
    let stage = fake("a", &[]).file("prompts.txt").act(move |context| {
        let mut manifest = Manifest::default();
        manifest.field("intermediate", 1);
        let fill = |output: &Path, _: &Path| {
            write(&path, "a red circle");
            write(&output.join("selection.json"), "read before");
            Ok(())
        };
        context.intermediates.intermediate(&manifest, &fill)?;
        put(context, "read before")
    });
    let ran = sandbox.run(&[stage]);
    assert_eq!((ran.exit_code(), entries(&sandbox)), (ExitCode::File.number(), 0));
}

#[test]
fn a_checkpoint_of_changed_inputs_is_not_resumed() {
    let sandbox = Sandbox::new();
    let path = sandbox.folder.join("prompts.txt");
    write(&path, "a red square");
    let run = |text: &'static str, is_over: bool| {
        let path = path.clone();
        let stage = fake("a", &[]).file("prompts.txt").act(move |context| {
            let step = context.checkpoint.join("step");
            let read = fs::read_to_string(&step).unwrap_or_else(|_| "nothing".to_owned());
            write(&path, text);
            write(&step, &fs::read_to_string(&path).expect("there"));
            if is_over { put(context, &read) } else { Err(crate::base::Interrupted.into()) }
        });
        sandbox.run(&[stage])
    };
    // Interrupted while other bytes were there, which are put back before the next attempt.
    assert_eq!(run("a red circle", false).exit_code(), 130);
    write(&path, "a red square");
    assert_eq!(run("a red square", false).exit_code(), 130);
    assert_eq!(run("a red square", true).exit_code(), 0);
    assert_eq!(sandbox.text("a"), "a red square", "the checkpoint of the second attempt, not of the first");
}
