//! How two processes recognise each other: both know a secret that rank 0 wrote into a file, and neither sends it.
//!
//! The listener sends a random number; the other answers with its greeting and a keyed hash of both; the listener answers
//! with another keyed hash. So strangers are refused, and a rank that reached a stranger's port notices.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What both know.
pub(super) type Secret = [u8; 32];

/// A handshake takes two round trips; who takes longer is a stranger.
const PATIENCE: Duration = Duration::from_secs(10);

/// No greeting is longer; a stranger's first bytes may say anything.
const MOST_BYTES: u32 = 1 << 16;

/// Who connects, and where it listens itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Greeting {
    pub(super) rank: usize,
    /// The name of its machine, for people.
    pub(super) host: String,
    /// Names and addresses of its machine.
    pub(super) addresses: Vec<String>,
    pub(super) port: u16,
}

/// The side of the listener: the greeting of a rank; an error for a stranger.
pub(super) fn welcome(stream: &mut TcpStream, secret: &Secret) -> io::Result<Greeting> {
    let nonce: [u8; 32] = rand::random();
    patiently(stream)?;
    stream.write_all(&nonce)?;
    let text = read_text(stream)?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof)?;
    // The hashes are compared in constant time.
    if keyed(secret, b"hello", &nonce, &text) != blake3::Hash::from_bytes(proof) {
        return Err(stranger());
    }
    stream.write_all(keyed(secret, b"welcome", &nonce, &text).as_bytes())?;
    Ok(serde_json::from_slice(&text)?)
}

/// The other side; an error if who listens there is a stranger.
pub(super) fn greet(stream: &mut TcpStream, secret: &Secret, greeting: &Greeting) -> io::Result<()> {
    patiently(stream)?;
    let (mut nonce, mut proof) = ([0; 32], [0; 32]);
    stream.read_exact(&mut nonce)?;
    let text = serde_json::to_vec(greeting)?;
    write_text(stream, &text)?;
    stream.write_all(keyed(secret, b"hello", &nonce, &text).as_bytes())?;
    stream.read_exact(&mut proof)?;
    match keyed(secret, b"welcome", &nonce, &text) == blake3::Hash::from_bytes(proof) {
        true => Ok(()),
        false => Err(stranger()),
    }
}

/// Text with its length before it.
pub(super) fn write_text(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(&[&(text.len() as u32).to_le_bytes(), text].concat())
}

/// Reads what [`write_text`] wrote.
pub(super) fn read_text(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(stranger());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    Ok(text)
}

fn patiently(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn keyed(secret: &Secret, role: &[u8], nonce: &[u8], text: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(secret, &[role, nonce, text].concat())
}

fn stranger() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "who answers there does not belong to this run")
}
