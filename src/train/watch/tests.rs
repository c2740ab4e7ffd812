//! MLflow against a small server of our own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::base::progress::Notes;
use crate::base::{FileError, kept};

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers as MLflow does, and keeps what it was sent. Its first answers are errors.
fn server(failures: usize) -> std::io::Result<(Server, Calls)> {
    let (listener, calls) = (TcpListener::bind("127.0.0.1:0")?, Calls::default());
    let address = format!("http://{}", listener.local_addr()?).parse().expect("an address");
    let kept = Arc::clone(&calls);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let _ = stream.and_then(|stream| answer(stream, number < failures, &kept));
        }
    });
    Ok((address, calls))
}

fn answer(mut stream: std::net::TcpStream, fail: bool, calls: &Calls) -> std::io::Result<()> {
    let (mut reader, mut head, mut length) = (BufReader::new(stream.try_clone()?), String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let call = head.split_whitespace().nth(1).unwrap_or_default();
    let call = call.trim_start_matches("/api/2.0/mlflow/").split('?').next().unwrap_or_default().to_owned();
    let method = head.split_whitespace().next().unwrap_or_default();
    let (status, answer) = match call.as_str() {
        _ if fail => ("500 Internal Server Error", json!({"error_code": "INTERNAL_ERROR"})),
        "experiments/get-by-name" => ("404 Not Found", json!({"error_code": "RESOURCE_DOES_NOT_EXIST"})),
        "experiments/create" => ("200 OK", json!({"experiment_id": "3"})),
        "runs/create" => (
            "200 OK",
            json!({"run": {"info": {"run_id": "abc", "artifact_uri": "mlflow-artifacts:/3/abc/artifacts"}}}),
        ),
        _ => ("200 OK", json!({})),
    };
    if !fail {
        let body = match method {
            "PUT" => json!({"bytes": body}),
            _ => serde_json::from_slice(&body).unwrap_or(Value::Null),
        };
        calls.lock().expect("nobody panicked").push((call, body));
    }
    let text = answer.to_string();
    let length = text.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
}

fn told(folder: &Path) -> Told {
    Told {
        experiment: "laptop-diff".to_owned(),
        run: "nano50/retrained".to_owned(),
        parameters: vec![("batch size".to_owned(), "4".to_owned())],
        file: folder.join("mlflow.json"),
    }
}

fn push(mlflow: &MlFlow<'_>, steps: std::ops::Range<u64>) {
    for step in steps {
        mlflow.numbers(step, &[("loss/total".to_owned(), 0.5), ("bad".to_owned(), f64::NAN)]);
    }
}

/// The steps of the numbers that were sent.
fn sent(calls: &Calls) -> Vec<u64> {
    let calls = calls.lock().expect("nobody panicked");
    let metrics = calls.iter().filter_map(|(_, body)| body["metrics"].as_array());
    metrics.flatten().filter_map(|metric| metric["step"].as_u64()).collect()
}

#[test]
fn a_resumed_training_goes_on_in_its_run_and_sends_no_step_twice() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let (server, calls) = server(0)?;
    let first = MlFlow::new(&server, told(folder.path()), &notes);
    push(&first, 0..1500);
    first.end(End::Interrupted);
    let second = MlFlow::new(&server, told(folder.path()), &notes);
    for step in 1400..1520 {
        second.earlier(step, &|| vec![("loss/total".to_owned(), 0.5)]);
    }
    push(&second, 1520..1600);
    second.end(End::Done);
    assert_eq!(sent(&calls), (0..1600).collect::<Vec<_>>());
    let calls = calls.lock().expect("nobody panicked");
    let named = |name: &str| calls.iter().filter(|(call, _)| call == name).count();
    assert_eq!((named("experiments/create"), named("runs/create")), (1, 1));
    let run = calls.iter().find(|(call, _)| call == "runs/create").map(|(_, body)| body.clone());
    assert_eq!(run.map(|run| run["run_name"].clone()), Some(json!("nano50/retrained")));
    let params = calls.iter().find_map(|(_, body)| body.get("params"));
    assert_eq!(params, Some(&json!([{"key": "batch size", "value": "4"}])));
    let states = calls.iter().filter_map(|(_, body)| body["status"].as_str());
    assert_eq!(states.collect::<Vec<_>>(), ["KILLED", "RUNNING", "FINISHED"]);
    assert!(calls.iter().all(|(_, body)| body["metrics"].as_array().is_none_or(|all| all.len() <= 1000)));
    assert!(notes.0.lock().expect("nobody panicked").is_empty());
    Ok(())
}

#[test]
fn a_server_that_fails_is_noted_once_and_gets_everything_later() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let (server, calls) = server(1)?;
    let mlflow = MlFlow::new(&server, told(folder.path()), &notes);
    push(&mlflow, 0..5);
    let begun = Instant::now();
    while notes.0.lock().expect("nobody panicked").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the trouble is not noted");
        thread::sleep(Duration::from_millis(50));
        push(&mlflow, 0..0);
        mlflow.numbers(5, &[]);
    }
    push(&mlflow, 5..8);
    mlflow.end(End::Done);
    assert_eq!(sent(&calls), (0..8).collect::<Vec<_>>());
    let notes = notes.0.lock().expect("nobody panicked");
    assert!(notes.len() == 1 && notes[0].contains("the server answers 500"), "{notes:?}");
    Ok(())
}

#[test]
fn a_server_that_is_away_delays_no_end() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = format!("http://{closed}").parse().expect("an address");
    let mlflow = MlFlow::new(&server, told(folder.path()), &notes);
    let begun = Instant::now();
    push(&mlflow, 0..1000);
    mlflow.end(End::Done);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(notes.0.lock().expect("nobody panicked").len(), 1);
    Ok(())
}

/// The file of a picture of one colour.
fn png(folder: &Path, side: u32) -> PathBuf {
    let path = folder.join(format!("{side}.png"));
    let picture = image::RgbImage::from_pixel(side, side, image::Rgb([200, 30, 60]));
    let save =
        |path: &Path| picture.save_with_format(path, image::ImageFormat::Png).map_err(std::io::Error::other);
    kept::write(&path, |path| save(path).map_err(FileError::at(path))).expect("a picture is written");
    path
}

#[test]
fn pictures_arrive_once_as_the_pages_expect_them() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let (server, calls) = server(0)?;
    let first = MlFlow::new(&server, told(folder.path()), &notes);
    let (large, small) = (png(folder.path(), 300), png(folder.path(), 8));
    let drawn = Drawn { step: 0, name: "validation/000", png: &[], path: &large, size: (300, 300) };
    first.picture(&drawn);
    first.end(End::Interrupted);
    let second = MlFlow::new(&server, told(folder.path()), &notes);
    second.earlier_picture(0, "validation/000", &large);
    second.earlier_picture(5, "validation/000", &small);
    second.earlier_picture(10, "validation/000", &folder.path().join("damaged.png"));
    second.end(End::Done);
    let calls = calls.lock().expect("nobody panicked");
    let files: Vec<(&str, Vec<u8>)> = calls
        .iter()
        .filter_map(|(call, body)| {
            let name = call.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/3/abc/artifacts/images/")?;
            let bytes = body["bytes"].as_array()?.iter().filter_map(Value::as_u64).map(|byte| byte as u8);
            Some((name, bytes.collect()))
        })
        .collect();
    assert_eq!(files.len(), 4, "{calls:?}");
    for ((name, bytes), (step, ending, side)) in
        files.iter().zip([(0, ".png", 300), (0, ".webp", 256), (5, ".png", 8), (5, ".webp", 8)])
    {
        // The pages read key, step and time from the name: key+step+N+timestamp+N+id, and +compressed.
        let parts: Vec<&str> = name.trim_end_matches(ending).split('+').collect();
        assert_eq!(
            (&parts[..4], parts[2]),
            (&["validation~000", "step", parts[2], "timestamp"][..], &*step.to_string())
        );
        assert!(parts[4].parse::<u64>().is_ok() && parts[5].len() == 32, "{name}");
        assert_eq!(parts.get(6), (ending == ".webp").then_some(&"compressed"));
        let picture = image::load_from_memory(bytes).expect("a picture").to_rgb8();
        assert_eq!((picture.dimensions(), picture.get_pixel(1, 1).0), ((side, side), [200, 30, 60]));
    }
    let tag = calls.iter().find(|(call, _)| call == "runs/set-tag").map(|(_, body)| body);
    assert_eq!(tag, Some(&json!({"run_id": "abc", "key": "mlflow.loggedImages", "value": "True"})));
    assert!(notes.0.lock().expect("nobody panicked").is_empty());
    Ok(())
}

#[test]
fn what_a_killed_attempt_was_sending_is_sent_again_as_it_was() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let (server, calls) = server(0)?;
    let file = folder.path().join("mlflow.json");
    let first = MlFlow::new(&server, told(folder.path()), &notes);
    push(&first, 0..3);
    first.end(End::Interrupted);
    // As if the attempt had been killed before it knew that the last request, or that for the run, had arrived.
    let metrics =
        calls.lock().expect("nobody panicked").iter().find_map(|(_, body)| body.get("metrics").cloned());
    let metrics = metrics.unwrap_or_default();
    let mut run: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    (run["sending"], run["sent"], run["id"]) = (metrics.clone(), json!({}), Value::Null);
    std::fs::write(&file, run.to_string())?;
    let second = MlFlow::new(&server, told(folder.path()), &notes);
    (0..4).for_each(|step| second.earlier(step, &|| vec![("loss/total".to_owned(), 0.5)]));
    second.end(End::Done);
    let calls = calls.lock().expect("nobody panicked");
    let sent: Vec<&Value> = calls.iter().filter_map(|(_, body)| body.get("metrics")).collect();
    // The same numbers with the same timestamps, which the server takes once, and one that it has not seen.
    let [before, again] = sent[..] else { panic!("two requests, not {sent:?}") };
    assert_eq!(before, &metrics);
    let again = again.as_array().expect("a list");
    assert_eq!((Some(&again[..3]), again.len()), (metrics.as_array().map(Vec::as_slice), 4));
    // It is looked for by the tag that the first attempt gave it.
    let named = |call: &'static str| calls.iter().filter(move |(name, _)| name == call).map(|(_, body)| body);
    let given = named("runs/create").next().map(|body| body["tags"][1]["value"].clone());
    let filter = named("runs/search").next_back().and_then(|body| body["filter"].as_str());
    let given = given.as_ref().and_then(Value::as_str).unwrap_or("no tag");
    assert_eq!(filter, Some(format!("tags.`laptop-diff.training` = '{given}'").as_str()));
    Ok(())
}

#[test]
fn a_server_that_is_away_when_a_training_resumes_keeps_its_run() -> std::io::Result<()> {
    let (folder, notes) = (tempfile::tempdir()?, Notes::default());
    let (server, calls) = server(1)?;
    let known = json!({
        "server": server.to_string(), "tag": "t", "begun": 1, "id": "abc", "artifacts": "file:///mlruns",
        "sent": {"loss/total": 2}, "sending": [],
    });
    std::fs::write(folder.path().join("mlflow.json"), known.to_string())?;
    let mlflow = MlFlow::new(&server, told(folder.path()), &notes);
    let begun = Instant::now();
    while notes.0.lock().expect("nobody panicked").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the trouble is not noted");
        thread::sleep(Duration::from_millis(20));
        mlflow.numbers(0, &[]);
    }
    (0..5).for_each(|step| mlflow.earlier(step, &|| vec![("loss/total".to_owned(), 0.5)]));
    mlflow.earlier_picture(0, "validation/000", &png(folder.path(), 8));
    mlflow.end(End::Done);
    assert_eq!(sent(&calls), [3, 4]);
    assert!(calls.lock().expect("nobody panicked").iter().all(|(call, _)| call != "runs/create"));
    let notes = notes.0.lock().expect("nobody panicked");
    assert!(
        notes.len() == 2 && notes[1].contains("keeps files in file:///mlruns and takes none"),
        "{notes:?}"
    );
    Ok(())
}
