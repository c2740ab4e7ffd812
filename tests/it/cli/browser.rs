//! A report in a real browser: nothing is requested or reported as an error, nothing is wider than the window, each
//! picture and plot has a text, and the slider follows the keys.
//!
//! Chromium is driven by its DevTools protocol over a pipe: JSON messages that end with a zero byte.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::common::{Sandbox, expect_code};

/// A model that is pruned, trained for some steps, and compared in a gate.
const PIPELINE: &str = "\
format: 1
name: small
seed: 1
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: prompts.txt, samples: 2, drawing: { steps: 1, guidance-scale: 1 } } }
  - { id: scores, use: score, with: { model: teacher, calibration: points, criteria: [magnitude, random], additivity-sets: 0 } }
  - { id: selection, use: select, with: { scores: scores, criterion: magnitude, ratio: 0.5 } }
  - { id: student, use: prune, with: { model: teacher, selection: selection } }
  - { id: latents, use: encode, with: { model: teacher, prompts: prompts.txt, samples: 4, drawing: { steps: 1, guidance-scale: 1 } } }
  - id: retrained
    use: distill
    with: { teacher: teacher, student: student, data: latents, training: { steps: 3, batch-size: 1, learning-rate: 1e-4 } }
  - id: result
    use: evaluate
    with:
      models: { teacher: teacher, pruned: student, retrained: retrained }
      metrics: [pick-score, clip-score, output-loss, parameters, macs, latency]
      prompts: prompts.txt
      points: points
      selection: selection
      scorer: '{nano}/scorer'
      drawing: { steps: 1, guidance-scale: 1 }
      gates: [retrained.parameters <= 3e6]
";

const WIDTHS: [u32; 3] = [400, 800, 1600];

/// The parts of a page that are wider than the window, but for what lies in a frame that scrolls.
const TOO_WIDE: &str = "[...document.querySelectorAll('body *')]
    .filter(one => !one.closest('.scroll *, svg *') && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 80)).concat(
        document.documentElement.scrollWidth > innerWidth ? ['the page: ' + document.documentElement.scrollWidth] : [])";

/// Pictures and plots without a text, and points of a plot without a tooltip.
const WITHOUT_TEXT: &str = "[...document.querySelectorAll('img, svg[role=img], .plot circle')]
    .filter(one => one.matches('circle') ? !one.parentElement.querySelector('title')
        : !one.closest('.stage') && !(one.getAttribute('alt') || one.getAttribute('aria-label')))
    .map(one => one.outerHTML.slice(0, 80))";

#[test]
#[ignore = "needs Chromium; LAPTOP_DIFF_TEST_CHROMIUM names another program than `chromium`"]
fn a_report_is_whole_in_a_browser() {
    let sandbox = Sandbox::new();
    let prompts: String =
        ["red", "blue", "green"].map(|colour| format!("a {colour} circle\na {colour} star\n")).concat();
    sandbox.write("prompts.txt", &prompts);
    sandbox.write("small.yaml", PIPELINE);
    expect_code(&sandbox.run(&["run", "small.yaml"]), 0);
    let other = ["run", "small.yaml", "--set", "name=other", "--set", "selection.ratio=0.3"];
    expect_code(&sandbox.run(&other), 0);
    expect_code(
        &sandbox.run(&["sweep", "small.yaml", "--set", "name=swept", "--over", "selection.ratio=0.3,0.5"]),
        0,
    );
    expect_code(&sandbox.run(&["report", "runs/small", "runs/other", "--out", "both.html"]), 0);

    let mut browser = Browser::start(&sandbox.path("profile"));
    for page in ["runs/small/report.html", "runs/swept/report.html", "both.html"] {
        let file = sandbox.path(page);
        assert!(file.metadata().expect("a page").len() < 3_000_000, "{page} is large");
        browser.open(&file);
        browser.value("document.querySelectorAll('details').forEach(one => one.open = true)");
        for (scheme, width) in
            ["light", "dark"].into_iter().flat_map(|scheme| WIDTHS.map(|width| (scheme, width)))
        {
            browser.show(scheme, "screen", width);
            assert_eq!(browser.value(TOO_WIDE), json!([]), "{page}, {scheme}, {width} pixels");
        }
        browser.show("light", "print", 700);
        assert_eq!(
            browser.value("getComputedStyle(document.body).backgroundColor"),
            json!("rgb(255, 255, 255)")
        );
        assert_eq!(browser.value(WITHOUT_TEXT), json!([]), "{page}");
        assert_ne!(
            browser.value("document.querySelectorAll('.plot circle').length"),
            json!(0),
            "{page} has no point"
        );
    }
    slide(&mut browser, &sandbox.path("runs/small/report.html"));
}

/// Moves the slider by the keyboard, and puts another prompt under it.
fn slide(browser: &mut Browser, page: &Path) {
    browser.open(page);
    browser.show("light", "screen", 800);
    let place = "document.querySelector('.slider').style.getPropertyValue('--at')";
    assert_eq!(browser.value(place), json!("50%"));
    browser.value("document.querySelector('.stage input').focus()");
    for event in ["keyDown", "keyUp"] {
        let key =
            json!({ "type": event, "key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39 });
        browser.call("Input.dispatchKeyEvent", key);
    }
    assert_eq!(browser.value(place), json!("51%"));
    let shown = "['.before', '.after'].map(side => document.querySelector('.stage ' + side).alt)";
    assert_eq!(browser.value(shown), json!(["teacher: a red circle", "retrained: a red circle"]));
    browser.value("document.querySelectorAll('.compare')[1].click()");
    assert_eq!(browser.value(shown), json!(["teacher: a red star", "retrained: a red star"]));
}

/// Chromium with one page.
struct Browser {
    process: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    /// Messages that came before the answer to a command.
    events: VecDeque<Value>,
    session: Value,
    last: u64,
    file: String,
}

impl Browser {
    fn start(profile: &Path) -> Self {
        let program = std::env::var("LAPTOP_DIFF_TEST_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        // The browser reads commands from descriptor 3 and writes to descriptor 4.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 >&2",
                "sh",
                &program,
                "--headless",
                "--remote-debugging-pipe",
            ])
            .args(["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let commands = process.stdin.take().expect("a pipe");
        let messages = BufReader::new(process.stdout.take().expect("a pipe"));
        let (events, session, file) = (VecDeque::new(), Value::Null, String::new());
        let mut browser = Self { process, commands, messages, events, session, last: 0, file };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The result of a command. Whatever happens meanwhile must be harmless.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("Chromium listens");
        loop {
            let message = self.next();
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.judge(&message);
            self.events.push_back(message);
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.messages.read_until(0, &mut bytes).expect("Chromium answers");
        assert!(bytes.pop().is_some(), "Chromium ended: is it installed?");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Fails for an error of the page, and for a request of anything but the page itself.
    fn judge(&self, message: &Value) {
        let method = message["method"].as_str().unwrap_or_default();
        let is_error =
            ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"].contains(&method);
        assert!(!is_error, "{message:#}");
        if method == "Network.requestWillBeSent" {
            let url = message["params"]["request"]["url"].as_str().expect("a URL");
            assert!(url == self.file || url.starts_with("data:"), "the page requests {url}");
        }
    }

    fn open(&mut self, file: &Path) {
        self.file = format!("file://{}", file.display());
        self.events.clear();
        self.call("Page.navigate", json!({ "url": self.file }));
        let is_loaded = |message: &Value| message["method"] == "Page.loadEventFired";
        while !self.events.iter().any(is_loaded) {
            let message = self.next();
            self.judge(&message);
            self.events.push_back(message);
        }
    }

    fn show(&mut self, scheme: &str, media: &str, width: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": media, "features": features }));
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let result =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{result:#}");
        result["result"]["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
