//! What makes a stage run again and what does not: one test per knob.

use super::*;

/// `plain` and `seeded` stand alone, `computing` reads `plain`.
fn pipeline() -> [Fake; 3] {
    [fake("plain", &[]), fake("seeded", &[]).kind(&SEEDED), fake("computing", &["plain"]).kind(&COMPUTING)]
}

/// The stages that run when `after` follows `before` in a sandbox that `change` changed in between.
fn reruns(before: &[Fake], change: impl FnOnce(&mut Sandbox), after: &[Fake]) -> Vec<String> {
    let mut sandbox = Sandbox::new();
    write(&sandbox.folder.join("prompts.txt"), "a red square");
    write(&sandbox.folder.join("copy.txt"), "a red square");
    assert_eq!(sandbox.run(before).exit_code(), 0);
    change(&mut sandbox);
    let ran = sandbox.run(after);
    assert_eq!(ran.exit_code(), 0);
    ran.are(StageState::Done).into_iter().map(str::to_owned).collect()
}

/// The pipeline with its first stage changed.
fn with(first: Fake) -> Vec<Fake> {
    let mut stages = pipeline();
    stages[0] = first;
    stages.into()
}

const NONE: [&str; 0] = [];

#[test]
fn nothing_changed_runs_nothing() {
    assert_eq!(reruns(&pipeline(), |_| {}, &pipeline()), NONE);
}

#[test]
fn a_parameter_runs_its_stage_and_those_that_read_it() {
    let after = with(fake("plain", &[]).value("other"));
    assert_eq!(reruns(&pipeline(), |_| {}, &after), ["plain", "computing"]);
}

#[test]
fn a_parameter_that_leaves_the_bytes_alone_runs_its_stage_alone() {
    let mut same = fake("plain", &[]);
    same.value = "other words for it".to_owned();
    assert_eq!(reruns(&pipeline(), |_| {}, &with(same)), ["plain"]);
}

#[test]
fn a_stage_version_runs_its_stage() {
    assert_eq!(reruns(&pipeline(), |_| {}, &with(fake("plain", &[]).kind(&PLAIN_NEWER))), ["plain"]);
}

#[test]
fn the_seed_runs_seeded_stages() {
    assert_eq!(reruns(&pipeline(), |sandbox| sandbox.seed = 43, &pipeline()), ["seeded"]);
}

#[test]
fn an_id_runs_seeded_stages() {
    let mut after = pipeline();
    after[0].id = "renamed".into();
    after[1].id = "also-renamed".into();
    after[2].reads = vec!["renamed".into()];
    assert_eq!(reruns(&pipeline(), |_| {}, &after), ["also-renamed"]);
}

#[test]
fn the_device_class_runs_computing_stages() {
    let mut sandbox = Sandbox::new();
    let on_cpu = sandbox.run(&pipeline());
    sandbox.device = DeviceChoice::Cuda(0);
    // Where there is no such device, the run ends at the first stage that needs it.
    let on_cuda = sandbox.run(&pipeline());
    assert_eq!(on_cuda.are(StageState::Cached), ["plain", "seeded"]);
    assert_ne!(on_cuda.record.stages[2].key, on_cpu.record.stages[2].key);
    if cfg!(not(feature = "cuda")) {
        assert_eq!(on_cuda.exit_code(), 3);
        assert!(matches!(on_cuda.error(), RunError::Device { .. }));
    }
}

#[test]
fn the_device_choice_runs_nothing_where_its_class_is_the_same() {
    let mut sandbox = Sandbox::new();
    // With a GPU, `auto` is of the class of `cuda:0`; elsewhere of `cpu`.
    let named = [DeviceChoice::Cpu, DeviceChoice::Cuda(0)];
    let named = named.into_iter().find(|named| named.class() == DeviceChoice::Auto.class());
    sandbox.device = named.expect("auto is the CPU or the first GPU");
    assert_eq!(sandbox.run(&pipeline()).exit_code(), 0);
    sandbox.device = DeviceChoice::Auto;
    assert_eq!(sandbox.run(&pipeline()).are(StageState::Cached), ["plain", "seeded", "computing"]);
}

#[test]
fn the_contents_of_a_file_run_its_stage() {
    let stages = with(fake("plain", &[]).file("prompts.txt"));
    let edit = |sandbox: &mut Sandbox| write(&sandbox.folder.join("prompts.txt"), "a blue square");
    assert_eq!(reruns(&stages, edit, &stages), ["plain", "computing"]);
}

#[test]
fn the_time_of_a_file_runs_nothing() {
    let stages = with(fake("plain", &[]).file("prompts.txt"));
    let touch = |sandbox: &mut Sandbox| write(&sandbox.folder.join("prompts.txt"), "a red square");
    assert_eq!(reruns(&stages, touch, &stages), NONE);
}

#[test]
fn the_path_of_a_file_runs_nothing() {
    let (before, after) = (fake("plain", &[]).file("prompts.txt"), fake("plain", &[]).file("copy.txt"));
    assert_eq!(reruns(&with(before), |_| {}, &with(after)), NONE);
}

#[test]
fn the_place_of_project_and_cache_runs_nothing() {
    let stages = with(fake("plain", &[]).file("prompts.txt"));
    let move_away = |sandbox: &mut Sandbox| {
        let elsewhere = sandbox.folder.with_file_name("elsewhere");
        fs::rename(&sandbox.folder, &elsewhere).expect("one file system");
        sandbox.folder = elsewhere;
    };
    assert_eq!(reruns(&stages, move_away, &stages), NONE);
}

#[test]
fn the_name_of_the_pipeline_runs_nothing() {
    assert_eq!(reruns(&pipeline(), |sandbox| sandbox.name = "other", &pipeline()), NONE);
}

#[test]
fn other_stages_and_their_order_run_nothing_old() {
    let [plain, seeded, computing] = pipeline();
    let after = [fake("new", &[]).value("new"), computing, seeded, plain];
    assert_eq!(reruns(&pipeline(), |_| {}, &after), ["new"]);
}

#[test]
fn the_last_manifest_explains_what_changed() {
    let mut sandbox = Sandbox::new();
    sandbox.run(&pipeline());
    let old = sandbox.store().last_manifest("test", &"seeded".into()).expect("it ran");
    sandbox.seed = 43;
    let ran = sandbox.run(&pipeline());
    let new = ran.record.stages[1].manifest.clone().expect("it ran");
    let changes = new.changes_since(&old);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].name.as_str(), changes[0].old.as_deref()), ("seed", Some("42")));
}
