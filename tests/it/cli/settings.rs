//! A run ends with the same bytes whatever the number of threads and the memory: a setting never changes a result.

use crate::common::{Sandbox, expect_code};

#[test]
fn any_threads_and_any_memory_give_the_same_bytes() {
    let digests = |settings: &[&str]| {
        let sandbox = Sandbox::new();
        let file = sandbox.write("small.yaml", include_str!("../../pipelines/small.yaml"));
        expect_code(&sandbox.run(&[&["run", &file.to_string_lossy()], settings].concat()), 0);
        sandbox.digests("small")
    };
    let expected = digests(&["--threads", "1"]);
    assert_eq!(expected.len(), 7);
    // In a megabyte every U-Net is streamed, and one variant walks at a time.
    for settings in [["--threads", "3"].as_slice(), &["--threads", "2", "--memory", "1MB"]] {
        assert_eq!(digests(settings), expected, "{settings:?}");
    }
}
