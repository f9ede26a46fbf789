//! The children of this process. As process 1 of a container it also inherits the children that a hook leaves behind. Children that nothing
//! waits for are reaped here; the exit status of an awaited child is left alone.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::process::{self, Child, Command};
use std::sync::{Mutex, MutexGuard};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::os::thread::lock;

/// The children that are awaited elsewhere.
static AWAITED: Mutex<Awaited> = Mutex::new(Awaited { starting: 0, pids: Vec::new() });

struct Awaited {
    /// How many are being started, whose numbers are not known yet.
    starting: usize,
    pids: Vec<u32>,
}

fn awaited() -> MutexGuard<'static, Awaited> {
    lock(&AWAITED)
}

/// A child that is awaited until this is dropped.
pub(super) struct AwaitedChild(Child);

/// Starts a child that will be awaited.
pub(super) fn spawn(command: &mut Command) -> io::Result<AwaitedChild> {
    // The lock is not held meanwhile: the program may be on a disk that hangs.
    awaited().starting += 1;
    let spawned = command.spawn();
    let mut awaited = awaited();
    awaited.starting -= 1;
    if let Ok(child) = &spawned {
        awaited.pids.push(child.id());
    }
    spawned.map(AwaitedChild)
}

impl Deref for AwaitedChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for AwaitedChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for AwaitedChild {
    fn drop(&mut self) {
        let pid = self.id();
        awaited().pids.retain(|awaited| *awaited != pid);
    }
}

/// Reaps the children that have ended and that nothing waits for. Does nothing while one is being started. Does not block.
pub(crate) fn reap_orphans() {
    let awaited = awaited();
    if awaited.starting > 0 {
        return;
    }
    // What a process leaves behind goes to the first thread of process 1.
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", process::id()));
    let children = children.unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    for pid in pids.filter(|pid| !awaited.pids.contains(pid)) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}
