//! Machines that share their artefacts by a bucket, through a proxy of the test's own that stalls, fails, throttles and cuts.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::remote::{err, events, machine};
use crate::common::{Sandbox, expect, expect_code};

/// What is never told to anybody.
const SECRET: &str = "SENTINEL0SECRET";
const TOKEN: &str = "SENTINEL1TOKEN";

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It goes through.
    None,
    /// Nothing is ever answered.
    Stall,
    /// This status, with this error code.
    Answer(u16, &'static str),
    /// It is closed after so many bytes of the answer.
    Cut(usize),
    /// The byte at this place of the answers has another bit.
    Flip(usize),
}

/// A proxy on loopback in front of a server, or of none.
struct Proxy {
    address: String,
    state: Arc<State>,
}

struct State {
    server: Option<String>,
    fault: Mutex<Fault>,
    /// How many connections still have the fault.
    left: AtomicUsize,
    connections: AtomicUsize,
    over: AtomicBool,
}

impl Proxy {
    fn new(server: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            server,
            fault: Mutex::new(Fault::None),
            left: AtomicUsize::new(usize::MAX),
            connections: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || drop(state.serve(client)));
            }
        });
        Self { address, state }
    }

    /// The next `count` connections have this fault.
    fn fail(&self, fault: Fault, count: usize) {
        *self.state.fault.lock().expect("nobody panics") = fault;
        self.state.left.store(count, Ordering::SeqCst);
    }

    /// A command of a machine that shares by a bucket behind this proxy.
    fn command(&self, sandbox: &Sandbox, prefix: &str, arguments: &[&str]) -> Command {
        let mut command = sandbox.command(arguments);
        for (name, _) in std::env::vars_os() {
            if ["AWS_", "http_proxy", "HTTP_PROXY"]
                .iter()
                .any(|part| name.to_string_lossy().starts_with(part))
            {
                command.env_remove(name);
            }
        }
        command
            .env("LAPTOP_DIFF_REMOTE", format!("s3://lab/{prefix}"))
            .env("LAPTOP_DIFF_REMOTE_ENDPOINT", format!("http://{}", self.address))
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_SESSION_TOKEN", TOKEN);
        command
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().expect("nobody panics");
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match if left.is_ok() { fault } else { Fault::None } {
            Fault::Stall => {
                while !self.over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            }
            Fault::Answer(status, code) => {
                // The answer repeats what it was sent, as some servers do.
                let head = read_head(&mut client)?;
                let body = format!("<Error><Code>{code}</Code><Message>{head}</Message></Error>");
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                client.write_all(answer.as_bytes())?;
                client.write_all(body.as_bytes())?;
                client.shutdown(Shutdown::Write)?;
                // What was not read yet would make the system reset the connection.
                let mut rest = Vec::new();
                client.set_read_timeout(Some(Duration::from_secs(2)))?;
                client.take(1 << 20).read_to_end(&mut rest).map(drop)
            }
            Fault::Cut(bytes) => self.pass(client, bytes, None),
            Fault::Flip(place) => self.pass(client, usize::MAX, Some(place)),
            Fault::None => self.pass(client, usize::MAX, None),
        }
    }

    /// Passes bytes on in both directions, but no more than so many of the answers, and one of them with another bit.
    fn pass(&self, client: TcpStream, mut most: usize, mut flip: Option<usize>) -> std::io::Result<()> {
        let server = TcpStream::connect(self.server.as_ref().expect("a server behind the proxy"))?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut server, mut client, mut piece) = (server, client, vec![0; 4096]);
        loop {
            let read = server.read(&mut piece)?;
            match flip {
                Some(place) if place < read => {
                    piece[place] ^= 1;
                    flip = None;
                }
                _ => flip = flip.map(|place| place - read),
            }
            client.write_all(&piece[..read.min(most)])?;
            most -= read.min(most);
            if read == 0 || most == 0 {
                return client.shutdown(Shutdown::Both).and(server.shutdown(Shutdown::Both));
            }
        }
    }
}

fn read_head(client: &mut TcpStream) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Fails if a secret is in anything that the run wrote or said.
#[track_caller]
fn keeps_its_secrets(sandbox: &Sandbox, output: &Output) {
    let mut texts = vec![err(output), String::from_utf8_lossy(&output.stdout).into_owned()];
    for name in ["run.json", "events.jsonl", "report.html"] {
        texts.push(fs::read_to_string(sandbox.path("runs/five").join(name)).expect(name));
    }
    for text in &texts {
        assert!(
            ![SECRET, TOKEN, "Authorization", "X-Amz"].iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }
}

#[test]
fn a_server_that_refuses_fails_or_is_away_ends_no_run_and_no_secret_is_told() {
    let proxy = Proxy::new(None);
    // The statuses that pass are asked four times.
    for (fault, words, attempts) in [
        (Fault::Answer(403, "AccessDenied"), "refused the credentials of this machine (403 AccessDenied)", 1),
        (Fault::Answer(403, "RequestTimeTooSkewed"), "set the clock", 1),
        (Fault::Answer(404, "NoSuchBucket"), "has no such bucket", 1),
        (Fault::Answer(503, "SlowDown"), "answered 503 SlowDown", 4),
        (Fault::Answer(500, "InternalError"), "answered 500 InternalError", 4),
    ] {
        proxy.fail(fault, usize::MAX);
        let (sandbox, before) = (machine(), proxy.state.connections.load(Ordering::SeqCst));
        let begun = Instant::now();
        let ran = proxy.command(&sandbox, "a", &["run", "five.yaml"]).output().expect("it starts");
        expect(&ran, 0, &[words, "going on with the local cache", "5 ran, 0 cached"]);
        let asked = proxy.state.connections.load(Ordering::SeqCst) - before;
        // Once for what it lacks and once for what it made; then it rests.
        assert_eq!(asked, 2 * attempts, "{fault:?}");
        assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
        keeps_its_secrets(&sandbox, &ran);
        assert_eq!(events(&sandbox, "stage-remote").len(), 2);
        let mut push = proxy.command(&sandbox, "a", &["cache", "push"]);
        expect(&push.output().expect("it starts"), 4, &[words]);
    }
    let sandbox = machine();
    let mut away = proxy.command(&sandbox, "a", &["run", "five.yaml"]);
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("an address");
    let away = away.env("LAPTOP_DIFF_REMOTE_ENDPOINT", format!("http://{free}")).output().expect("it starts");
    expect(&away, 0, &["could not be reached", "5 ran, 0 cached"]);
    keeps_its_secrets(&sandbox, &away);
}

#[test]
fn a_server_that_stalls_delays_a_run_but_not_a_stop() {
    let proxy = Proxy::new(None);
    proxy.fail(Fault::Stall, usize::MAX);
    let sandbox = machine();
    let begun = Instant::now();
    let ran = proxy.command(&sandbox, "a", &["run", "five.yaml"]).output().expect("it starts");
    expect(&ran, 0, &["was silent for 10 seconds", "going on with the local cache", "5 ran, 0 cached"]);
    // Four attempts of ten seconds with pauses, once for each way.
    assert!(begun.elapsed() < Duration::from_secs(150), "{:?}", begun.elapsed());
    keeps_its_secrets(&sandbox, &ran);

    let other = machine();
    let mut child = proxy.command(&other, "a", &["run", "five.yaml"]);
    let mut child = child.stderr(Stdio::null()).spawn().expect("it starts");
    thread::sleep(Duration::from_secs(3));
    let asked = Instant::now();
    // SAFETY: a signal to a child that was not waited for yet.
    unsafe { libc::kill(child.id().try_into().expect("a process id"), libc::SIGINT) };
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

/// The address of the peer, such as `127.0.0.1:18015`, with a bucket `lab`.
fn peer() -> String {
    std::env::var("LAPTOP_DIFF_TEST_S3")
        .expect("LAPTOP_DIFF_TEST_S3=HOST:PORT of a server of S3 with a bucket `lab`")
}

#[test]
#[ignore = "needs a server that speaks S3: LAPTOP_DIFF_TEST_S3=HOST:PORT"]
fn machines_share_by_a_bucket_whatever_happens_to_their_connections() {
    let proxy = Proxy::new(Some(peer()));
    let prefix = format!("test-{}", std::process::id());
    let run = |sandbox: &Sandbox| {
        proxy.command(sandbox, &prefix, &["run", "five.yaml"]).output().expect("it starts")
    };
    let one = machine();
    proxy.fail(Fault::None, 0);
    expect(&run(&one), 0, &["scores: sent", "5 ran, 0 cached"]);
    // What passes is not even told: one connection throttled, two cut in the middle of an answer.
    for (fault, count) in [
        (Fault::None, 0),
        (Fault::Answer(503, "SlowDown"), 1),
        (Fault::Answer(500, "InternalError"), 2),
        (Fault::Cut(300), 2),
        (Fault::Cut(2000), 1),
    ] {
        proxy.fail(fault, count);
        let two = machine();
        let ran = run(&two);
        expect(&ran, 0, &["student: fetched", "0 ran, 5 cached"]);
        assert!(!err(&ran).contains("going on with the local cache"), "{fault:?}: {}", err(&ran));
        assert_eq!(two.digests("five"), one.digests("five"), "{fault:?}");
        keeps_its_secrets(&two, &ran);
    }
    let three = machine();
    let pulled = proxy.command(&three, &prefix, &["cache", "pull"]).output().expect("it starts");
    expect_code(&pulled, 0);
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("fetched 5 of 5"), "{pulled:?}");
    let again = proxy.command(&one, &prefix, &["cache", "push"]).output().expect("it starts");
    assert!(String::from_utf8_lossy(&again.stdout).contains("5 were there already"), "{again:?}");
}

#[test]
#[ignore = "needs a server that speaks S3: LAPTOP_DIFF_TEST_S3=HOST:PORT"]
fn an_upload_that_is_cut_off_anywhere_goes_on_and_is_seen_by_nobody_before() {
    let proxy = Proxy::new(Some(peer()));
    let prefix = format!("cut-{}", std::process::id());
    let one = machine();
    let mut run = one.command(&["run", "five.yaml"]);
    expect_code(&run.output().expect("it starts"), 0);
    let push =
        |machine: &Sandbox| proxy.command(machine, &prefix, &["cache", "push"]).output().expect("it starts");
    proxy.fail(Fault::None, 0);
    let mut child = proxy.command(&one, &prefix, &["cache", "push"]);
    let mut child = child.stdout(Stdio::null()).spawn().expect("it starts");
    thread::sleep(Duration::from_millis(150));
    let _ = child.kill();
    let _ = child.wait();
    // Whatever is there, is whole.
    let two = machine();
    expect_code(&proxy.command(&two, &prefix, &["cache", "pull"]).output().expect("it starts"), 0);
    expect_code(&two.run(&["cache", "verify"]), 0);
    expect_code(&push(&one), 0);
    let pulled = proxy.command(&two, &prefix, &["cache", "pull", "--json"]).output().expect("it starts");
    expect_code(&pulled, 0);
    let rows: serde_json::Value = serde_json::from_slice(&pulled.stdout).expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(5));
}

/// Machines share by a cloud behind a proxy that damages what it passes on; `cloud` says which, and its credentials.
fn share_by_a_cloud(proxy: &Proxy, cloud: &dyn Fn(&mut Command, &str)) {
    let prefix = format!("test-{}", std::process::id());
    let run = |sandbox: &Sandbox, arguments: &[&str]| {
        let mut command = sandbox.command(arguments);
        for (name, _) in std::env::vars_os() {
            if ["AZURE_", "http_proxy", "HTTP_PROXY"]
                .iter()
                .any(|part| name.to_string_lossy().starts_with(part))
            {
                command.env_remove(name);
            }
        }
        cloud(&mut command, &prefix);
        command.output().expect("it starts")
    };
    let [one, two, three, four] = [(); 4].map(|()| machine());
    proxy.fail(Fault::None, 0);
    expect(&run(&one, &["run", "five.yaml"]), 0, &["teacher: sent", "5 ran, 0 cached"]);
    // Far inside of the weights, which are larger than all else.
    proxy.fail(Fault::Flip(1_000_000), usize::MAX);
    let damaged = run(&two, &["run", "five.yaml"]);
    expect(&damaged, 0, &["refused, and made anew", "is damaged"]);
    assert_eq!(two.digests("five"), one.digests("five"), "{}", err(&damaged));
    expect_code(&two.run(&["cache", "verify"]), 0);
    proxy.fail(Fault::None, 0);
    let fetched = run(&three, &["run", "five.yaml"]);
    expect(&fetched, 0, &["teacher: fetched", "0 ran, 5 cached"]);
    assert_eq!(three.digests("five"), one.digests("five"));
    let pulled = run(&four, &["cache", "pull"]);
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("fetched 5 of 5"), "{pulled:?}");
    let pushed = run(&four, &["cache", "push"]);
    assert!(String::from_utf8_lossy(&pushed.stdout).contains("5 were there already"), "{pushed:?}");
}

#[test]
#[ignore = "needs Azurite with a container `lab`: LAPTOP_DIFF_TEST_AZURE=HOST:PORT"]
fn machines_share_by_azure_and_damage_is_refused() {
    let peer = std::env::var("LAPTOP_DIFF_TEST_AZURE").expect("LAPTOP_DIFF_TEST_AZURE=HOST:PORT of Azurite");
    let proxy = Proxy::new(Some(peer));
    share_by_a_cloud(&proxy, &|command, prefix| {
        command
            .env("LAPTOP_DIFF_REMOTE", format!("az://lab/{prefix}"))
            .env("LAPTOP_DIFF_REMOTE_ENDPOINT", format!("http://{}/devstoreaccount1", proxy.address))
            // The account that Azurite's documentation names.
            .env("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
            .env(
                "AZURE_STORAGE_ACCOUNT_KEY",
                "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
            );
    });
}
