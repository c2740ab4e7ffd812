//! Compiles the CUDA kernels where the program is built with the feature `cuda`: for compute capability 8.0 as PTX, which every
//! later card's driver compiles when it is first used, and for 8.0 and 9.0 as they run.
//!
//! nvcc is that of `NVCC`, of `CUDA_HOME`, or the one on the path, as for candle's own kernels.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

/// The folder of the kernels.
const FOLDER: &str = "src/nn/cuda";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for entry in fs::read_dir(FOLDER).expect("the kernels' folder") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for variable in ["NVCC", "CUDA_HOME", "NVCC_CCBIN"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let set = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let nvcc = set("NVCC").or_else(|| Some(set("CUDA_HOME")?.join("bin/nvcc")));
    let nvcc = nvcc.unwrap_or_else(|| PathBuf::from("nvcc"));
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.fatbin");
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-Xfatbin=-compress-all", "-fatbin"]);
    for (virtual_, real) in [("80", "compute_80"), ("80", "sm_80"), ("90", "sm_90")] {
        command.arg(format!("-gencode=arch=compute_{virtual_},code={real}"));
    }
    if let Some(compiler) = set("NVCC_CCBIN") {
        command.arg("-ccbin").arg(compiler);
    }
    command.arg(format!("{FOLDER}/kernels.cu")).arg("-o").arg(&to);
    let status = command.status();
    let status = status.unwrap_or_else(|error| panic!("{}: {error}; set NVCC or CUDA_HOME", nvcc.display()));
    assert!(status.success(), "{} failed on the kernels of {FOLDER}", nvcc.display());
}
