//! Which process holds a lease, and whether it still lives.

use std::fs;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A process, distinct from all others on all machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The name of its machine, for people.
    host: String,
    /// The start of the machine's system and the space of process numbers in which `pid` is meant. Containers of one machine
    /// have spaces of their own.
    system: String,
    pid: u32,
    /// When it started, in ticks of that system: a later process can have its number.
    started: u64,
}

/// What can be said of a holder from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Lives,
    Dead,
    /// It runs on another system. Only its heartbeat tells.
    Elsewhere,
}

impl Holder {
    /// This process.
    pub(super) fn this() -> &'static Self {
        static THIS: OnceLock<Holder> = OnceLock::new();
        THIS.get_or_init(|| {
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
            let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
            let boot = read("/proc/sys/kernel/random/boot_id");
            let pid = std::process::id();
            Self {
                host: read("/proc/sys/kernel/hostname"),
                system: format!("{boot} {}", space.display()),
                pid,
                started: started(pid).unwrap_or(0),
            }
        })
    }

    pub(super) fn life(&self) -> Life {
        let this = Self::this();
        match this.started > 0 && this.system == self.system {
            true if started(self.pid) == Some(self.started) => Life::Lives,
            true => Life::Dead,
            false => Life::Elsewhere,
        }
    }

    /// `process 12 on host`.
    pub(super) fn name(&self) -> String {
        format!("process {} on {}", self.pid, self.host)
    }
}

/// When a living process of this system started; `None` where the system does not say.
fn started(pid: u32) -> Option<u64> {
    // proc(5): the name in brackets may contain anything; the state follows, and the start is the 22nd value of all.
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut values = text.rsplit_once(')')?.1.split_whitespace();
    let state = values.next()?;
    // A process that nobody has waited for yet still has its number.
    if matches!(state, "Z" | "X") { None } else { values.nth(18)?.parse().ok() }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let this = Holder::this();
        assert_eq!(this.life(), Life::Lives);
        assert_eq!(
            Holder { started: this.started + 1, ..this.clone() }.life(),
            Life::Dead,
            "its number was reused"
        );
        assert_eq!(Holder { system: "another".into(), ..this.clone() }.life(), Life::Elsewhere);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("there is a sleep");
        let pid = child.id();
        let holder = Holder { pid, started: started(pid).expect("it lives"), ..this.clone() };
        assert_eq!(holder.life(), Life::Lives);
        child.kill().expect("it is ours");
        // The kernel takes a moment.
        while holder.life() == Life::Lives {
            std::thread::yield_now();
        }
        assert_eq!(holder.life(), Life::Dead, "though nobody has waited for it");
        child.wait().expect("it is ours");
    }
}
