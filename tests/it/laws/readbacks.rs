//! A training step on a GPU waits for nothing: what runs in it does not read a tensor, because that waits for all work that
//! was queued. Numbers go to the host by `nn::Later`.

use super::source::{code, files, read, root};

/// Files and folders that a step of `distill` goes through on a GPU that trains alone.
const STEP: &[&str] = &[
    "src/distill/batches.rs",
    "src/distill/feature_maps.rs",
    "src/distill/losses.rs",
    "src/distill/student.rs",
    "src/model/network",
    "src/model/unet",
    "src/nn/cuda/layers",
    "src/nn/cuda/card.rs",
    "src/nn/copies.rs",
    "src/nn/gradient.rs",
    "src/nn/image.rs",
    "src/nn/operation.rs",
    "src/nn/tape.rs",
    "src/train/activation_checkpointing.rs",
    "src/train/network.rs",
    "src/train/optimiser.rs",
    "src/train/pass.rs",
];

const READS: [&str; 6] = ["to_vec0", "to_vec1", "to_vec2", "to_vec3", "to_scalar", ".synchronize"];

#[test]
fn a_step_reads_no_tensor() {
    let mut found = Vec::new();
    for place in STEP {
        let path = root().join(place);
        let all = if path.is_dir() { files(&path) } else { vec![path] };
        for path in all {
            // Tests are at the end of a file.
            let text = code(&read(&path));
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = text.lines().enumerate();
            let reads = lines.filter(|(_, line)| READS.iter().any(|read| line.contains(read)));
            found.extend(
                reads.map(|(line, text)| format!("{}:{}: {}", path.display(), line + 1, text.trim())),
            );
        }
    }
    assert!(found.is_empty(), "these wait for a GPU in each step: {found:#?}");
}
