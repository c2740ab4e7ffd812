//! Parts of stages' work that stages share: filled once, kept, made good.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Two stages that share a part, and how often it was filled. `fails` is asked each time before the part is whole.
fn sharing(fails: fn() -> bool) -> ([Fake; 2], Arc<AtomicUsize>) {
    let fills = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fills);
    let act = move |context: &Context<'_>| {
        let mut manifest = Manifest::default();
        manifest.field("part", "both");
        let part = context.intermediates.intermediate(&manifest, &|folder, checkpoint| {
            counted.fetch_add(1, Ordering::Relaxed);
            write(&checkpoint.join("begun"), "");
            if fails() {
                return Err(candle_core::Error::Msg("the part is not whole".into()).into());
            }
            write(&folder.join("text"), "shared");
            Ok(())
        })?;
        put(context, &fs::read_to_string(part.join("text")).expect("the part is whole"))
    };
    ([fake("a", &[]).act(act.clone()), fake("b", &[]).act(act)], fills)
}

fn notes(ran: &Ran) -> Vec<&str> {
    let notes = ran.events.iter().filter_map(|event| match event {
        Event::StageNote { text, .. } => Some(text.as_str()),
        _ => None,
    });
    notes.collect()
}

#[test]
fn stages_fill_their_part_once_also_by_force() {
    let mut sandbox = Sandbox::new();
    let (stages, fills) = sharing(|| false);
    sandbox.run(&stages);
    assert_eq!(fills.load(Ordering::Relaxed), 1);
    sandbox.options.force = ["a".into(), "b".into()].into();
    assert_eq!(sandbox.run(&stages).are(StageState::Done), ["a", "b"]);
    assert_eq!(fills.load(Ordering::Relaxed), 2, "once in each run");
    // Another stage finds what is there.
    sandbox.options.force.clear();
    sandbox.run(&[stages[0].clone(), stages[1].clone(), stages[0].clone().named("c")]);
    assert_eq!(fills.load(Ordering::Relaxed), 2);
}

#[test]
fn a_damaged_part_is_told_and_made_again() {
    let sandbox = Sandbox::new();
    let (stages, fills) = sharing(|| false);
    sandbox.run(&stages[..1]);
    let artefacts = fs::read_dir(sandbox.folder.join("cache/v1/artefacts")).expect("there").flatten();
    let part = artefacts.map(|one| one.path().join("text")).find(|path| path.exists()).expect("the part");
    fs::write(&part, "other!").expect("writable");
    let ran = sandbox.run(&stages);
    assert_eq!((sandbox.text("b"), fills.load(Ordering::Relaxed)), ("shared".to_owned(), 2));
    assert!(notes(&ran).iter().any(|note| note.starts_with("damaged:")), "{:?}", ran.events);
}

#[test]
fn a_part_that_was_cut_off_says_that_it_goes_on() {
    let sandbox = Sandbox::new();
    let failed = sandbox.run(&sharing(|| true).0[..1]);
    assert_eq!((failed.are(StageState::Failed), notes(&failed).len()), (vec!["a"], 0));
    let ran = sandbox.run(&sharing(|| false).0[..1]);
    assert_eq!(notes(&ran), ["a part goes on from where it was cut off"]);
}
