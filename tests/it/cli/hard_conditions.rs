//! Disks that are full, take no writes, or know neither hard links nor locks: a message and the documented exit code, nothing is
//! lost, and the same command goes on once the condition is over.
//!
//! The disks are mounted in a name space of the test's own, which needs no rights where the system lets users have one.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::common::{Sandbox, expect_code};

const PIPELINE: &str = include_str!("../../pipelines/five.yaml");

/// A training whose first checkpoint is larger than everything before it.
const TRAINING: &str = "  - { id: retrained, use: distill, with: { teacher: teacher, student: student, data: points, \
                        training: { steps: 2, batch-size: 1, normalisation-batches: 1 } } }\n";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("prompts.txt", "a red circle\na blue star\n");
    sandbox.write("five.yaml", PIPELINE);
    fs::create_dir(sandbox.path("disk")).expect("writable");
    sandbox
}

/// The same run on an ordinary disk.
fn calm() -> Sandbox {
    let sandbox = sandbox();
    expect_code(&sandbox.run(&["run", "five.yaml"]), 0);
    sandbox
}

/// How this system gives a name space in which disks can be mounted.
fn name_space() -> Option<&'static str> {
    let may = |flags: &&str| {
        let mut command = Command::new("unshare");
        let tried = command.args([*flags, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    let found = ["-Urm", "-m"].into_iter().find(|flags| may(flags));
    if found.is_none() {
        let reason = "skipped: this system lets no test mount a disk; `unshare -Urm` or root is needed";
        let _ = writeln!(std::io::stderr(), "{reason}");
    }
    found
}

/// Runs a script of the shell in a name space of its own, with the program as `$P`.
fn script(sandbox: &Sandbox, flags: &str, text: &str) -> Output {
    let program = sandbox.command(&[]);
    let mut shell = Command::new("unshare");
    shell.args([flags, "sh", "-euc", text]).current_dir(sandbox.path("")).env("P", program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null()).output().expect("there is a shell")
}

fn text(sandbox: &Sandbox, name: &str) -> String {
    let text = fs::read_to_string(sandbox.path(name)).expect(name);
    // miette breaks lines and draws a bar before each.
    text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `4 ran, 1 cached` of the last line of a run.
fn counts(text: &str) -> (usize, usize) {
    let before = |word: &str| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let place = words.iter().rposition(|found| found.trim_end_matches([',', ';']) == word).expect(word);
        words[place - 1].parse().expect("a number")
    };
    (before("ran"), before("cached"))
}

#[test]
fn on_a_full_disk_a_run_ends_with_what_to_do_and_goes_on_when_there_is_space() {
    let Some(flags) = name_space() else { return };
    let calm = calm();
    // Too small for its version, the model, the results of later stages.
    for kilobytes in [4, 64, 4096, 7200] {
        let sandbox = sandbox();
        let commands = format!(
            "mount -t tmpfs -o size={kilobytes}k tmpfs disk
             export LAPTOP_DIFF_CACHE=disk/cache
             code=0; $P run five.yaml 2>first || code=$?
             mount -o remount,size=100m disk
             $P run five.yaml 2>second
             $P cache verify
             exit $code"
        );
        let output = script(&sandbox, flags, &commands);
        expect_code(&output, 4);
        let (first, second) = (text(&sandbox, "first"), text(&sandbox, "second"));
        for words in ["free space", "No space left on device"] {
            assert!(first.contains(words), "{kilobytes}: {first}");
        }
        let ((made, _), (again, cached)) = (counts(&first), counts(&second));
        assert_eq!((made, again + cached), (cached, 5), "nothing is lost: {second}");
        assert_eq!(sandbox.digests("five"), calm.digests("five"), "{kilobytes}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("no damage"), "{output:?}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_on_the_disk_is_told_and_the_training_made_again() {
    let Some(flags) = name_space() else { return };
    let sandbox = sandbox();
    sandbox.write("five.yaml", &format!("{PIPELINE}{TRAINING}"));
    let commands = "mount -t tmpfs -o size=14000k tmpfs disk
         export LAPTOP_DIFF_CACHE=disk/cache LAPTOP_DIFF_CHECKPOINT_EVERY_STEPS=1
         code=0; $P run five.yaml 2>first || code=$?
         mount -o remount,size=100m disk
         $P run five.yaml 2>second
         cp -rL runs/five/retrained result
         exit $code";
    expect_code(&script(&sandbox, flags, commands), 4);
    let first = text(&sandbox, "first");
    assert!(first.contains("checkpoint/") && first.contains("No space left on device"), "{first}");
    assert_eq!(counts(&text(&sandbox, "second")), (1, 5));
    assert!(sandbox.path("result/unet/diffusion_pytorch_model.safetensors").exists());
}

#[test]
fn where_only_the_run_folder_is_on_a_full_disk_the_results_are_kept() {
    let Some(flags) = name_space() else { return };
    let calm = calm();
    // Full before the record, between two stages, at the report.
    for left in [0, 12, 24, 60] {
        let sandbox = sandbox();
        let commands = format!(
            "mount -t tmpfs -o size=400k tmpfs disk
             dd if=/dev/zero of=disk/filled bs=1k count=$((400 - {left})) 2>dd
             export LAPTOP_DIFF_RUNS=disk/runs
             code=0; $P run five.yaml 2>first || code=$?
             rm disk/filled
             $P run five.yaml 2>second
             mkdir -p runs/five; cp disk/runs/five/run.json disk/runs/five/report.html runs/five
             exit $code"
        );
        expect_code(&script(&sandbox, flags, &commands), 4);
        let (first, second) = (text(&sandbox, "first"), text(&sandbox, "second"));
        assert!(first.contains("No space left on device") && first.contains("free space on"), "{first}");
        assert!(counts(&second).1 >= counts(&first).0, "{first} {second}");
        assert_eq!(sandbox.digests("five"), calm.digests("five"), "{left}");
    }
}

#[test]
fn a_cache_that_can_only_be_read_serves_what_it_has_and_says_what_to_do_for_more() {
    let Some(flags) = name_space() else { return };
    let sandbox = calm();
    let commands = "mount --bind cache cache; mount -o remount,bind,ro cache
         $P run five.yaml --runs again 2>cached
         code=0; $P run five.yaml --runs more --set selection.ratio=0.3 2>lacking || code=$?
         $P cache ls >listed; $P cache verify >verified; $P cache gc --all >collected
         if $P verify five 2>verify; then exit 99; fi
         $P verify five --scratch disk >>verified
         mkdir remote; export LAPTOP_DIFF_REMOTE=remote
         $P cache push; $P cache pull --cache own
         $P run five.yaml --cache own --set selection.ratio=0.3 2>taken
         exit $code";
    expect_code(&script(&sandbox, flags, commands), 4);
    assert_eq!(counts(&text(&sandbox, "cached")), (0, 5));
    assert_eq!(sandbox.digests_in("again", "five").len(), 5);
    let more = text(&sandbox, "lacking");
    for words in ["the cache is read-only", "cache::read_only", "`--cache FOLDER`", "cache push"] {
        assert!(more.contains(words), "{words}: {more}");
    }
    assert_eq!(counts(&more), (0, 3));
    let verify = text(&sandbox, "verify");
    assert!(verify.contains("cache::read_only") && verify.contains("`--scratch FOLDER`"), "{verify}");
    let verified = text(&sandbox, "verified");
    assert!(verified.contains("no damage") && verified.contains("5 of 5 stages"), "{verified}");
    assert!(text(&sandbox, "collected").contains("nothing to remove"));
    assert_eq!(counts(&text(&sandbox, "taken")), (2, 3), "what was there is taken along");
}

/// A library that is loaded before that of C, in which a file system has neither hard links nor locks. It notes each call.
const NO_LINKS: &str = r#"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int refuse(const char *what, int error) {
    int file = open(getenv("REFUSED"), O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (file >= 0) { if (write(file, what, strlen(what)) < 0) {} close(file); }
    errno = error;
    return -1;
}
int link(const char *from, const char *to) { return refuse("link\n", EPERM); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return refuse("link\n", EPERM); }
int flock(int file, int operation) { return refuse("flock\n", ENOLCK); }
int lockf(int file, int operation, off_t bytes) { return refuse("lockf\n", ENOLCK); }
"#;

#[test]
fn a_cache_without_hard_links_and_locks_has_the_same_results() {
    let (calm, sandbox) = (calm(), sandbox());
    let source = sandbox.write("refuse.c", NO_LINKS);
    let library = sandbox.path("refuse.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output();
    expect_code(&built.expect("a compiler of C, which Rust needs to link programs"), 0);
    let refused = sandbox.path("refused");
    let command = |arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        command.env("LD_PRELOAD", &library).env("REFUSED", &refused);
        command
    };
    let sweep = ["sweep", "five.yaml", "--over", "selection.ratio=0.3,0.5"];
    expect_code(&calm.run(&sweep), 0);
    // Two processes at once, one of which is killed, and a collection beside them.
    let mut killed = command(&sweep).stderr(Stdio::null()).spawn().expect("it starts");
    let other =
        command(&[&sweep[..], &["--runs", "other", "--jobs", "2"]].concat()).stderr(Stdio::null()).spawn();
    let points = |entry: fs::DirEntry| entry.path().join("checkpoint").is_dir();
    let work: PathBuf = sandbox.path("cache/v1/work");
    while !fs::read_dir(&work).is_ok_and(|mut found| found.any(|entry| entry.is_ok_and(points))) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    killed.kill().expect("ours");
    killed.wait().expect("ours");
    expect_code(&command(&["cache", "gc", "--all"]).output().expect("it starts"), 0);
    let other = other.expect("it starts").wait_with_output().expect("it ends");
    expect_code(&other, 0);
    let again = command(&sweep).output().expect("it starts");
    expect_code(&again, 0);
    assert_eq!(counts(&String::from_utf8_lossy(&again.stderr)), (0, 7));
    for runs in ["runs", "other"] {
        assert_eq!(sandbox.digests_in(runs, "five"), calm.digests("five"), "{runs}");
    }
    expect_code(&command(&["cache", "verify"]).output().expect("it starts"), 0);
    // Those of the killed process too.
    expect_code(&command(&["cache", "gc", "--all"]).output().expect("it starts"), 0);
    let leases = fs::read_dir(sandbox.path("cache/v1/leases")).expect("there").count();
    assert_eq!(leases, 0, "all leases were given back");
    assert!(fs::read_to_string(refused).expect("calls were refused").contains("link\n"));
}
