//! The committed schemas are those that the program prints.

use crate::common::{Sandbox, expect_code, root};

#[test]
fn the_committed_schemas_are_fresh() {
    let sandbox = Sandbox::new();
    for of in ["pipeline", "settings"] {
        let output = sandbox.run(&["schema", of]);
        expect_code(&output, 0);
        let file = format!("schemas/{of}.schema.json");
        let committed = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        let fresh = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        assert!(fresh == committed, "{file} is old: laptop-diff schema {of} > {file}");
    }
}
