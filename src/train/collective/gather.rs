//! How the processes of one start find each other: rank 0 listens and writes its address into a file, the others read it,
//! connect, and learn from rank 0 where they find each other.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::addresses::{self, Meeting};
use super::handshake::{self, Greeting, Secret};
use super::link::Link;
use super::timing::Timing;
use super::{CollectiveError, Place, TcpGroup};

/// Between two looks at the file or the listener.
const PAUSE: Duration = Duration::from_millis(20);

/// Called while waiting; its error ends that.
type Watch<'a> = &'a mut dyn FnMut() -> Result<(), CollectiveError>;

/// Connects all ranks. `folder` is shared by all of them; `listener` is that of rank 0, if it listens already.
pub fn gather(
    place: &Place,
    folder: &Path,
    listener: Option<TcpListener>,
    timing: Timing,
    watch: Watch<'_>,
) -> Result<TcpGroup, CollectiveError> {
    let until = Instant::now() + timing.gather;
    let path = Meeting::path(folder, place);
    let port = place.address.as_ref().filter(|_| place.rank == 0).map_or(0, |(_, port)| *port);
    // Nobody from outside can connect where nobody from outside has to.
    let own = if place.one_machine { "127.0.0.1" } else { "0.0.0.0" };
    let listener = listener.map_or_else(|| TcpListener::bind((own, port)), Ok);
    let listener = listener.map_err(CollectiveError::system("listening for the other ranks"))?;
    let address = listener.local_addr().map_err(CollectiveError::system("listening for the other ranks"))?;
    let greeting = Greeting {
        rank: place.rank,
        host: addresses::host(),
        addresses: addresses::own(),
        port: address.port(),
    };
    let meeting = Arrivals { place, listener, until, timing, watch };
    match place.rank {
        0 => meeting.lead(&path, &greeting),
        _ => meeting.join(&path, &greeting),
    }
}

/// One rank on its way into the group.
struct Arrivals<'a> {
    place: &'a Place,
    listener: TcpListener,
    until: Instant,
    timing: Timing,
    watch: Watch<'a>,
}

/// A rank that is connected.
type Arrival = (Greeting, TcpStream);

impl Arrivals<'_> {
    /// Rank 0 waits for all others, then tells them about each other.
    fn lead(mut self, path: &Path, own: &Greeting) -> Result<TcpGroup, CollectiveError> {
        let given = self.place.address.iter().map(|(host, _)| host.clone());
        let meeting = Meeting::new(given.chain(own.addresses.clone()).collect(), own.port);
        meeting.write(path)?;
        let secret = meeting.secret().map_err(CollectiveError::system("making a secret"))?;
        let arrived = self.accept(1, &secret);
        let _ = fs::remove_file(path);
        let mut arrived = arrived?;
        let all: Vec<&Greeting> =
            [own].into_iter().chain(arrived.iter().map(|(greeting, _)| greeting)).collect();
        let text = serde_json::to_vec(&all).expect("names and numbers serialise");
        for (greeting, stream) in &mut arrived {
            let closed = |_| CollectiveError::Closed { rank: greeting.rank, host: greeting.host.clone() };
            handshake::write_text(stream, &text).map_err(closed)?;
        }
        self.group(arrived)
    }

    /// Another rank looks for rank 0, then connects to the ranks before it and waits for those after it.
    fn join(mut self, path: &Path, own: &Greeting) -> Result<TcpGroup, CollectiveError> {
        let mut reason = "its file was not written".to_owned();
        let (meeting, secret, mut first) = loop {
            self.pause()?;
            if Instant::now() >= self.until {
                return Err(self.unreachable(path, reason));
            }
            // A file of a killed run may still be there: rank 0 replaces it.
            let found = Meeting::read(path)?.and_then(|meeting| {
                let secret = meeting.secret()?;
                let greet = |stream: &mut TcpStream| handshake::greet(stream, &secret, own);
                let stream = addresses::connect(&meeting.host, &meeting.addresses, meeting.port, greet)?;
                Ok((meeting, secret, stream))
            });
            match found {
                Ok(found) => break found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => reason = error.to_string(),
            }
        };
        let closed = |_| CollectiveError::Closed { rank: 0, host: meeting.host.clone() };
        first.set_read_timeout(Some(PAUSE)).map_err(closed)?;
        while first.peek(&mut [0]).is_err() {
            self.pause()?;
            if Instant::now() >= self.until {
                return Err(self.unreachable(path, "other ranks are missing".to_owned()));
            }
        }
        let all = self.table(&mut first).map_err(closed)?;
        let mut arrived = vec![(all[0].clone(), first)];
        for other in &all[1..self.place.rank] {
            let greet = |stream: &mut TcpStream| handshake::greet(stream, &secret, own);
            let stream = addresses::connect(&other.host, &other.addresses, other.port, greet);
            let failed = |error: io::Error| self.unreachable(path, format!("rank {}: {error}", other.rank));
            arrived.push((other.clone(), stream.map_err(failed)?));
        }
        arrived.extend(self.accept(self.place.rank + 1, &secret)?);
        self.group(arrived)
    }

    /// The greetings of all ranks, which rank 0 sends when the last one is there.
    fn table(&self, first: &mut TcpStream) -> io::Result<Vec<Greeting>> {
        first.set_read_timeout(Some(self.timing.silence))?;
        let all: Vec<Greeting> = serde_json::from_slice(&handshake::read_text(first)?)?;
        match all.len() == self.place.size && all.iter().enumerate().all(|(rank, one)| one.rank == rank) {
            true => Ok(all),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Waits for all ranks from `from` on; gives them in order. Each handshake has a thread of its own, so that a stranger
    /// who connects and says nothing keeps nobody waiting.
    fn accept(&mut self, from: usize, secret: &Secret) -> Result<Vec<Arrival>, CollectiveError> {
        let (sender, receiver) = channel();
        let mut arrived: Vec<Option<Arrival>> = (from..self.place.size).map(|_| None).collect();
        self.listener
            .set_nonblocking(true)
            .map_err(CollectiveError::system("listening for the other ranks"))?;
        while arrived.iter().any(Option::is_none) {
            match self.listener.accept() {
                Ok((stream, _)) => welcome(stream, *secret, sender.clone()),
                Err(_) => self.pause()?,
            }
            for (greeting, stream) in receiver.try_iter() {
                // A rank that comes again has given up its first attempt.
                let index = greeting.rank.checked_sub(from);
                if let Some(place) = index.and_then(|index| arrived.get_mut(index)) {
                    *place = Some((greeting, stream));
                }
            }
            if Instant::now() >= self.until {
                let missing = (from..).zip(&arrived).filter(|(_, one)| one.is_none()).map(|(rank, _)| rank);
                let (missing, seconds) = (missing.collect(), self.timing.gather.as_secs());
                return Err(CollectiveError::Missing { missing, size: self.place.size, seconds });
            }
        }
        Ok(arrived.into_iter().flatten().collect())
    }

    fn pause(&mut self) -> Result<(), CollectiveError> {
        (self.watch)()?;
        thread::sleep(PAUSE);
        Ok(())
    }

    fn unreachable(&self, file: &Path, reason: String) -> CollectiveError {
        let (&Place { rank, size, .. }, seconds) = (self.place, self.timing.gather.as_secs());
        CollectiveError::Unreachable { rank, size, seconds, reason, file: file.to_owned() }
    }

    fn group(&self, arrived: Vec<Arrival>) -> Result<TcpGroup, CollectiveError> {
        let mut links: Vec<Option<Link>> = (0..self.place.size).map(|_| None).collect();
        for (Greeting { rank, host, .. }, stream) in arrived {
            let link = Link::new(rank, host, stream, self.timing);
            links[rank] = Some(link.map_err(CollectiveError::system("starting a thread"))?);
        }
        Ok(TcpGroup::new(self.place.rank, links))
    }
}

/// Sends who connected, unless it is a stranger.
fn welcome(mut stream: TcpStream, secret: Secret, sender: Sender<Arrival>) {
    let shake = move || {
        let _ = stream.set_nonblocking(false);
        if let Ok(greeting) = handshake::welcome(&mut stream, &secret) {
            // Nobody waits any more if all ranks are there.
            let _ = sender.send((greeting, stream));
        }
    };
    // Where no thread can be started, the rank tries again.
    let _ = thread::Builder::new().name("handshake".to_owned()).spawn(shake);
}
