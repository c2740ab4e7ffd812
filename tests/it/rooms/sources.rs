//! Where training samples come from: folders, archives, tables and caches in the layouts of other programs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use laptop_diff::backend::Random;
use laptop_diff::data::Latents;
use laptop_diff::data::sample::Found;
use laptop_diff::data::sources::{self, Fetcher};

use super::encode::{Nano, Outcome, Watch, encode, one_size};
use crate::common::root;

const PICTURE: &[u8] = include_bytes!("../../odd_pictures/pictures/plain.png");

/// Name, caption and repeats of each sample.
fn told(found: &Found) -> Vec<(&str, &str, u32)> {
    found.candidates.iter().map(|one| (one.name.as_str(), one.caption.as_str(), one.repeats)).collect()
}

fn reasons(found: &Found) -> Vec<(&str, &str)> {
    found.left_out.iter().map(|one| (one.name.as_str(), one.reason.as_str())).collect()
}

fn write(folder: &Path, files: &[(&str, &[u8])]) -> Outcome {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder"))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[test]
fn a_folder_has_captions_in_files_beside_and_in_metadata() -> Outcome {
    let folder = tempfile::tempdir()?;
    write(
        folder.path(),
        &[
            ("10_cats/a.png", PICTURE),
            ("10_cats/a.TXT", b"a cat"),
            ("10_cats/b.JPG", PICTURE),
            ("10_cats/b.caption", b"another cat"),
            ("train/c.png", PICTURE),
            ("train/c.txt", b"beside"),
            ("train/d.png", PICTURE),
            ("train/d.txt", b"beside"),
            ("train/metadata.jsonl", b"{\"file_name\": \"c.png\", \"text\": \"listed\"}\n{\"file_name\": \"d.png\", \"text\": null}\n\
                {\"file_name\": \"lost.png\", \"text\": \"x\"}\n"),
            ("more/metadata.csv", b"file_name,caption\nin/e.webp,\"one, two\"\n"),
            ("more/in/e.webp", PICTURE),
            ("weights.pt", b"x"),
            ("readme.md", b"x"),
        ],
    )?;
    let found = sources::folder(folder.path(), None)?;
    assert_eq!(
        told(&found),
        [
            ("10_cats/a.png", "a cat", 10),
            ("10_cats/b.JPG", "another cat", 10),
            ("more/in/e.webp", "one, two", 1),
            ("train/c.png", "listed", 1),
            ("train/d.png", "beside", 1),
        ]
    );
    let notes = found.notes.join("\n");
    for words in ["1 files that do not exist, such as train/lost.png", "10_cats 10 times", "weights.pt"] {
        assert!(notes.contains(words), "{words:?} is not in {notes}");
    }
    fs::write(folder.path().join("train/metadata.jsonl"), "{\"text\": \"no name\"}")?;
    let error = sources::folder(folder.path(), None).expect_err("a row without a file").to_string();
    assert!(error.contains("line 1 has no `file_name`"), "{error}");
    Ok(())
}

#[test]
fn metadata_of_kohyas_scripts_is_read() -> Outcome {
    let folder = tempfile::tempdir()?;
    write(
        folder.path(),
        &[
            ("meta_cap.json", br#"{ "a": { "caption": "an early caption" }, "lost": { "caption": "x" } }"#),
            (
                "meta_lat.json",
                br#"{ "a": { "caption": "a cat", "tags": "cat, fur", "train_resolution": [512, 768] },
                    "/home/other/data/5_dogs/b.webp": { "tags": "dog" },
                    "c": { "train_resolution": [512, 512] } }"#,
            ),
            ("metadata.json", br#"{ "version": 1 }"#),
            ("a.png", PICTURE),
            ("5_dogs/b.webp", PICTURE),
            ("c.png", PICTURE),
            ("c.txt", b"beside"),
        ],
    )?;
    let found = sources::folder(folder.path(), None)?;
    let expected = [("5_dogs/b.webp", "dog", 5), ("a.png", "a cat, cat, fur", 1), ("c.png", "beside", 1)];
    assert_eq!(told(&found), expected);
    assert!(found.notes[0].contains("1 files that do not exist, such as lost"), "{:?}", found.notes);
    assert_eq!(sources::folder(folder.path(), Some("tags"))?.candidates[1].caption, "cat, fur");

    fs::copy(root().join("tests/odd_pictures/caches/a.npz"), folder.path().join("a_0128x0128_sd.npz"))?;
    fs::remove_file(folder.path().join("a.png"))?;
    let latents = sources::cached_latents(folder.path(), None)?;
    assert_eq!(told(&latents), [("a_0128x0128_sd.npz", "a cat, cat, fur", 1)]);

    fs::write(folder.path().join("meta_lat.json"), "{ \"a\": ")?;
    let error = sources::folder(folder.path(), None).expect_err("it is cut off").to_string();
    assert!(error.contains("meta_lat.json: it is not JSON"), "{error}");
    Ok(())
}

fn archive(members: &[(&str, &[u8])]) -> Result<Vec<u8>, std::io::Error> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes)?;
    }
    builder.into_inner()
}

/// The bytes of every sample.
fn contents(found: &Found) -> Result<Vec<Vec<u8>>, String> {
    let mut fetcher = Fetcher::default();
    found.candidates.iter().map(|one| fetcher.fetch(&one.place).read()).collect()
}

#[test]
fn archives_follow_the_rules_of_webdataset() -> Outcome {
    let folder = tempfile::tempdir()?;
    let long = format!("{}/deep.png", "long-name".repeat(20));
    let members: &[(&str, &[u8])] = &[
        ("000.jpg", PICTURE),
        ("000.txt", b""),
        ("000.json", b"{\"caption\": \"from json\", \"similarity\": NaN}"),
        ("001.txt", b"first the text"),
        ("001.PNG", PICTURE),
        ("__index__", b"x"),
        ("._002.jpg", b"of a Mac"),
        ("a/002.jpg", PICTURE),
        ("a/002.caption", b"in a folder"),
        ("003.old.jpg", PICTURE),
        ("003.txt", b"two dots"),
        ("004.jpg", PICTURE),
        ("005.jpg", PICTURE),
        ("005.jpg", PICTURE),
        ("006.txt", b"a failed download"),
        (&long, PICTURE),
    ];
    let whole = archive(members)?;
    let (plain, packed) = (folder.path().join("0.tar"), folder.path().join("1.tar.gz"));
    fs::write(&plain, &whole)?;
    let mut encoder = GzEncoder::new(fs::File::create(&packed)?, Compression::default());
    encoder.write_all(&whole)?;
    encoder.finish()?;
    let files = [("0.tar".to_owned(), plain.clone()), ("1.tar.gz".to_owned(), packed)];
    let found = sources::webdataset(&files, None, folder.path())?;
    let samples = told(&found);
    assert_eq!(
        samples[..4],
        [
            ("0.tar/000.jpg", "from json", 1),
            ("0.tar/001.png", "first the text", 1),
            ("0.tar/a/002.jpg", "in a folder", 1),
            ("0.tar/004.jpg", "", 1),
        ]
    );
    assert_eq!(samples.len(), 10, "the same in both archives: {samples:?}");
    assert!(contents(&found)?.iter().all(|bytes| bytes == PICTURE));
    let expected =
        [("0.tar/003", "extension `old.jpg`"), ("0.tar/005", "two pictures"), ("0.tar/006", "no picture")];
    for ((name, reason), (expected, words)) in reasons(&found).into_iter().zip(expected) {
        assert!(name == expected && reason.contains(words), "{name}: {reason}");
    }

    let cut = archive(&members[..5])?;
    fs::write(&plain, &cut[..cut.len() - 1024 - 700])?;
    let found = sources::webdataset(&files[..1], None, folder.path())?;
    assert_eq!(told(&found), [("0.tar/000.jpg", "from json", 1)]);
    assert_eq!(reasons(&found)[0].0, "0.tar/001");
    assert!(found.notes[0].contains("0.tar cannot be read to its end"), "{:?}", found.notes);
    fs::write(&plain, b"no archive, but long enough for a header".repeat(20))?;
    assert!(sources::webdataset(&files[..1], None, folder.path()).is_err());
    Ok(())
}

fn table(name: &str) -> (String, PathBuf) {
    (name.to_owned(), root().join("tests/odd_pictures/tables").join(name))
}

#[test]
fn tables_of_the_hub_and_of_img2dataset_are_read() -> Outcome {
    let random = Random::new(1, "x");
    let hub = sources::parquet(&[table("train-00000-of-00001.parquet")], None, &random)?;
    let names = ["a red circle", "a blue star", "", "a ring"];
    assert!(reasons(&hub)[0].1.contains("lost.png does not exist"), "{:?}", hub.left_out);
    let captions: Vec<&str> = hub.candidates.iter().map(|one| one.caption.as_str()).collect();
    assert_eq!(captions, names);
    let expected = fs::read(root().join("tests/odd_pictures/pictures/plain.png"))?;
    assert!(contents(&hub)?.iter().all(|bytes| *bytes == expected));

    let img2dataset = sources::parquet(&[table("00000.parquet")], None, &random)?;
    assert_eq!(told(&img2dataset), [("00000.parquet:0", "one", 1), ("00000.parquet:2", "", 1)]);
    assert_eq!(contents(&img2dataset)?.len(), 2);
    assert_eq!(img2dataset.notes, ["1 rows have no picture and are no samples"]);
    let url = sources::parquet(&[table("00000.parquet")], Some("url"), &random)?;
    assert_eq!(url.candidates[0].caption, "http://a");

    let lists = sources::parquet(&[table("lists.parquet")], None, &random)?;
    assert_eq!(lists.candidates[1].caption, "only one");
    let drawn: Vec<String> = (0..20)
        .map(|seed| {
            let found = sources::parquet(&[table("lists.parquet")], None, &Random::new(seed, "x"))?;
            Ok(found.candidates[0].caption.clone())
        })
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    assert!(drawn.contains(&"first".to_owned()) && drawn.contains(&"second".to_owned()), "{drawn:?}");

    let paths = [table("paths.parquet")];
    let found = sources::parquet(&paths, None, &random)?;
    assert_eq!(told(&found), [("paths.parquet:0", "inside", 1), ("paths.parquet:1", "in a file", 1)]);
    assert_eq!(
        contents(&found)?,
        [expected, fs::read(root().join("tests/odd_pictures/tables/files/x.png"))?]
    );
    assert_eq!(sources::pictures_beside(&paths)?, ["files/x.png"], "they enter the key");
    for ((name, reason), (row, words)) in reasons(&found).into_iter().zip([
        ("paths.parquet:2", "lost.png does not exist beside the table: copy it there"),
        ("paths.parquet:3", "../pictures/plain.png is not below the folder of the table: move it there"),
        ("paths.parquet:4", "a link, https://a/b.png: download it first"),
    ]) {
        assert!(name == row && reason.contains(words), "{name}: {reason}");
    }

    let error = |files: &[(String, PathBuf)], column| {
        sources::parquet(files, column, &random).expect_err("it cannot be read").to_string()
    };
    assert!(error(&[table("urls.parquet")], None).contains("no column of pictures, only caption, url"));
    assert!(error(&[table("00000.parquet")], Some("x")).contains("no column of text `x`"));
    let splits = [table("train-00000-of-00001.parquet"), table("test-00000-of-00001.parquet")];
    assert!(error(&splits, None).contains("several splits: test, train"));
    Ok(())
}

#[test]
fn latents_of_kohyas_scripts_are_scaled_and_keep_their_sizes() -> Outcome {
    let (folder, output) = (root().join("tests/odd_pictures/caches"), tempfile::tempdir()?);
    let found = sources::cached_latents(&folder, None)?;
    assert_eq!(
        told(&found),
        [
            ("3_cats/b_0064x0048_sd.npz", "a cat", 3),
            ("a.npz", "the old name wins", 1),
            ("several_0064x0064_sd.npz", "several resolutions", 1),
        ]
    );
    encode(&Nano::open()?, found, one_size(), output.path(), &Watch::default())?;
    let latents = Latents::open(output.path())?;
    assert_eq!(latents.rows(), 5);
    let of = |caption: &str| (0..5).find(|&row| latents.caption(row) == caption).expect("it was encoded");
    let numbers = |caption: &str| -> Result<(Vec<usize>, f32), Box<dyn std::error::Error>> {
        let found = latents.fetch(&[of(caption)], &candle_core::Device::Cpu)?.latents;
        Ok((found.dims().to_vec(), found.flatten_all()?.to_vec1::<f32>()?[5]))
    };
    let factor = Nano::open()?.scaling_factor() as f32;
    assert_eq!(numbers("a cat")?, (vec![1, 4, 12, 16], 5.0 * factor));
    assert_eq!(numbers("the old name wins")?, (vec![1, 4, 16, 16], 5.0 * factor));
    assert_eq!(numbers("several resolutions")?.0, [1, 4, 16, 16]);

    let bytes = fs::read(folder.join("3_cats/b_0064x0048_sd.npz"))?;
    let cached = sources::read_latents(&bytes, 256)?;
    assert_eq!((cached.original_size, cached.crop), (Some((640, 480)), (7, 3)));
    for end in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        assert!(sources::read_latents(&bytes[..end], 256).is_err(), "{end}");
    }
    Ok(())
}
