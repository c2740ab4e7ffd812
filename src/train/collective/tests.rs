//! Ranks in threads, connected by TCP over the loopback.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rand_core::{Rng, SeedableRng};

use super::addresses::Meeting;
use super::handshake;
use super::*;
use crate::backend::Random;
use crate::base::Interrupted;

fn place(rank: usize, size: usize) -> Place {
    Place {
        rank,
        size,
        local_rank: rank,
        one_machine: true,
        launcher: "test",
        address: None,
        id: String::new(),
    }
}

/// Long enough for a machine with other work, short enough for a test.
fn timing() -> Timing {
    let seconds = Duration::from_secs;
    Timing { gather: seconds(60), beat: Duration::from_millis(100), silence: seconds(30) }
}

/// Runs `work` as each rank of a group; gives the results in their order.
pub(in crate::train) fn ranks<R: Send>(size: usize, work: impl Fn(TcpGroup) -> R + Sync) -> Vec<R> {
    let folder = tempfile::tempdir().expect("a folder");
    let one = |rank: usize| {
        let group = gather(&place(rank, size), folder.path(), None, timing(), &mut || Ok(()));
        work(group.expect("all ranks come"))
    };
    thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || one(rank))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

/// The numbers of a rank; their sums depend on the order of the addends.
pub(in crate::train) fn numbers(rank: usize, tensor: usize, count: usize) -> Vec<f32> {
    let mut stream = Random::new(3, "ranks").stream("numbers", (100 * tensor + rank) as u64);
    let number = |bits: u64| f32::from_bits(0x3000_0000 | (bits as u32 & 0x8FFF_FFFF));
    (0..count).map(|_| number(stream.next_u64())).collect()
}

#[test]
fn sums_have_the_order_of_the_ranks_whatever_arrives_first() {
    let lengths = [1, 0, 700, PART / 4, 3 * PART / 4 + 5];
    for size in [2, 3, 4] {
        let sums = ranks(size, |group| {
            let mut pause = rand_chacha::ChaCha8Rng::seed_from_u64(group.rank() as u64);
            let mut owned = Vec::new();
            for (tensor, length) in lengths.into_iter().enumerate() {
                thread::sleep(Duration::from_millis(pause.next_u64() % 20));
                let mut sum = numbers(group.rank(), tensor, length);
                group.reduce(&mut sum, tensor % size).expect("all ranks are there");
                if tensor % size == group.rank() {
                    owned.push((tensor, sum.clone()));
                }
                group.broadcast_numbers(&mut sum, tensor % size).expect("all ranks are there");
                owned.push((tensor, sum));
            }
            owned
        });
        for (tensor, sum) in sums.into_iter().flatten() {
            let mut expected = numbers(0, tensor, lengths[tensor]);
            for rank in 1..size {
                let other = numbers(rank, tensor, lengths[tensor]);
                expected.iter_mut().zip(other).for_each(|(sum, number)| *sum += number);
            }
            let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            assert!(bits(&sum) == bits(&expected), "tensor {tensor} of {size} ranks");
        }
    }
}

#[test]
fn all_ranks_know_sums_wishes_and_what_rank_0_tells() {
    let addends = [1e300, 1.0, -1e300];
    let told = ranks(3, |group| {
        let mut sums = [addends[group.rank()], 2.0];
        group.sum(&mut sums).expect("all ranks are there");
        let wishes = [false, group.rank() == 2].map(|wish| group.any(wish).expect("all ranks are there"));
        let text = vec!["a task"; 3];
        let heard = match group.rank() {
            0 => tell(&group, &text).map(|()| None),
            _ => hear::<Vec<String>>(&group).map(Some),
        };
        (sums, wishes, heard.expect("all ranks are there"))
    });
    for (rank, (sums, wishes, heard)) in told.into_iter().enumerate() {
        assert_eq!(sums, [0.0, 6.0], "in the order of the ranks, the 1 is lost");
        assert_eq!(wishes, [false, true]);
        assert_eq!(heard.is_some_and(|heard| heard == ["a task"; 3]), rank > 0);
    }
}

#[test]
fn ranks_that_send_each_other_much_do_not_wait_for_each_other() {
    // More than what waits for the writer and what the system holds.
    let count = 12 * 1024 * 1024;
    ranks(2, |group| {
        for tensor in 0..6 {
            let mut sum = vec![1f32; count];
            group.reduce(&mut sum, tensor % 2).expect("both ranks are there");
            assert_eq!(sum[count - 1], if tensor % 2 == group.rank() { 2.0 } else { 1.0 });
        }
    });
}

#[test]
fn a_lost_rank_is_named_at_once() {
    let errors = ranks(3, |group| {
        if group.rank() == 1 {
            return None;
        }
        let begun = Instant::now();
        let error = group.sum(&mut [1.0]).expect_err("rank 1 took no part");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        Some(error)
    });
    for error in errors.into_iter().flatten() {
        // The first that notices may be gone before the other asks.
        assert!(matches!(error, CollectiveError::Closed { rank: 0..=2, .. }), "{error}");
    }
}

#[test]
fn the_reason_of_a_failure_reaches_all() {
    let errors = ranks(3, |group| {
        if group.rank() == 2 {
            group.fail("the disk is full");
            let later = group.any(true).expect_err("it left").to_string();
            return later;
        }
        // Long enough that the failed rank wants to be gone.
        thread::sleep(Duration::from_millis(200));
        let error = group.receive(&mut [0; 100], 2).expect_err("rank 2 sends nothing");
        assert!(matches!(error, CollectiveError::Failed { rank: 2, .. }), "{error}");
        error.to_string()
    });
    assert!(errors.iter().all(|error| error.contains("the disk is full")), "{errors:?}");
}

#[test]
fn a_long_step_is_no_silence_but_a_stopped_rank_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let brief = Timing { silence: Duration::from_secs(1), ..timing() };
    let one = |rank: usize, timing: Timing| {
        gather(&place(rank, 2), folder.path(), None, timing, &mut || Ok(())).expect("both come")
    };
    // One that beats, and one that does not.
    for (beat, is_lost) in [(Duration::from_millis(100), false), (Duration::from_secs(60), true)] {
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let group = one(1, Timing { beat, ..brief });
                thread::sleep(Duration::from_secs(3));
                let _ = group.send(&[7], 0);
            });
            let group = one(0, brief);
            let mut byte = [0];
            let received = group.receive(&mut byte, 1);
            match is_lost {
                false => assert!(received.is_ok() && byte == [7], "{received:?}"),
                true => assert!(
                    matches!(received, Err(CollectiveError::Silent { rank: 1, seconds: 1, .. })),
                    "{received:?}"
                ),
            }
            drop(group);
            other.join().expect("it does not panic");
        });
    }
}

#[test]
fn strangers_disturb_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = |rank: usize| gather(&place(rank, 2), folder.path(), None, timing(), &mut || Ok(()));
    thread::scope(|scope| {
        let first = scope.spawn(|| one(0));
        let meeting = wait_for_file(folder.path());
        let connect = || TcpStream::connect(("127.0.0.1", meeting.port)).expect("rank 0 listens");
        let silent = connect();
        let mut noisy = connect();
        let _ = noisy.write_all(&[0xFF; 200]);
        let mut liar = connect();
        let greeting = handshake::Greeting { rank: 1, host: "h".to_owned(), addresses: Vec::new(), port: 1 };
        assert!(handshake::greet(&mut liar, &[1; 32], &greeting).is_err(), "it does not know the secret");
        let second = one(1).expect("rank 1 comes");
        let first = first.join().expect("no panic").expect("rank 0 is not disturbed");
        let asked = scope.spawn(move || second.any(true));
        assert!(first.any(false).expect("both are there"));
        assert!(asked.join().expect("no panic").expect("both are there"));
        drop(silent);
    });
    assert!(std::fs::read_dir(folder.path()).expect("a folder").next().is_none(), "the secret is gone");
}

fn wait_for_file(folder: &Path) -> Meeting {
    let path = Meeting::path(folder, &place(0, 2));
    loop {
        match Meeting::read(&path).expect("one version") {
            Ok(meeting) => return meeting,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn a_rank_finds_no_stranger_and_no_file_of_a_killed_run() {
    let folder = tempfile::tempdir().expect("a folder");
    // Somebody else listens where a run that was killed did.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").port();
    let answer = move || -> io::Result<()> {
        let (mut stream, _) = other.accept()?;
        stream.write_all(&[5; 200])?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    };
    thread::spawn(answer);
    let old = Meeting::new(vec!["127.0.0.1".to_owned()], port);
    old.write(&Meeting::path(folder.path(), &place(0, 2))).expect("a folder");
    let one = |rank: usize| gather(&place(rank, 2), folder.path(), None, timing(), &mut || Ok(()));
    thread::scope(|scope| {
        let second = scope.spawn(|| one(1).expect("rank 0 comes").any(false).expect("both are there"));
        thread::sleep(Duration::from_millis(300));
        assert!(one(0).expect("rank 1 comes").any(true).expect("both are there"));
        assert!(second.join().expect("no panic"));
    });
}

#[test]
fn who_waits_in_vain_says_for_whom() {
    let folder = tempfile::tempdir().expect("a folder");
    let brief = Timing { gather: Duration::from_millis(300), ..timing() };
    let alone = |rank: usize| {
        let group = gather(&place(rank, 3), folder.path(), None, brief, &mut || Ok(()));
        group.err().expect("nobody else comes").to_string()
    };
    assert!(alone(0).contains("2 of 3 ranks did not connect within 0 seconds: 1, 2"), "{}", alone(0));
    assert!(alone(2).contains("rank 2 of 3 did not reach rank 0"), "{}", alone(2));
    let stop = &mut || Err(Interrupted.into());
    let stopped = gather(&place(0, 3), folder.path(), None, timing(), stop).err();
    assert!(matches!(stopped, Some(CollectiveError::Interrupted(_))), "{stopped:?}");
}
