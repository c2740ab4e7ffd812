//! A hub of one repository on this machine: it lists files, redirects weights to another address as the real one
//! does, gives ranges, and can be told to break.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the hub does now, and what it was asked.
#[derive(Default)]
pub(crate) struct State {
    /// The commit of `main`.
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether only who has the token `secret` is let in.
    pub(crate) gated: bool,
    /// A file of which only half comes, and nothing after that half.
    pub(crate) broken: Option<String>,
    /// Paths with the first byte that was asked for.
    pub(crate) asked: Vec<(String, usize)>,
}

pub(crate) struct Hub {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Serves `owner/nano` with the files below `folder` until the process ends.
    pub(crate) fn start(folder: &Path, parts: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let mut files = BTreeMap::new();
        for part in parts {
            for entry in fs::read_dir(folder.join(part)).expect("a part of the model") {
                let path = entry.expect("a file of it").path();
                if path.is_file() {
                    let name =
                        path.strip_prefix(folder).expect("it lies in there").to_string_lossy().into_owned();
                    files.insert(name, fs::read(&path).expect("a readable file"));
                }
            }
        }
        let state = Arc::new(Mutex::new(State { commit: "1".repeat(40), files, ..State::default() }));
        let (shared, own) = (Arc::clone(&state), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle is part of the tests.
                answer(&stream, &own, &shared).ok();
            }
        });
        Self { address, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }
}

fn answer(mut stream: &TcpStream, address: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let (mut path, mut start, mut end, mut token) = (String::new(), 0, usize::MAX, String::new());
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let lower = line.to_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            let (first, last) = range.split_once('-').expect("a range");
            (start, end) = (first.parse().expect("a number"), last.parse().unwrap_or(usize::MAX - 1) + 1);
        } else if let Some(bearer) = lower.strip_prefix("authorization: bearer ") {
            token = bearer.to_owned();
        } else if path.is_empty() {
            path =
                line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        } else if line.is_empty() {
            break;
        }
    }
    let mut state = state.lock().expect("no test panics while it holds this");
    state.asked.push((path.clone(), start));
    let commit = state.commit.clone();
    let mut reply = |status: &str, headers: &str, promised: usize, body: &[u8]| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {promised}\r\n{headers}\r\n"
        )?;
        stream.write_all(body)
    };
    if state.gated && token != "secret" {
        return reply("401 Unauthorized", "", 0, b"");
    }
    if let Some(revision) = path.strip_prefix("/api/models/owner/nano/revision/") {
        if revision != "main" && revision != commit {
            return reply("404 Not Found", "", 0, b"");
        }
        let siblings: Vec<_> = state
            .files
            .iter()
            .map(|(name, bytes)| serde_json::json!({ "rfilename": name, "size": bytes.len() }))
            .collect();
        let body = serde_json::json!({ "sha": commit, "siblings": siblings }).to_string();
        return reply("200 OK", "Content-Type: application/json\r\n", body.len(), body.as_bytes());
    }
    let resolved = path.strip_prefix(&format!("/owner/nano/resolve/{commit}/"));
    let Some(name) = resolved.or_else(|| path.strip_prefix("/cdn/")) else {
        return reply("404 Not Found", "", 0, b"");
    };
    let Some(bytes) = state.files.get(name) else { return reply("404 Not Found", "", 0, b"") };
    let etag = blake3::hash(bytes);
    if resolved.is_some() && name.ends_with(".safetensors") {
        let headers = format!(
            "Location: {address}/cdn/{name}\r\nX-Linked-ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\nETag: \"x\"\r\n"
        );
        return reply("302 Found", &headers, 0, b"");
    }
    let (all, broken) = (bytes.len(), state.broken.as_deref() == Some(name) && end != 1);
    if broken && start > 0 {
        return reply("503 Service Unavailable", "", 0, b"");
    }
    if start >= all {
        return reply("416 Range Not Satisfiable", "", 0, b"");
    }
    let body = &bytes[start..end.min(all)];
    let headers = format!(
        "ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {start}-{}/{all}\r\n",
        start + body.len() - 1
    );
    let sent = if broken { &body[..all / 2] } else { body };
    reply("206 Partial Content", &headers, body.len(), sent)
}
