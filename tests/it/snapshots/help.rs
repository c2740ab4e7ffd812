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
    let commands = whole.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let commands = commands.expect("a list of commands").lines();
    let names = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty());
    let names: Vec<_> = names.filter(|&name| name != "help").collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        check(&format!("help-{name}"), &help(&[name, "--help"]));
    }
}
