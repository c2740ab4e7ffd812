//! `laptop-diff generate` by the real program, on the small Stable Diffusion in `examples/nano-sd`.

use std::fs;
use std::process::Output;

use crate::common::{Sandbox, expect_code, root};

/// Draws two pictures of a red circle into `folder` in two steps, unless `options` say otherwise.
fn draw(sandbox: &Sandbox, folder: &str, options: &[&str]) -> Output {
    let nano = root().join("examples/nano-sd");
    let mut arguments = vec!["generate", nano.to_str().expect("a path of letters"), "--count", "2"];
    for usual in [["--prompt", "a red circle"], ["--steps", "2"], ["--output", folder]] {
        if !options.contains(&usual[0]) {
            arguments.extend(usual);
        }
    }
    arguments.extend(options);
    sandbox.run(&arguments)
}

fn pictures(sandbox: &Sandbox, folder: &str) -> [Vec<u8>; 2] {
    ["000.png", "001.png"].map(|name| fs::read(sandbox.path(folder).join(name)).expect("it was drawn"))
}

#[test]
fn the_same_command_draws_the_same_pictures() {
    let sandbox = Sandbox::new();
    // With a sampler that adds noise of its own.
    let sampler = ["--sampler", "euler-ancestral"];
    let output = draw(&sandbox, "first", &sampler);
    expect_code(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first/000.png\nfirst/001.png\n");
    let first = pictures(&sandbox, "first");
    assert_ne!(first[0], first[1]);
    expect_code(&draw(&sandbox, "second", &sampler), 0);
    assert_eq!(first, pictures(&sandbox, "second"));
}

#[test]
fn every_option_changes_the_pictures() {
    let sandbox = Sandbox::new();
    expect_code(&draw(&sandbox, "plain", &[]), 0);
    let plain = pictures(&sandbox, "plain");
    for options in [
        ["--seed", "1"],
        ["--prompt", "a blue ring"],
        ["--negative-prompt", "a red circle"],
        ["--guidance", "1"],
        ["--steps", "3"],
        ["--sampler", "pndm"],
        ["--vae-tile", "8"],
        ["--size", "48x64"],
        ["--dtype", "bf16"],
    ] {
        expect_code(&draw(&sandbox, "other", &options), 0);
        assert_ne!(pictures(&sandbox, "other"), plain, "{options:?}");
    }
    let size = image::open(sandbox.path("plain/000.png")).expect("a PNG").to_rgb8().dimensions();
    assert_eq!(size, (64, 64));
}

#[test]
fn json_holds_what_was_drawn() {
    let sandbox = Sandbox::new();
    let output = draw(&sandbox, "out", &["--seed", "3", "--json", "--size", "32x64"]);
    expect_code(&output, 0);
    let drawn: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((drawn["seed"].as_u64(), drawn["prompt"].as_str()), (Some(3), Some("a red circle")));
    let first = drawn["pictures"][0].as_str().expect("a path");
    let size = image::open(sandbox.path(first)).expect("a PNG").to_rgb8().dimensions();
    assert_eq!(size, (32, 64));
}

#[test]
fn what_cannot_be_is_an_error_with_its_code() {
    let sandbox = Sandbox::new();
    for (options, code, words) in [
        (["--sampler", "heun"], 2, "euler-ancestral"),
        (["--size", "30x64"], 2, "multiples of 4"),
        (["--vae-tile", "6"], 2, "multiple of 4"),
        (["--steps", "5000"], 4, "5000 steps"),
        (["--steps", "0"], 2, "give a whole number from 1 to 10000"),
        (["--size", "4294967296x4294967296"], 2, "each at most 8192"),
        (["--guidance", "nan"], 2, "give a number from 0 to 1000"),
        (["--guidance", "1e308"], 2, "give a number from 0 to 1000"),
    ] {
        let output = draw(&sandbox, "out", &options);
        expect_code(&output, code);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    expect_code(&sandbox.run(&["generate", "no-model", "--prompt", "a"]), 4);
    assert!(!sandbox.path("out").exists());
}
