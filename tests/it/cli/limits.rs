//! The largest numbers that a pipeline may have, and places that a command must not write to: what cannot be done ends in a
//! sentence and an exit code, never in an abort.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::common::{Sandbox, expect_code, root};

#[track_caller]
fn expect(output: &Output, code: i32, words: &str) {
    expect_code(output, code);
    let text = String::from_utf8_lossy(&output.stderr)
        .replace('│', " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(text.contains(words), "{words:?} is not in {text}");
}

/// The small model with latents of 4096x4096, of which one sample takes gigabytes.
fn vast_model(sandbox: &Sandbox) {
    let nano = root().join("examples/nano-sd");
    let copied =
        Command::new("cp").arg("-r").arg(&nano).arg(sandbox.path("vast")).status().expect("cp starts");
    assert!(copied.success());
    let path = sandbox.path("vast/unet/config.json");
    let config = fs::read_to_string(&path).expect("a config");
    fs::write(&path, config.replace("\"sample_size\": 16", "\"sample_size\": 4096"))
        .expect("a writable file");
}

#[test]
fn work_that_cannot_fit_into_memory_ends_before_it_begins() {
    let sandbox = Sandbox::new();
    vast_model(&sandbox);
    let teacher = "{ id: teacher, use: load, with: { model: vast } }";
    for (stage, what) in [
        (
            "calibrate, with: { model: teacher, prompts: p.txt, samples: 1000000, drawing: { batch: 65536 } }",
            "65536 samples with latents of 4096x4096 take at least",
        ),
        (
            "calibrate, with: { model: teacher, prompts: p.txt, samples: 1000000, drawing: { size: 128x128, batch: 1 } }",
            "1000000 points take at least",
        ),
        (
            "encode, with: { model: teacher, prompts: p.txt, samples: 10000000, drawing: { size: 8192x8192, batch: 65536, guidance-scale: 1000 } }",
            "65536 samples with latents of 2048x2048 take at least",
        ),
        (
            "profile, with: { model: teacher, batch: 65536, repetitions: 10000 }",
            "65536 samples take at least",
        ),
    ] {
        sandbox.write("p.txt", "a circle\n");
        let text =
            format!("format: 1\nname: vast\nstages:\n  - {teacher}\n  - {{ id: two, use: {stage} }}\n");
        let file = sandbox.write("vast.yaml", &text);
        // The second needs 33 GB, which some machines have: a control group could not be made here.
        if what.starts_with("1000000") && free_bytes() > 30 << 30 {
            continue;
        }
        expect(&sandbox.run(&["run", &file.to_string_lossy()]), 5, what);
    }
}

fn free_bytes() -> u64 {
    laptop_diff::backend::memory::free(&candle_core::Device::Cpu)
}

#[test]
fn more_threads_than_help_are_not_started() {
    let sandbox = Sandbox::new();
    let nano = root().join("examples/nano-sd");
    let draw =
        ["generate", nano.to_str().expect("letters"), "--prompt", "a ring", "--steps", "2", "--threads"];
    let output = sandbox.run(&[&draw[..], &["4096"]].concat());
    expect(&output, 0, "threads instead of 4096: more than 4 per core only slow it down");
    expect(&sandbox.run(&[&draw[..], &["1000000"]].concat()), 2, "a whole number from 1 to 4096");
    sandbox.write("laptop-diff.yaml", "threads: 1000000\n");
    let file = sandbox
        .write("one.yaml", "format: 1\nname: one\nstages:\n  - { id: a, use: load, with: { model: m } }\n");
    expect(&sandbox.run(&["plan", &file.to_string_lossy()]), 3, "a whole number from 1 to 4096");
}

#[test]
fn outputs_are_new_names_or_ordinary_files_and_folders() {
    let sandbox = Sandbox::new();
    let nano = root().join("examples/nano-sd");
    let nano = nano.to_str().expect("letters");
    let file = sandbox.write(
        "one.yaml",
        "format: 1\nname: one\nstages:\n  - { id: teacher, use: load, with: { model: \"{nano}\" } }\n",
    );
    expect_code(&sandbox.run(&["run", &file.to_string_lossy()]), 0);
    fs::write(sandbox.path("mine"), b"mine").expect("a writable folder");
    fs::create_dir(sandbox.path("folder")).expect("a writable folder");
    symlink("mine", sandbox.path("link")).expect("a writable folder");
    symlink("nowhere.safetensors", sandbox.path("dangling.safetensors")).expect("a writable folder");
    fs::create_dir(sandbox.path("drawn")).expect("a writable folder");
    symlink("../mine", sandbox.path("drawn/000.png")).expect("a writable folder");

    let report = |out: &str| sandbox.run(&["report", "runs/one", "--out", out]);
    for (out, words) in [
        ("/dev/null", "/dev/null is a device; a file or a new name is needed"),
        ("link", "link is a symbolic link to mine; a file or a new name is needed"),
        ("folder", "folder is a folder; a file or a new name is needed"),
    ] {
        expect(&report(out), 4, words);
    }
    expect_code(&report("mine"), 0);
    let draw =
        |out: &str| sandbox.run(&["generate", nano, "--prompt", "a ring", "--steps", "1", "--output", out]);
    fs::write(sandbox.path("mine"), b"mine").expect("a writable folder");
    expect(&draw("/dev/null"), 4, "/dev/null is a device; a folder or a new name is needed");
    expect(&draw("mine"), 4, "mine is a file; a folder or a new name is needed");
    expect(&draw("drawn"), 4, "is a symbolic link to ../mine; a file or a new name is needed");
    let export = |out: &str| sandbox.run(&["export", nano, "--to", "comfyui", "--output", out]);
    expect(&export("dangling.safetensors"), 4, "dangling.safetensors exists already");
    assert_eq!(fs::read(sandbox.path("mine")).expect("it is there"), b"mine");
    assert!(!sandbox.path("nowhere.safetensors").exists());
}

#[test]
fn a_message_that_nobody_reads_does_not_change_the_exit_code() {
    let sandbox = Sandbox::new();
    for (arguments, code) in [("plan absent.yaml", 3), ("plan", 2), ("list", 0), ("--help", 0)] {
        let program = env!("CARGO_BIN_EXE_laptop-diff");
        // A pipe whose reader has gone, then no stream at all.
        for script in [
            format!("( trap '' PIPE; sleep 0.2; {program} {arguments}; echo $? >code ) 2>&1 | true; sleep 1"),
            format!("{program} {arguments} >&- 2>&-; echo $? >code"),
        ] {
            let mut command = Command::new("bash");
            command.args(["-c", &script]).current_dir(sandbox.path("."));
            command.env("HOME", sandbox.path("."));
            command.output().expect("bash starts");
            let found = fs::read_to_string(sandbox.path("code")).expect("it was written");
            assert_eq!(found.trim(), code.to_string(), "{script}");
        }
    }
}
