//! What `laptop-diff list` prints: the names that a pipeline can use.

use super::{check, transcript};
use crate::common::Sandbox;

#[test]
fn list_names_all_rows_of_all_tables() {
    let sandbox = Sandbox::new();
    let mut text = String::new();
    for arguments in [&["list"][..], &["list", "criteria"], &["list", "nothing"]] {
        text += &transcript(&sandbox, arguments);
        text.push('\n');
    }
    check("list", &text);
}
