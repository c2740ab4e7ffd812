//! What `doctor` says of a machine and of a pipeline, with and without a GPU.

use std::process::Command;

use serde_json::Value;

use crate::common::{self, Sandbox, expect_code, root};

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Result<Value, serde_json::Error> {
    let output = sandbox.run(&[&["doctor", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout)
}

#[test]
fn a_pipeline_is_estimated_stage_by_stage() -> Result<(), serde_json::Error> {
    let sandbox = Sandbox::new();
    let file = root().join("pipelines/nano50.yaml");
    let file = file.to_string_lossy();
    let report = json(&sandbox, &[&file])?;
    let stages = report["pipeline"]["stages"].as_array().expect("a list");
    let of = |id: &str| &stages.iter().find(|stage| stage["id"] == id).expect("a stage of nano50")["needs"];
    let number = |id: &str, name: &str| of(id)[name].as_u64().expect("a number");
    // The student is about half of the teacher, and both are held in f32.
    let (teacher, retrained) = (number("scores", "weights"), number("retrained", "weights"));
    assert!(teacher > 0 && retrained > teacher && retrained < 2 * teacher, "{teacher} {retrained}");
    for name in ["optimiser", "activations", "disk"] {
        assert!(number("retrained", name) > 0, "{name}");
    }
    assert!(number("student", "disk") < number("teacher", "disk"));
    assert!(number("points", "data") > 0 && number("points", "disk") == number("points", "data"));
    assert!(of("selection").is_null());
    assert_eq!(
        (&report["pipeline"]["fits_memory"], &report["pipeline"]["fits_disk"]),
        (&true.into(), &true.into())
    );
    assert!(report["host"]["memory"].as_u64() > Some(0) && report["cache"]["free"].as_u64() > Some(0));
    // More samples at once take more activations, and nothing else.
    let larger = json(&sandbox, &[&file, "--set", "retrained.training.batch-size=32"])?;
    let stages = larger["pipeline"]["stages"].as_array().expect("a list");
    let retrained = &stages.iter().find(|stage| stage["id"] == "retrained").expect("a stage")["needs"];
    // Gradients come as activations go, so both together do not double.
    let times =
        retrained["activations"].as_u64().unwrap_or(0) as f64 / number("retrained", "activations") as f64;
    assert!((1.9..=2.0).contains(&times), "{times}");
    assert_eq!(retrained["optimiser"].as_u64(), Some(number("retrained", "optimiser")));
    Ok(())
}

#[test]
fn what_cannot_fit_has_an_exit_code() {
    let sandbox = Sandbox::new();
    let file = root().join("pipelines/nano50.yaml");
    let file = file.to_string_lossy();
    expect_code(&sandbox.run(&["doctor", &file]), 0);
    let output = sandbox.run(&["doctor", &file, "--set", "retrained.training.batch-size=65536"]);
    expect_code(&output, 5);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("`nano50` does not fit into") && text.contains(" at once"), "{text}");
}

#[test]
fn a_pipeline_whose_files_are_missing_is_not_said_to_fit() {
    let sandbox = Sandbox::new();
    let text = "format: 1\nname: lost\nseed: 1\nstages:\n  - { id: teacher, use: load, with: { model: ./nowhere } }\n";
    let file = sandbox.write("lost.yaml", text);
    let output = sandbox.run(&["doctor", &file.to_string_lossy()]);
    expect_code(&output, 4);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("missing: ") && text.contains("nowhere") && text.contains("is not known whole"),
        "{text}"
    );
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_cannot_be_used_has_an_exit_code() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(&["doctor", "--device", "cuda:0"]);
    expect_code(&output, 3);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("cuda:0: cuda: not available: this program was built without CUDA"), "{text}");
    let file = sandbox.write("small.yaml", include_str!("../../pipelines/small.yaml"));
    let run = sandbox.run(&["run", &file.to_string_lossy(), "--device", "cuda:0"]);
    common::expect(&run, 3, &["the device `cuda:0` cannot be used", "not available", "--device cpu"]);
}

#[test]
fn the_token_of_the_hub_is_not_shown() {
    let sandbox = Sandbox::new();
    for arguments in [["doctor"].as_slice(), &["doctor", "--json"]] {
        let output = sandbox.command(arguments).env("HF_TOKEN", "hf_secret").output().expect("it runs");
        expect_code(&output, 0);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!text.contains("hf_secret"), "{text}");
        #[cfg(feature = "hub")]
        assert!(text.contains("with a token") || text.contains("\"has_token\": true"), "{text}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_gpu_is_named_by_its_driver() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("libcuda.so.1");
    let source = root().join("tests/fake_driver/driver.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.expect("Rust's linker needs a C compiler").success());
    let folder = library.parent().expect("it lies in the sandbox");
    let output = sandbox.command(&["doctor"]).env("LD_LIBRARY_PATH", folder).output().expect("it runs");
    expect_code(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for words in
        ["cuda:0: Card of a test, 25.8 GB, 21.5 GB free, compute capability 8.6", "for CUDA up to 13.0"]
    {
        assert!(text.contains(words), "{text}");
    }
}

/// On a machine without NVIDIA's libraries the program would not start if it were linked with them.
#[test]
#[cfg(all(feature = "cuda", target_os = "linux"))]
fn no_library_of_cuda_is_needed_to_start() {
    let sandbox = Sandbox::new();
    // glibc's loader lists what the program is linked with instead of starting it, as ldd does.
    let output = sandbox.command(&[]).env("LD_TRACE_LOADED_OBJECTS", "1").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("libc.so") && !text.contains("libcu") && !text.contains("libnvrtc"), "{text}");
}
