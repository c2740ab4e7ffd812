//! The help of the program and of each command.

use super::{check, run};
use crate::common::Sandbox;

#[test]
fn each_command_has_its_help() {
    let sandbox = Sandbox::new();
    let help = |arguments: &[&str]| {
        let output = run(&sandbox, arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("help is UTF-8")
    };
    let whole = help(&["--help"]);
    check("help", &whole);
    let names = commands(&whole);
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let text = help(&[name, "--help"]);
        check(&format!("help-{name}"), &text);
        for inner in commands(&text) {
            check(&format!("help-{name}-{inner}"), &help(&[name, inner, "--help"]));
        }
    }
}

/// The names in the list of commands, if the help has one.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let lines = list.into_iter().flat_map(str::lines);
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").collect()
}
