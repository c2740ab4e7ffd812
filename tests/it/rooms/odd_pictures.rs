//! Pictures and captions as they lie in real folders: each is decoded as Pillow does, or skipped with its reason, and none
//! ends the stage.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use laptop_diff::data::picture::{Buckets, Room, decode};
use laptop_diff::data::{Captions, Latents, Rules, pictures, sources};
use serde_json::Value;

use super::encode::{Nano, Outcome, Watch, encode};
use crate::common::root;

fn folder() -> PathBuf {
    root().join("tests/odd_pictures")
}

/// Words of the reason why a picture is skipped, by its name.
fn skipped() -> Result<BTreeMap<String, String>, Box<dyn std::error::Error>> {
    Ok(serde_json::from_slice(&fs::read(folder().join("skipped.json"))?)?)
}

#[test]
fn each_is_decoded_as_by_pillow() -> Outcome {
    let skipped = skipped()?;
    let (mut decoded, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder().join("pictures"))? {
        let path = entry?.path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with('.') || name == "Thumbs.db" || name.ends_with(".txt") {
            continue;
        }
        let bytes = fs::read(&path)?;
        let found = decode(&bytes, [255; 3], &Room::new(1 << 30));
        if skipped.contains_key(&name) && !name.starts_with("caption-") {
            let reason = found.err().map_or("decoded".to_owned(), |reason| reason.to_string());
            if reason == "decoded" || !reason.contains(&skipped[&name]) {
                wrong.push(format!("{name}: {reason}"));
            }
            continue;
        }
        let found = match found {
            Ok(found) => found,
            Err(reason) => {
                wrong.push(format!("{name}: {reason}"));
                continue;
            }
        };
        let noted = ["corrupt-exif.jpg"].contains(&name.as_str());
        assert_eq!(!found.notes.is_empty(), noted, "{name}: {:?}", found.notes);
        if name.starts_with("caption-") {
            continue;
        }
        let expected = pictures::read(&folder().join("expected").join(format!("{name}.png")))?;
        assert_eq!(found.picture.dimensions(), expected.dimensions(), "{name}");
        let far = |(one, two): (&u8, &u8)| one.abs_diff(*two);
        let far = found.picture.as_raw().iter().zip(expected.as_raw()).map(far).max();
        // JPEGs are read by the same arithmetic as in Pillow; lossy WebP and colour profiles by other libraries.
        let allowed = u8::from(!bytes.starts_with(b"\xff\xd8") || name.starts_with("display-p3"));
        if far > Some(allowed) {
            wrong.push(format!("{name} is {far:?} levels away"));
        }
        decoded += 1;
    }
    assert_eq!(wrong, [""; 0]);
    assert!(decoded > 40, "{decoded}");
    Ok(())
}

/// The folder with what a repository cannot hold: a name that is not UTF-8, a picture of 60 megapixels, a folder with a
/// picture's name, links.
fn complete() -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let copied = tempfile::tempdir()?;
    for entry in fs::read_dir(folder().join("pictures"))? {
        let path = entry?.path();
        fs::copy(&path, copied.path().join(path.file_name().expect("a name")))?;
    }
    let plain = folder().join("pictures/plain.png");
    let place = |name: &str| copied.path().join(name);
    fs::copy(&plain, copied.path().join(OsStr::from_bytes(b"not-\xff-text.png")))?;
    pictures::write(&place("huge.png"), &image::RgbImage::new(10_000, 6_000))?;
    fs::write(place("huge.txt"), "a huge picture")?;
    fs::create_dir(place("folder.png"))?;
    symlink(&plain, place("link.png"))?;
    fs::write(place("link.txt"), "a link out of the folder")?;
    symlink("nowhere", place("broken-link.png"))?;
    symlink(".", place("circle"))?;
    Ok(copied)
}

#[test]
fn none_ends_the_stage_below_the_limit() -> Outcome {
    let (source, output) = (complete()?, tempfile::tempdir()?);
    let mut expected = skipped()?;
    expected.insert("not-\u{fffd}-text.png".to_owned(), "not UTF-8".to_owned());
    expected.insert("broken-link.png".to_owned(), "No such file".to_owned());
    let rules = Rules { captions: Captions::Required, max_skipped: "50 %".parse()? };
    let found = sources::folder(source.path(), None)?;
    let size = || Buckets::one((64, 64));
    let watch = Watch::default();
    encode(&Nano::open()?, found, (size(), rules), output.path(), &watch)?;
    let lines = fs::read_to_string(output.path().join("samples.jsonl"))?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (mut used, mut found) = (Vec::new(), Vec::new());
    for line in &lines {
        let name = line["sample"].as_str().expect("a name");
        match (line["skipped"].as_str(), expected.get(name)) {
            (None, None) => used.push((name, line["caption"].as_str().expect("a caption"))),
            (Some(reason), Some(words)) if reason.contains(words) => found.push(name),
            (reason, words) => panic!("{name} is skipped because {reason:?}, expected {words:?}"),
        }
    }
    assert_eq!(found.len(), expected.len());
    for (name, caption) in [
        ("caption-bom.png", "a star"),
        ("caption-crlf.png", "a red star"),
        ("caption-lines.png", "a red star"),
        ("caption-utf16.png", "ein Löwe"),
        ("caption-emoji.png", "a \u{1f981}"),
        ("huge.png", "a huge picture"),
        ("link.png", "a link out of the folder"),
    ] {
        assert!(used.contains(&(name, caption)), "{name} in {used:?}");
    }
    assert_eq!(Latents::open(output.path())?.rows(), used.len());
    let names = lines.iter().filter_map(|line| line["sample"].as_str());
    assert!(names.clone().all(|name| !name.starts_with('.') && !name.contains("Thumbs")), "foreign files");
    let notes = watch.notes.lock().expect("nobody panicked").join("\n");
    for words in ["cut to 75 tokens", "corrupt-exif.jpg (its EXIF block is corrupt", "samples skipped: "] {
        assert!(notes.contains(words), "{words:?} is not in {notes}");
    }

    let error = encode(
        &Nano::open()?,
        sources::folder(source.path(), None)?,
        (size(), Rules::default()),
        Path::new(output.path()),
        &Watch::default(),
    );
    assert!(error.is_err(), "the limit of 1 % is passed");
    Ok(())
}
