//! A run ends with the same bytes whatever the number of threads and the memory: a setting never changes a result.

use crate::common::{Sandbox, expect_code};

#[test]
fn any_threads_and_any_memory_give_the_same_bytes() {
    gives_the_same_bytes("small", include_str!("../../pipelines/small.yaml"), 7);
}

#[test]
fn a_reconstruction_does_not_depend_on_threads_and_memory_either() {
    gives_the_same_bytes("reconstruct", include_str!("../../pipelines/reconstruct.yaml"), 6);
}

fn gives_the_same_bytes(name: &str, pipeline: &str, stages: usize) {
    let digests = |settings: &[&str]| {
        let sandbox = Sandbox::new();
        let file = sandbox.write("pipeline.yaml", pipeline);
        expect_code(&sandbox.run(&[&["run", &file.to_string_lossy()], settings].concat()), 0);
        sandbox.digests(name)
    };
    let expected = digests(&["--threads", "1"]);
    assert_eq!(expected.len(), stages);
    // In a megabyte every U-Net is streamed, one variant walks at a time, and no states of a reconstruction are kept.
    for settings in [["--threads", "3"].as_slice(), &["--threads", "2", "--memory", "1MB"]] {
        assert_eq!(digests(settings), expected, "{settings:?}");
    }
}
