//! Intermediate artefacts, which stages share: made once, kept, made again when damaged.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Two stages that share an intermediate artefact, and how often it was made. Making it fails where `fails` says so.
fn sharing(fails: fn() -> bool) -> ([Fake; 2], Arc<AtomicUsize>) {
    let fills = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fills);
    let act = move |context: &Context<'_>| {
        let mut manifest = Manifest::default();
        manifest.field("intermediate", "both");
        let folder = context.intermediates.intermediate(&manifest, &|folder, checkpoint| {
            counted.fetch_add(1, Ordering::Relaxed);
            context.progress.length(2, "parts");
            if checkpoint.join("begun").exists() {
                context.progress.resumed(1);
            }
            write(&checkpoint.join("begun"), "");
            if fails() {
                return Err(candle_core::Error::Msg("it is not whole".into()).into());
            }
            write(&folder.join("text"), "shared");
            Ok(())
        })?;
        put(context, &fs::read_to_string(folder.join("text")).expect("it is whole"))
    };
    ([fake("a", &[]).act(act.clone()), fake("b", &[]).act(act)], fills)
}

#[test]
fn stages_make_what_they_share_once_even_if_forced() {
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
fn damage_is_reported_as_an_event_and_made_good() {
    let sandbox = Sandbox::new();
    let (stages, fills) = sharing(|| false);
    sandbox.run(&stages[..1]);
    let artefacts = fs::read_dir(sandbox.folder.join("cache/v1/artefacts")).expect("there").flatten();
    let part = artefacts.map(|one| one.path().join("text")).find(|path| path.exists()).expect("the part");
    fs::write(&part, "other!").expect("writable");
    let ran = sandbox.run(&stages);
    assert_eq!((sandbox.text("b"), fills.load(Ordering::Relaxed)), ("shared".to_owned(), 2));
    let is_damage = |event: &&Event| matches!(event, Event::DamageFound { .. });
    let told: Vec<_> = ran.events.iter().filter(is_damage).collect();
    let Event::DamageFound { stage, path, .. } = told[0] else { unreachable!("they are filtered") };
    assert_eq!((told.len(), stage.as_str(), path), (1, "b", &part));
}

#[test]
fn an_interrupted_one_finds_its_checkpoint() {
    let sandbox = Sandbox::new();
    let begun = |ran: &Ran| ran.events.iter().any(|event| matches!(event, Event::StageResumed { .. }));
    let failed = sandbox.run(&sharing(|| true).0[..1]);
    assert_eq!((failed.are(StageState::Failed), begun(&failed)), (vec!["a"], false));
    let ran = sandbox.run(&sharing(|| false).0[..1]);
    assert!(begun(&ran), "the checkpoint was there");
}
