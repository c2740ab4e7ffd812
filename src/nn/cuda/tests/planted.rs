//! Damages attention in ways that are easily made, and expects the tests to notice each of them.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Result};

use super::attention::operands;
use super::buffer::{Buffer, Flowing};
use super::emulator::{Build, Emulator, compile, sources};
use super::sanitizers;

/// A place in a file and what stands there instead.
struct Damage {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const BARRIER_BEFORE_USE: Damage = Damage {
    file: "attention_forward.cu",
    from: "copy_wait<1>();\n        __syncthreads();",
    to: "copy_wait<1>();",
};

const BARRIER_AFTER_USE: Damage = Damage {
    file: "attention_forward.cu",
    from: "__syncthreads(); // all warps are done",
    to: "// all warps are done",
};

const WAIT: Damage = Damage { file: "attention_forward.cu", from: "copy_wait<1>()", to: "copy_wait<2>()" };

const DIVERGENT_BARRIER: Damage = Damage {
    file: "attention_forward.cu",
    from: "copy_wait<1>();\n        __syncthreads();",
    to: "copy_wait<1>();\n        if (own < 32) __syncthreads();",
};

const END: Damage = Damage { file: "attention.cuh", from: "first + row < head.rows && ", to: "" };

/// Compiles forward attention, damaged, to a library in `folder`.
fn library(folder: &Path, damage: &Damage, build: Build) -> PathBuf {
    for (from, to) in
        [(sources(), folder.to_owned()), (sources().join("emulation"), folder.join("emulation"))]
    {
        fs::create_dir_all(&to).expect("a folder can be made");
        for entry in fs::read_dir(from).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_file() {
                fs::copy(&path, to.join(path.file_name().expect("a file has a name")))
                    .expect("it can be copied");
            }
        }
    }
    fs::write(folder.join("kernels.cu"), "#include \"attention_forward.cu\"\n").expect("it can be written");
    // Heads of 64 alone, to compile quickly.
    let forward = folder.join("attention_forward.cu");
    let text = fs::read_to_string(&forward).expect("a readable file");
    let kept = text.lines().filter(|line| !line.starts_with("ATTENTION_FORWARD(") || line.contains("(64, "));
    fs::write(&forward, kept.map(|line| format!("{line}\n")).collect::<String>()).expect("it can be written");
    let damaged = folder.join(damage.file);
    let text = fs::read_to_string(&damaged).expect("a readable file");
    assert_eq!(text.matches(damage.from).count(), 1, "`{}` in {}", damage.from, damage.file);
    fs::write(&damaged, text.replace(damage.from, damage.to)).expect("it can be written");
    let library = folder.join("damaged.so");
    compile(folder, build, &library);
    library
}

/// The bits of the output for several tiles of queries and keys.
fn output(emulator: &Emulator) -> Result<Vec<u64>> {
    let shape = super::attention::shape([1, 1, 70, 200, 64], false);
    let operands = operands(&shape)?;
    let flowing = |i: usize| Flowing::of(&operands[i], DType::BF16);
    let [mut q, mut k, mut v] = [flowing(0)?, flowing(1)?, flowing(2)?];
    let mut out = Flowing::nan(operands[0].dims(), DType::BF16)?;
    let mut lse = Buffer::nan(shape.statistics());
    shape.forward(emulator, [q.pointer(), k.pointer(), v.pointer()], [out.pointer(), lse.pointer()])?;
    let numbers = out.tensor(operands[0].dims())?.flatten_all()?.to_vec1::<f64>()?;
    Ok(numbers.into_iter().map(f64::to_bits).collect())
}

/// What the sanitizers are given with a damaged library.
#[test]
fn undamaged() -> Result<()> {
    Emulator::schedules().iter().try_for_each(|emulator| output(emulator).map(drop))
}

#[test]
fn some_schedule_shows_what_a_kernel_may_not_rely_on() -> Result<()> {
    let right = output(&Emulator::schedules()[0])?;
    for damage in [&BARRIER_BEFORE_USE, &BARRIER_AFTER_USE, &WAIT] {
        let folder = tempfile::tempdir()?;
        let damaged = Emulator::open(&library(folder.path(), damage, Build::Plain));
        let shown = |schedule: &Emulator| output(schedule).map_or(true, |found| found != right);
        assert!(damaged.under_five_schedules().iter().any(shown), "nothing shows `{}`", damage.to);
    }
    Ok(())
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let damaged = Emulator::open(&library(folder.path(), &DIVERGENT_BARRIER, Build::Plain));
    let error = output(&damaged).expect_err("half of the threads pass by").to_string();
    assert!(error.contains("attention_forward_64: threads are at different barriers"), "{error}");
    Ok(())
}

fn sanitizer_says(damage: &Damage, build: Build, message: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let library = library(folder.path(), damage, build);
    let (passed, text) = sanitizers::run(build, &["planted::undamaged"], Some(&library));
    assert!(!passed && text.contains(message), "{text}");
    Ok(())
}

#[test]
fn a_read_past_the_end_is_found() -> Result<()> {
    sanitizer_says(&END, Build::Address, "AddressSanitizer: heap-buffer-overflow")
}

#[test]
fn a_race_is_found() -> Result<()> {
    sanitizer_says(&BARRIER_BEFORE_USE, Build::Thread, "ThreadSanitizer: data race")
}
