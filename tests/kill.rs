//! A run that is killed at any moment and started again ends with the same bytes as one that was left alone.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Sandbox, expect_code};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const PIPELINE: &str = include_str!("pipelines/small.yaml");
/// Spread over all stages: the last falls where the undisturbed run would have ended.
const KILLS: u32 = 16;

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let calm = Sandbox::new();
    let file = calm.write("small.yaml", PIPELINE);
    let began = Instant::now();
    expect_code(&calm.run(&["run", &file.to_string_lossy()]), 0);
    let whole = began.elapsed();
    let expected = calm.digests("small");

    // The moments differ on every machine whatever the seed, because its speed does; the seed keeps their spread.
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let stormy = Sandbox::new();
    let file = stormy.write("small.yaml", PIPELINE);
    let file = file.to_string_lossy();
    let mut killed = 0;
    for _ in 0..KILLS {
        let mut child = stormy.start(&["run", &file]);
        // Each attempt gets up to a fifth of the whole, so that progress and kills both happen.
        let share = f64::from(random.next_u32()) / f64::from(u32::MAX);
        sleep(Duration::from_secs_f64(whole.as_secs_f64() * 0.2 * share));
        killed += u32::from(child.try_wait().expect("a child to look at").is_none());
        child.kill().expect("SIGKILL is allowed");
        child.wait().expect("a child to wait for");
    }
    expect_code(&stormy.run(&["run", &file]), 0);
    assert_eq!(stormy.digests("small"), expected, "after {killed} kills");
    assert!(killed >= KILLS / 2, "only {killed} of {KILLS} kills found the run alive");
}
