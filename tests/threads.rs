//! A run ends with the same bytes whatever the number of threads: a setting never changes a result.

mod common;

use common::{Sandbox, expect_code};

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let digests = |threads: &str| {
        let sandbox = Sandbox::new();
        let file = sandbox.write("small.yaml", include_str!("pipelines/small.yaml"));
        expect_code(&sandbox.run(&["run", &file.to_string_lossy(), "--threads", threads]), 0);
        sandbox.digests("small")
    };
    let expected = digests("1");
    assert_eq!(expected.len(), 7);
    for threads in ["2", "3"] {
        assert_eq!(digests(threads), expected, "{threads} threads");
    }
}
