//! The connection to one other rank: bytes in order, signs of life, and the reason if it fails.
//!
//! A thread writes, so that two ranks that send each other large tensors do not wait for each other. It sends a sign of
//! life when there is nothing else; so silence means that a machine or the network is down, not that a step takes long.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::timing::Timing;
use super::{CollectiveError, PART};

/// Parts that wait for the writer: what a rank is ahead of another, at most so many times [`PART`].
const WAITING: usize = 16;

/// How long the end of a connection may take. The other rank reads why it ends after the step that it is in.
const GOODBYE: Duration = Duration::from_secs(20);

/// The other side writes no more. Other systems than Linux say only that the connection is gone.
#[cfg(target_os = "linux")]
const HANGUP: libc::c_short = libc::POLLRDHUP;
#[cfg(not(target_os = "linux"))]
const HANGUP: libc::c_short = 0;

/// What a frame begins with.
const ALIVE: u8 = 0;
const BYTES: u8 = 1;
const FAILED: u8 = 2;

/// A frame's kind and contents.
type Frame = (u8, Vec<u8>);

pub(super) struct Link {
    rank: usize,
    host: String,
    stream: TcpStream,
    reader: Mutex<FrameReader>,
    writer: Mutex<Option<SyncSender<Frame>>>,
    thread: Option<JoinHandle<()>>,
    silence: Duration,
}

impl Link {
    /// The link to `rank` on `host`.
    pub(super) fn new(rank: usize, host: String, stream: TcpStream, timing: Timing) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(None)?;
        stream.set_read_timeout(Some(timing.silence))?;
        let reader = FrameReader { stream: BufReader::with_capacity(1 << 18, stream.try_clone()?), left: 0 };
        let (sender, receiver) = sync_channel(WAITING);
        let to = stream.try_clone()?;
        let write = move || {
            // The reader finds out that a connection is closed, and why.
            let _ = write(&receiver, to, timing.beat);
        };
        let thread = thread::Builder::new().name(format!("to-rank-{rank}")).spawn(write)?;
        Ok(Self {
            rank,
            host,
            stream,
            reader: Mutex::new(reader),
            writer: Mutex::new(Some(sender)),
            thread: Some(thread),
            silence: timing.silence,
        })
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), CollectiveError> {
        bytes.chunks(PART).try_for_each(|part| self.push((BYTES, part.to_vec())))
    }

    /// Says that this rank failed.
    pub(super) fn fail(&self, reason: &str) {
        // If the other one is gone too, nobody is left to tell.
        let _ = self.push((FAILED, reason.as_bytes().to_vec()));
    }

    fn push(&self, frame: Frame) -> Result<(), CollectiveError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = writer.as_ref().is_some_and(|writer| writer.send(frame).is_ok());
        drop(writer);
        if sent {
            return Ok(());
        }
        // The connection is closed; what came last may say why.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = [0; 1 << 12];
        loop {
            if let Err(error) = reader.read(&mut rest) {
                return Err(self.error(error));
            }
        }
    }

    pub(super) fn receive(&self, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes.len() {
            done += reader.read(&mut bytes[done..]).map_err(|error| self.error(error))?;
        }
        Ok(())
    }

    /// Fails if the other side has closed the connection, though bytes of it may still wait here.
    pub(super) fn lost(&self) -> Result<(), CollectiveError> {
        let mut poll = libc::pollfd { fd: self.stream.as_raw_fd(), events: HANGUP, revents: 0 };
        // SAFETY: it reads and writes one structure, and does not wait.
        let changed = unsafe { libc::poll(&mut poll, 1, 0) };
        match changed > 0 && poll.revents & (HANGUP | libc::POLLHUP | libc::POLLERR) != 0 {
            true => Err(CollectiveError::Closed { rank: self.rank, host: self.host.clone() }),
            false => Ok(()),
        }
    }

    fn error(&self, error: Broken) -> CollectiveError {
        let (rank, host) = (self.rank, self.host.clone());
        match error {
            Broken::Failed(reason) => CollectiveError::Failed { rank, host, reason },
            Broken::Io(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                CollectiveError::Silent { rank, host, seconds: self.silence.as_secs() }
            }
            Broken::Io(_) => CollectiveError::Closed { rank, host },
        }
    }
}

/// Everything that was sent arrives, unless the other side is gone: closing a socket with unread bytes would discard them.
impl Drop for Link {
    fn drop(&mut self) {
        let until = Instant::now() + GOODBYE;
        drop(self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let whole = thread.is_finished();
        let _ = self.stream.shutdown(if whole { Shutdown::Write } else { Shutdown::Both });
        let _ = thread.join();
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(100)));
        let mut rest = [0; 1 << 12];
        while whole && Instant::now() < until {
            match self.stream.read(&mut rest) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
    }
}

/// Writes what arrives until the sender is dropped, and signs of life in between.
fn write(frames: &Receiver<Frame>, stream: TcpStream, beat: Duration) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 18, stream);
    loop {
        // Small tensors are collected; the last of them goes out as soon as nothing else waits.
        let frame = match frames.try_recv() {
            Ok(frame) => Ok(frame),
            Err(_) => {
                to.flush()?;
                frames.recv_timeout(beat)
            }
        };
        let (kind, contents) = match frame {
            Ok(frame) => frame,
            Err(RecvTimeoutError::Timeout) => (ALIVE, Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return to.flush(),
        };
        to.write_all(&[kind])?;
        to.write_all(&(contents.len() as u32).to_le_bytes())?;
        to.write_all(&contents)?;
    }
}

/// Why nothing more can be read.
enum Broken {
    Failed(String),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the bytes of frames as one stream.
struct FrameReader {
    stream: BufReader<TcpStream>,
    /// Of the current frame.
    left: usize,
}

impl FrameReader {
    /// At least one byte.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Broken> {
        while self.left == 0 {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let length = u32::from_le_bytes(length) as usize;
            match kind {
                ALIVE => {}
                BYTES => self.left = length,
                _ => {
                    let mut reason = Vec::new();
                    (&mut self.stream).take(length as u64).read_to_end(&mut reason)?;
                    return Err(Broken::Failed(String::from_utf8_lossy(&reason).into_owned()));
                }
            }
        }
        let most = self.left.min(bytes.len());
        let count = self.stream.read(&mut bytes[..most])?;
        if count == 0 {
            return Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= count;
        Ok(count)
    }
}
