//! Models by their name, from a small hub on this machine: the commit in the key, only the files of the model, a
//! download that was cut, and life without a network.

#![cfg(feature = "hub")]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::process::Output;

use common::{Sandbox, expect_code, root};
use server::Hub;

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
/// What lies in repositories and is not needed, or would lead out of its folder.
const OTHERS: &[&str] = &[
    "README.md",
    "nano.safetensors",
    "pictures/00.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/model.onnx",
    "../outside.json",
    "unet/../../outside.json",
];

fn hub() -> Hub {
    let parts = ["", "unet", "vae", "text_encoder", "tokenizer", "scheduler"];
    let hub = Hub::start(&root().join("examples/nano-sd"), &parts);
    hub.state().files.extend(OTHERS.iter().map(|&name| (name.to_owned(), b"not this".to_vec())));
    hub
}

/// Does `command` with a pipeline that loads `model`.
fn with_model(
    sandbox: &Sandbox,
    endpoint: &str,
    command: &str,
    model: &str,
    more: &[(&str, &str)],
) -> Output {
    let stage = format!("{{ id: teacher, use: load, with: {{ model: {model} }} }}");
    with_stages(sandbox, endpoint, command, &stage, more)
}

/// Does `command` with a pipeline of these stages.
fn with_stages(
    sandbox: &Sandbox,
    endpoint: &str,
    command: &str,
    stages: &str,
    more: &[(&str, &str)],
) -> Output {
    let file = sandbox.write("small.yaml", &format!("format: 1\nname: small\nstages:\n  - {stages}\n"));
    let mut process = sandbox.command(&[command, &file.to_string_lossy()]);
    for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        process.env_remove(name);
    }
    process.env("HF_HOME", sandbox.path("hf")).env("HF_ENDPOINT", endpoint);
    process.envs(more.iter().copied()).output().expect("the program starts")
}

/// Everything that it printed, in one line.
fn words(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn expect(output: &Output, code: i32, parts: &[&str]) {
    expect_code(output, code);
    let text = words(output);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

/// Nobody answers there.
const NOWHERE: &str = "http://127.0.0.1:9";

#[test]
fn a_name_is_the_model_that_a_folder_would_be() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    let output = with_model(&sandbox, &hub.address, "run", "owner/nano", &[]);
    expect(&output, 0, &["pinned teacher: owner/nano at main is commit 1111111111"]);
    for (path, _) in &hub.state().asked {
        assert!(!OTHERS.iter().any(|other| path.ends_with(other)), "{path} was asked for");
    }
    let digests = sandbox.digests("small");

    let folder = Sandbox::new();
    expect_code(&with_model(&folder, NOWHERE, "run", "'{nano}'", &[]), 0);
    assert_eq!(folder.digests("small"), digests);
}

#[test]
fn without_a_network_the_cache_of_the_hub_is_enough() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    expect_code(&with_model(&sandbox, &hub.address, "run", "owner/nano", &[]), 0);
    let digests = sandbox.digests("small");

    let seen = "is commit 1111111111111111111111111111111111111111, as the hub's cache last saw it";
    let output = with_model(&sandbox, NOWHERE, "run", "owner/nano", &[]);
    expect(&output, 0, &[seen, "cached teacher"]);
    let other = sandbox.path("other").to_string_lossy().into_owned();
    let offline = [("LAPTOP_DIFF_CACHE", other.as_str()), ("HF_HUB_OFFLINE", "1")];
    let asked = hub.state().asked.len();
    expect(&with_model(&sandbox, &hub.address, "run", "owner/nano", &offline), 0, &[seen, "done teacher"]);
    assert_eq!(hub.state().asked.len(), asked, "HF_HUB_OFFLINE is set");
    assert_eq!(sandbox.digests("small"), digests);

    // The weights of a part that no stage has opened yet.
    let snapshot = sandbox.path("hf/hub/models--owner--nano/snapshots").join("1".repeat(40));
    std::fs::remove_file(snapshot.join("vae/diffusion_pytorch_model.safetensors"))
        .expect("it was downloaded");
    let third = sandbox.path("third").to_string_lossy().into_owned();
    let output = with_model(&sandbox, NOWHERE, "run", "owner/nano", &[("LAPTOP_DIFF_CACHE", &third)]);
    expect(&output, 4, &["hub::offline", "lacks some files of `owner/nano`"]);

    let model = "owner/nano, revision: 2222222222222222222222222222222222222222";
    expect(
        &with_model(&sandbox, NOWHERE, "plan", model, &[]),
        0,
        &["runs", "commit 1111111111", "commit 2222222222"],
    );
    let parts = ["hub::offline", "hf download owner/nano --revision 2222222222", "path of a model folder"];
    expect(&with_model(&sandbox, NOWHERE, "run", model, &[]), 4, &parts);
}

#[test]
fn a_branch_that_moves_is_another_model() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    expect_code(&with_model(&sandbox, &hub.address, "run", "owner/nano", &[]), 0);
    expect(&with_model(&sandbox, &hub.address, "plan", "owner/nano", &[]), 0, &["cached"]);
    hub.state().commit = "3".repeat(40);
    let output = with_model(&sandbox, &hub.address, "plan", "owner/nano", &[]);
    expect(&output, 0, &["runs", "owner/nano at main is commit 3333333333", "file model: commit 1111111111"]);
}

#[test]
fn a_download_that_was_cut_goes_on() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    hub.state().broken = Some(UNET.to_owned());
    let output = with_model(&sandbox, &hub.address, "run", "owner/nano", &[]);
    expect(&output, 4, &["hub::download", UNET, "status 503", "to resume the download"]);

    let half = hub.state().files[UNET].len() / 2;
    (hub.state().broken, hub.state().asked) = (None, Vec::new());
    expect_code(&with_model(&sandbox, &hub.address, "run", "owner/nano", &[]), 0);
    let path = format!("/cdn/{UNET}");
    let asked: Vec<usize> =
        hub.state().asked.iter().filter(|(asked, _)| *asked == path).map(|&(_, start)| start).collect();
    assert_eq!(asked, [0, half], "its first byte for its size, then the second half");
}

#[test]
fn a_part_that_was_whole_or_too_long_is_begun_anew() {
    for extra in [&b""[..], b"more"] {
        let (sandbox, hub) = (Sandbox::new(), hub());
        let bytes = hub.state().files[UNET].clone();
        let blobs = sandbox.path("hf/hub/models--owner--nano/blobs");
        std::fs::create_dir_all(&blobs).expect("a writable folder");
        let part = blobs.join(format!("{}.part", blake3::hash(&bytes)));
        std::fs::write(part, [&bytes[..], extra].concat()).expect("a writable folder");
        expect_code(&with_model(&sandbox, &hub.address, "run", "owner/nano", &[]), 0);
    }
}

#[test]
fn a_refused_request_says_what_to_do() {
    let (sandbox, hub) = (Sandbox::new(), hub());
    let plan = |model: &str, more: &[(&str, &str)]| with_model(&sandbox, &hub.address, "plan", model, more);
    expect(
        &plan("owner/nane", &[]),
        4,
        &["hub::not_found", "no `owner/nane` at revision `main`", "check its name"],
    );
    expect(&plan("owner/nano, revision: v2", &[]), 4, &["hub::not_found", "revision `v2`", "small.yaml:4:"]);
    expect(
        &plan("owner/nano, revision: ../x", &[]),
        3,
        &["pipeline::bad_value", "cannot be a branch, tag or commit"],
    );
    expect(&plan("owner/nano, variant: bf16", &[]), 0, &["runs"]);
    let output = with_model(&sandbox, &hub.address, "run", "owner/nano, variant: bf16", &[]);
    expect(&output, 4, &["model::no_variant", "available: fp16"]);
    hub.state().gated = true;
    let parts = ["hub::refused", "without a token", "status 401", "hf auth login", "HF_TOKEN"];
    expect(&plan("owner/nano", &[]), 4, &parts);
    expect(&plan("owner/nano", &[("HF_TOKEN", "wrong")]), 4, &["hub::refused", "this token"]);
    expect(&plan("owner/nano", &[("HF_TOKEN", "secret")]), 0, &["runs"]);
}

/// An evaluation of three pictures.
fn evaluation(scorer: &str) -> String {
    format!(
        "{{ id: teacher, use: load, with: {{ model: '{{nano}}' }} }}\n  - {{ id: result, use: evaluate, with: {{ \
         models: {{ teacher: teacher }}, metrics: [pick-score], prompts: '{{nano}}/prompts/evaluation.txt', pictures: 3, \
         scorer: {scorer}, drawing: {{ steps: 1, guidance-scale: 1 }} }} }}"
    )
}

#[test]
fn a_scorer_of_the_hub_is_the_scorer_that_a_folder_would_be() {
    let (folder, sandbox) = (Sandbox::new(), Sandbox::new());
    let local = evaluation("'{nano}/scorer'");
    expect_code(&with_stages(&folder, NOWHERE, "run", &local, &[]), 0);
    let digests = folder.digests("small");

    let hub = Hub::start(&root().join("examples/nano-sd/scorer"), &[""]);
    let others = ["README.md", "pytorch_model.bin", "onnx/model.onnx", "flax_model.msgpack"];
    hub.state().files.extend(others.map(|name| (name.to_owned(), b"not this".to_vec())));
    let named = evaluation("owner/nano");
    let output = with_stages(&sandbox, &hub.address, "run", &named, &[]);
    expect(&output, 0, &["pinned result: owner/nano at main is commit 1111111111"]);
    assert_eq!(sandbox.digests("small"), digests);
    for (path, _) in &hub.state().asked {
        assert!(!others.iter().any(|other| path.ends_with(other)), "{path} was asked for");
    }
    expect(&with_stages(&sandbox, NOWHERE, "run", &named, &[]), 0, &["cached result"]);

    // Only what a processor has, without the weights.
    let sandbox = Sandbox::new();
    hub.state().asked.clear();
    let mixed = evaluation("{ model: '{nano}/scorer', processor: owner/nano }");
    expect(&with_stages(&sandbox, &hub.address, "run", &mixed, &[]), 0, &["pinned result: owner/nano"]);
    assert_eq!(sandbox.digests("small"), digests);
    let asked = |end: &str| hub.state().asked.iter().any(|(path, _)| path.ends_with(end));
    assert!(asked("vocab.json") && !asked("model.safetensors"));

    // Pickles are not read.
    hub.state().files.remove("model.safetensors");
    hub.state().commit = "4".repeat(40);
    let output = with_stages(&sandbox, &hub.address, "run", &named, &[]);
    let parts = [
        "hub::no_weights",
        "`owner/nano` has no weights",
        "only pytorch_model.bin",
        "examples/convert-weights.py",
    ];
    expect(&output, 4, &parts);
}
