//! What a bucket must do, against a server that speaks S3.

use super::super::remote::{Source, Trouble};
use super::*;

#[test]
#[ignore = "needs a server that speaks S3: LAPTOP_DIFF_TEST_S3=HOST:PORT, with a bucket `lab`, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"]
fn a_bucket_takes_and_gives_small_and_large_objects_whole() {
    let server = std::env::var("LAPTOP_DIFF_TEST_S3").expect("LAPTOP_DIFF_TEST_S3=HOST:PORT");
    let prefix = format!("s3://lab/objects-{}", std::process::id());
    let shared = Shared::new(prefix.parse().expect("an address"), Some(format!("http://{server}")));
    let shared = shared.expect("built with the feature");
    let (remote, stop) = (shared.open().expect("it opens"), Interrupt::default());
    let get = |name: &str| {
        let mut bytes = Vec::new();
        remote.get(name, &mut bytes, &stop).map(|()| bytes)
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    // One part, just one part, and parts of which the last one is short.
    for (name, size) in [("small", 3), ("one-part", 5 << 20), ("parts", (12 << 20) + 7)] {
        let bytes: Vec<u8> = (0..size).map(|index: usize| (index * 31 + index / 1000) as u8).collect();
        let file = folder.path().join(name);
        fs::write(&file, &bytes).expect("writable");
        let name = format!("v1/blobs/{name}");
        assert_eq!(remote.exists(&name, &stop).expect("it answers"), None);
        assert!(matches!(get(&name), Err(Trouble::Absent)));
        remote.put(&name, Source::File(&file), &stop).expect("it takes it");
        assert_eq!(remote.exists(&name, &stop).expect("it answers"), Some(size as u64));
        assert!(get(&name).expect("it is there") == bytes, "{name}");
    }
    remote.put("v1/entries/a.json", Source::Bytes(b"old"), &stop).expect("it takes it");
    remote.put("v1/entries/a.json", Source::Bytes(b"new"), &stop).expect("it takes it again");
    assert_eq!(get("v1/entries/a.json").expect("it is there"), b"new");
    assert_eq!(remote.list("v1/entries", &stop).expect("it answers"), ["a.json"]);
    assert_eq!(remote.list("v1/nothing", &stop).expect("it answers"), Vec::<String>::new());
    assert_eq!(shared.problem(&stop), None);
    let nowhere =
        Shared::new("s3://no-such-bucket".parse().expect("an address"), Some(format!("http://{server}")));
    let problem = nowhere.expect("built with the feature").problem(&stop);
    assert_eq!(problem.as_deref(), Some("has no such bucket"));
}
