//! Where rank 0 listens, in a file that all ranks can read; and the names by which a machine may be reached.

use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handshake::Secret;
use super::{CollectiveError, Place};
use crate::base::{FileError, files};

/// One attempt to connect; a name may stand for several addresses, and a firewall may answer none of them.
const CONNECT: Duration = Duration::from_secs(3);

/// The file of rank 0. It holds the secret of this start, so that only the user may read it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Meeting {
    /// The version of the program.
    pub(super) program: String,
    pub(super) host: String,
    pub(super) addresses: Vec<String>,
    pub(super) port: u16,
    secret: String,
}

impl Meeting {
    pub(super) fn new(addresses: Vec<String>, port: u16) -> Self {
        let secret: Secret = rand::random();
        let secret = blake3::Hash::from_bytes(secret).to_hex().to_string();
        Self { program: program(), host: host(), addresses, port, secret }
    }

    /// Its place in the folder of all runs. The command is the same for all ranks of one start.
    pub(super) fn path(folder: &Path, place: &Place) -> PathBuf {
        let command: Vec<_> = std::env::args_os().skip(1).map(|part| part.into_encoded_bytes()).collect();
        let name = [place.id.as_bytes(), &command.join(&0)].concat();
        folder.join(format!(".ranks-{}.json", &blake3::hash(&name).to_hex()[..16]))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CollectiveError> {
        let write = || {
            let folder = path.parent().expect("it lies in a folder");
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new()
                .prefix(".ranks-")
                .permissions(fs::Permissions::from_mode(0o600))
                .tempfile_in(folder)?;
            serde_json::to_writer(&mut file, self)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        Ok(write().map_err(FileError::at(path))?)
    }

    /// Reads the file; an error of version if another program wrote it.
    pub(super) fn read(path: &Path) -> Result<Result<Self, io::Error>, CollectiveError> {
        let meeting: Self = match files::read_json(path) {
            Ok(meeting) => meeting,
            Err(error) => return Ok(Err(error)),
        };
        match meeting.program == program() {
            true => Ok(Ok(meeting)),
            false => Err(CollectiveError::Version { found: meeting.program, needed: program() }),
        }
    }

    pub(super) fn secret(&self) -> io::Result<Secret> {
        let hash = blake3::Hash::from_hex(&self.secret);
        Ok(*hash.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.as_bytes())
    }
}

fn program() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The name of this machine.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// The names of this machine that others may try: what Slurm calls it, its own name, and its address on the way out. No
/// packet is sent to find that.
pub(super) fn own() -> Vec<String> {
    let outgoing = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // An address that is reserved for documentation (RFC 5737).
        socket.connect("192.0.2.1:9")?;
        Ok::<_, io::Error>(socket.local_addr()?.ip().to_string())
    };
    let slurm = std::env::var("SLURMD_NODENAME").ok();
    slurm.into_iter().chain([host()]).chain(outgoing().ok()).collect()
}

/// Connects to the first of a machine's addresses that answers and that `accepts`.
pub(super) fn connect(
    machine: &str,
    addresses: &[String],
    port: u16,
    mut accepts: impl FnMut(&mut TcpStream) -> io::Result<()>,
) -> io::Result<TcpStream> {
    let here = (machine == host()).then(|| "127.0.0.1".to_owned());
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{machine} has no address"));
    for name in here.iter().chain(addresses) {
        let found = match (name.as_str(), port).to_socket_addrs() {
            Ok(found) => found,
            Err(error) => {
                last = io::Error::new(error.kind(), format!("{name}: {error}"));
                continue;
            }
        };
        for address in found {
            let attempt = TcpStream::connect_timeout(&address, CONNECT);
            match attempt.and_then(|mut stream| accepts(&mut stream).map(|()| stream)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
    }
    Err(last)
}
