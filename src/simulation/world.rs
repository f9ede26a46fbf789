//! The world of one run: its time, what happens next, and the processes, which run until they wait. Everything is on one
//! thread; a process is a coroutine, so that the blocking code of production waits in it as in a thread of its own.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use generator::{Generator, Gn};

use super::host::Host;
use super::ledger::Ledger;
use super::options::Options;
use super::redis::{RedisEvent, RedisWeather};
use super::tape::{Tape, split_mix};
use super::wechat::WeChat;
use crate::os::file::disk::model::{self, Operation, Remains};

/// The true time at which each world begins, since 1970.
pub(super) const START: Duration = Duration::from_secs(1_800_000_000);

/// The stack of a process, in words.
const STACK: usize = 64 * 1024;

type Coroutine = Generator<'static, (), ()>;

/// What ends a process at once, as SIGKILL does.
pub(super) struct Killed;

/// What happens at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Event {
    /// A process goes on, if it still waits for this.
    Wake(usize, u64),
    Cron(usize),
    Read(usize),
    Weather,
    Stranger,
    Operator,
    Report(usize),
    PowerCut(usize),
    Clock(usize),
    Suspend(usize),
    /// The link of a mirror to its source is cut.
    Cut(usize),
    Kill(usize),
    FullDisk(usize, bool),
    /// Something is repeated, if it is still to be.
    Repeat(usize),
    Redis(RedisEvent),
    /// It is looked whether the server of this host runs.
    Serve(usize),
    /// A client of this host's server uses its token.
    Client(usize, usize),
    /// WeChat takes all tokens back.
    Revocation,
    /// A timer ends.
    Timer(u64),
}

/// A process, or the place of one.
#[derive(Default)]
struct Process {
    host: usize,
    is_running: bool,
    is_killed: bool,
    /// The process that this is a thread of, or this one itself.
    leader: ProcessId,
    /// It is stopped until then, with its threads.
    stopped_until: Duration,
    /// Counts its waits.
    waits: u64,
    /// What happens to it after so many more operations.
    fuse: Option<(u32, Fate)>,
    job: Option<Box<dyn FnOnce()>>,
}

/// A process, also if its place is taken by another one later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcessId {
    place: usize,
    number: u64,
}

/// What a process repeats on a thread of its own.
struct Repeated {
    leader: ProcessId,
    span: Duration,
    is_wanted: Weak<()>,
    work: Box<dyn FnMut() -> bool + Send>,
}

/// What happens to a process in the middle of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Killed,
    PowerCut,
    /// It is stopped for so many seconds, or its disk is slow.
    Stopped(u64),
}

pub(super) struct World {
    pub(super) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    queued: u64,
    pub(super) tape: Tape,
    /// For what decides nothing that matters.
    random: u64,
    processes: Vec<Process>,
    /// How many processes and threads were started.
    started: u64,
    repeated: Vec<Option<Repeated>>,
    /// The process whose threads end, too.
    ended: Option<ProcessId>,
    pub(super) redis: RedisWeather,
    current: Option<usize>,
    /// Whether files are looked at from outside of the processes.
    is_observing: bool,
    /// The host of which they are.
    pub(super) observed: Option<usize>,
    /// How long it takes, for what looks.
    pub(super) observed_for: Duration,
    power_cut: Option<usize>,
    pub(super) options: Options,
    pub(super) hosts: Vec<Host>,
    pub(super) wechat: WeChat,
    pub(super) ledger: Ledger,
    /// How often each situation came up.
    pub(super) counts: Vec<(&'static str, u64)>,
    pub(super) failure: Option<String>,
    trace: DefaultHasher,
    /// What happened, if it is to be told.
    story: Option<Vec<String>>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    /// Stacks are used again and never given back.
    static COROUTINES: RefCell<ManuallyDrop<Vec<Option<Coroutine>>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    /// The process that runs, for operations on files, which come often.
    static FUSE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Looks at the world, or changes it. `act` does not wait.
pub(super) fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| act(world.as_mut().expect("a world")))
}

/// Begins a world with these hosts.
pub(super) fn begin(tape: Tape, options: Options, is_told: bool) {
    model::install(options.hosts, step);
    super::redis::install();
    super::mirror::install();
    let hosts = (0..options.hosts).map(|host| Host::new(host, &options)).collect();
    let world = World {
        now: START,
        queue: BinaryHeap::new(),
        queued: 0,
        random: 1,
        processes: Vec::new(),
        started: 0,
        repeated: Vec::new(),
        ended: None,
        redis: RedisWeather::default(),
        current: None,
        is_observing: false,
        observed: None,
        observed_for: Duration::ZERO,
        power_cut: None,
        wechat: WeChat::new(&options),
        ledger: Ledger::default(),
        hosts,
        counts: Vec::new(),
        failure: None,
        trace: DefaultHasher::new(),
        story: is_told.then(Vec::new),
        tape,
        options,
    };
    WORLD.set(Some(world));
}

/// Ends the world, and all processes in it. Returns it.
pub(super) fn end() -> World {
    let processes = with(|world| world.processes.len());
    (0..processes).for_each(kill);
    model::uninstall();
    super::redis::uninstall();
    super::mirror::uninstall();
    super::serve::forget_all();
    WORLD.take().expect("a world")
}

impl World {
    /// Lets `event` happen after this long.
    pub(super) fn after(&mut self, span: Duration, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse((self.now + span, self.queued, event)));
    }

    /// Takes what happens next, before `end`.
    pub(super) fn next_event(&mut self, end: Duration) -> Option<Event> {
        let Reverse((at, ..)) = *self.queue.peek()?;
        if at >= end || self.failure.is_some() {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse((at, _, event)) = self.queue.pop()?;
        self.now = self.now.max(at);
        Some(event)
    }

    /// Forgets all that was to happen, but for what processes wait for.
    pub(super) fn forget_plans(&mut self) {
        self.queue.retain(|Reverse((.., event))| {
            matches!(event, Event::Wake(..) | Event::Repeat(_) | Event::Timer(_))
        });
    }

    pub(super) fn random(&mut self) -> u64 {
        split_mix(&mut self.random)
    }

    /// Counts a situation.
    pub(super) fn count(&mut self, situation: &'static str) {
        // By the address of the text: this is called often. One text may have several.
        match self.counts.iter_mut().find(|(it, _)| std::ptr::eq(*it, situation)) {
            Some((_, times)) => *times += 1,
            None => self.counts.push((situation, 1)),
        }
    }

    /// Notes something for the trace, by which two runs are compared, and for the story.
    pub(super) fn note(&mut self, what: &'static str, number: u64) {
        (self.now, what, number).hash(&mut self.trace);
        self.tell(|| format!("{what} {number}"));
    }

    /// Tells something of which the trace knows nothing.
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let at = (self.now - START).as_secs_f64();
            let process = self.current.map(|process| format!("[{process}] ")).unwrap_or_default();
            story.push(format!("{at:>12.3} {process}{}", what()));
        }
    }

    /// Returns the hash of all that was noted.
    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }

    /// Notes that a promise was broken. The first one counts.
    pub(super) fn fail(&mut self, what: String) {
        self.tell(|| format!("FAILED: {what}"));
        self.failure.get_or_insert(what);
    }

    /// Returns the host of the process that runs.
    pub(super) fn current_host(&self) -> Option<usize> {
        self.current.map(|process| self.processes[process].host)
    }

    /// Whether files are looked at from outside of the processes.
    pub(super) fn is_observing(&self) -> bool {
        self.is_observing
    }

    /// Returns the process that runs.
    pub(super) fn current_process(&self) -> ProcessId {
        self.current.map(|it| self.processes[it].leader).unwrap_or_default()
    }

    /// Returns a number that is given once.
    pub(super) fn next_number(&mut self) -> u64 {
        self.started += 1;
        self.started
    }

    /// Lets a process go on that waits to be woken.
    pub(super) fn wake_soon(&mut self, process: ProcessId) {
        if self.is_alive(process) {
            let waits = self.processes[process.place].waits;
            self.after(Duration::ZERO, Event::Wake(process.place, waits));
        }
    }

    /// Lets a process go on that waits, if it still waits for this.
    pub(super) fn end_wait(&mut self, (process, waits): (usize, u64)) {
        self.after(Duration::ZERO, Event::Wake(process, waits));
    }

    /// Notes that a process of this host was killed. It may have made a token end sooner that a client did not want.
    fn note_kill(&mut self, host: usize) {
        self.ledger.note_kill(self.now);
        if self.now < self.hosts[host].demanded_until {
            self.ledger.take_back(self.now);
        }
    }

    /// Notes that a client of this host's server wants another token.
    pub(super) fn note_demand(&mut self, host: usize) {
        self.hosts[host].demanded_until = self.now + Duration::from_secs(600);
    }

    /// Whether a process is stopped, or its host suspended.
    pub(super) fn is_halted(&self, process: ProcessId) -> bool {
        let it = &self.processes[process.place];
        it.stopped_until.max(self.hosts[it.host].suspended_until) > self.now
    }

    /// Whether a process runs on this host.
    pub(super) fn is_busy(&self, host: usize) -> bool {
        self.processes.iter().any(|it| it.is_running && it.host == host)
    }

    pub(super) fn is_alive(&self, process: ProcessId) -> bool {
        let it = &self.processes[process.place];
        it.is_running && it.leader == process
    }
}

/// Starts a process on this host, to which `fate` comes after so many operations.
pub(super) fn start(host: usize, fuse: Option<(u32, Fate)>, job: impl FnOnce() + 'static) {
    let process = start_in(None, host, fuse, Box::new(job));
    resume(process);
}

/// Starts a thread of this process.
pub(super) fn start_thread(leader: ProcessId, job: impl FnOnce() + 'static) {
    let host = with(|world| world.processes[leader.place].host);
    let thread = start_in(Some(leader), host, None, Box::new(job));
    resume(thread);
}

/// Starts a thread of the process that runs, which waits until this one does.
pub(super) fn start_thread_soon(fuse: Option<(u32, Fate)>, job: Box<dyn FnOnce() + Send>) {
    let (leader, host) = with(|world| (world.current_process(), world.current_host()));
    let thread = start_in(Some(leader), host.unwrap_or_default(), fuse, job);
    with(|world| {
        let waits = world.processes[thread].waits;
        world.after(Duration::ZERO, Event::Wake(thread, waits));
    });
}

fn start_in(
    leader: Option<ProcessId>,
    host: usize,
    fuse: Option<(u32, Fate)>,
    job: Box<dyn FnOnce()>,
) -> usize {
    with(|world| {
        let free = world.processes.iter().position(|it| !it.is_running);
        let process = free.unwrap_or(world.processes.len());
        if free.is_none() {
            world.processes.push(Process::default());
        }
        world.started += 1;
        let leader = leader.unwrap_or(ProcessId { place: process, number: world.started });
        let it = &mut world.processes[process];
        let waits = it.waits + 1;
        *it = Process {
            host,
            is_running: true,
            is_killed: false,
            leader,
            stopped_until: Duration::ZERO,
            waits,
            fuse,
            job: Some(job),
        };
        process
    })
}

/// Lets a process run until it waits or ends.
fn resume(process: usize) {
    let before = with(|world| {
        FUSE.set(world.processes[process].fuse.map(|(operations, _)| operations));
        world.current.replace(process)
    });
    let mut coroutine = COROUTINES.with_borrow_mut(|them| {
        while them.len() <= process {
            let number = them.len();
            them.push(Some(coroutine(number)));
        }
        them[process].take().expect("a process that does not run")
    });
    coroutine.resume();
    COROUTINES.with_borrow_mut(|them| them[process] = Some(coroutine));
    with(|world| {
        save_fuse(world, process);
        world.current = before;
    });
    restore_fuse(before);
    if let Some(leader) = with(|world| world.ended.take()) {
        kill_threads_of(leader);
    }
    if let Some(host) = with(|world| world.power_cut.take()) {
        cut_power(host);
    }
}

/// Lets the fuse burn on of the process that goes on.
fn restore_fuse(process: Option<usize>) {
    let fuse = with(|world| Some(world.processes[process?].fuse?.0));
    FUSE.set(fuse);
}

fn save_fuse(world: &mut World, process: usize) {
    let left = FUSE.take();
    let it = &mut world.processes[process];
    it.fuse = it.fuse.zip(left).map(|((_, fate), left)| (left, fate));
}

/// A coroutine that runs the jobs of a process, one after the other.
fn coroutine(process: usize) -> Coroutine {
    #[allow(deprecated, reason = "its successor has no way to wait deep in a job")]
    Gn::new_opt(STACK, move || {
        loop {
            let job = with(|world| world.processes[process].job.take());
            if let Some(job) = job {
                let result = catch_unwind(AssertUnwindSafe(job));
                let panicked = result.err().filter(|it| !it.is::<Killed>());
                with(|world| {
                    if let Some(panic) = panicked {
                        world.fail(format!("panic: {}", message(&*panic)));
                    }
                    let it = &mut world.processes[process];
                    it.is_running = false;
                    if it.leader.place == process {
                        world.ended = Some(it.leader);
                    }
                });
            }
            give_way();
        }
    })
}

/// Lets others go on, until this process is resumed.
#[allow(deprecated, reason = "its successor cannot be called deep in a job")]
fn give_way() {
    generator::yield_with(());
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

/// Lets time pass for the process that runs.
pub(super) fn sleep(span: Duration) {
    let waits = with(|world| {
        let process = world.current.expect("a process");
        let until = world.now + span;
        match world.queue.peek() {
            // Nothing happens before.
            Some(Reverse((at, ..))) if *at <= until => {
                world.processes[process].waits += 1;
                let waits = world.processes[process].waits;
                world.after(span, Event::Wake(process, waits));
                true
            }
            _ => {
                world.now = until;
                false
            }
        }
    });
    if waits {
        wait();
    }
}

/// Waits until [`World::wake_soon`].
pub(super) fn wait_to_be_woken() {
    with(|world| {
        let process = world.current.expect("a process");
        world.processes[process].waits += 1;
    });
    wait();
}

/// Lets the process that runs be woken after this long at the latest. Returns what it will be [waiting](wait) for.
pub(super) fn begin_to_wait(at_most: Duration) -> (usize, u64) {
    with(|world| {
        let process = world.current.expect("a process");
        world.processes[process].waits += 1;
        let waits = world.processes[process].waits;
        world.after(at_most, Event::Wake(process, waits));
        (process, waits)
    })
}

/// Waits until it is woken.
pub(super) fn wait() {
    give_way();
    if with(|world| world.current.is_some_and(|it| world.processes[it].is_killed)) {
        resume_unwind(Box::new(Killed));
    }
}

/// Does something in the middle of which the process that runs is neither stopped nor killed.
pub(super) fn undisturbed<R>(act: impl FnOnce() -> R) -> R {
    let fuse = FUSE.take();
    let done = act();
    FUSE.set(fuse);
    done
}

/// Lets a process go on that waits for this.
pub(super) fn wake(process: usize, waits: u64) {
    let is_due = with(|world| {
        let it = &world.processes[process];
        let until = world.hosts[it.host].suspended_until;
        let until = until.max(world.processes[it.leader.place].stopped_until);
        let is_current = it.is_running && it.waits == waits;
        if is_current && until > world.now {
            let rest = until - world.now;
            world.after(rest, Event::Wake(process, waits));
            return false;
        }
        is_current
    });
    if is_due {
        resume(process);
    }
}

/// Ends a process at once.
fn kill(process: usize) {
    let is_running = with(|world| {
        let it = &mut world.processes[process];
        it.is_killed = it.is_running;
        it.is_running
    });
    if is_running {
        resume(process);
        with(|world| world.note_kill(world.processes[process].host));
    }
}

/// Ends all processes of a host.
pub(super) fn kill_all_on(host: usize) {
    let processes = with(|world| world.processes.len());
    for process in 0..processes {
        if with(|world| world.processes[process].host == host) {
            kill(process);
        }
    }
}

/// Ends a process, and its threads, of which one has ended.
fn kill_threads_of(leader: ProcessId) {
    let processes = with(|world| world.processes.len());
    for process in 0..processes {
        let is_thread = |it: &Process| it.is_running && it.leader == leader;
        if with(|world| is_thread(&world.processes[process])) {
            kill(process);
        }
    }
}

/// Has the process that runs repeat `work` on a thread of its own, until it returns false or what is returned is dropped.
pub(super) fn repeat(span: Duration, work: Box<dyn FnMut() -> bool + Send>) -> Arc<()> {
    let wanted = Arc::new(());
    with(|world| {
        let leader = world.current.map(|it| world.processes[it].leader).unwrap_or_default();
        let repeated = Repeated { leader, span, is_wanted: Arc::downgrade(&wanted), work };
        let free = world.repeated.iter().position(Option::is_none);
        let place = free.unwrap_or(world.repeated.len());
        if free.is_none() {
            world.repeated.push(None);
        }
        world.repeated[place] = Some(repeated);
        world.after(span, Event::Repeat(place));
    });
    wanted
}

/// Repeats what a process repeats, if it still does.
pub(super) fn do_again(place: usize) {
    let taken = with(|world| {
        let it = world.repeated[place].take()?;
        if it.is_wanted.strong_count() == 0 || !world.is_alive(it.leader) {
            return None;
        }
        let leader = &world.processes[it.leader.place];
        let until = leader.stopped_until.max(world.hosts[leader.host].suspended_until);
        if until > world.now {
            world.repeated[place] = Some(it);
            world.after(until - world.now, Event::Repeat(place));
            return None;
        }
        Some(it)
    });
    let Some(mut it) = taken else { return };
    // While it works its place is another's.
    start_thread(it.leader, move || {
        if (it.work)() {
            with(|world| {
                let span = it.span;
                world.repeated.push(Some(it));
                world.after(span, Event::Repeat(world.repeated.len() - 1));
            });
        }
    });
}

/// Cuts a host's power. It starts again at once.
pub(super) fn cut_power(host: usize) {
    with(|world| {
        world.note("power cut", host as u64);
        world.count("power cut");
        let mirrors = (host + 1..world.hosts.len()).filter(|it| {
            let source = world.options.source_of(*it);
            source == Some(host) || source.is_some() && world.options.is_chain
        });
        world.ledger.note_power_cut(host, mirrors, world.now);
    });
    kill_all_on(host);
    let machine = model::machine(host);
    let pending = machine.borrow().pending_names();
    let lasting = with(|world| {
        if pending > 0 {
            world.count("power cut with names that are not synced");
        }
        pending - world.tape.below(pending as u64 + 1) as usize
    });
    machine.borrow_mut().cut_power(lasting, || {
        with(|world| {
            world.count("power cut with content that is not synced");
            match world.tape.below(4) {
                0 => Remains::New,
                1 => Remains::Old,
                2 => Remains::FirstHalf,
                _ => Remains::Zeros,
            }
        })
    });
    with(|world| {
        let now = world.now;
        world.hosts[host].boot(now);
        if world.hosts[host].is_clock_wrong {
            world.ledger.note_wrong_age(host);
        }
    });
}

/// Called before each operation on a file, and at each step of a request.
pub(super) fn step(_: Operation) {
    match FUSE.get() {
        None => return,
        Some(left) if left > 0 => return FUSE.set(Some(left - 1)),
        Some(_) => {}
    }
    let fate = with(|world| {
        if world.is_observing {
            return None;
        }
        FUSE.set(None);
        let process = world.current?;
        let (_, fate) = world.processes[process].fuse.take()?;
        if let Fate::Stopped(secs) = fate {
            let leader = world.processes[process].leader.place;
            world.processes[leader].stopped_until = world.now + Duration::from_secs(secs);
            if world.options.has_redis {
                let until = world.now + Duration::from_secs(secs);
                world.ledger.note_trouble(until);
            }
        }
        world.note("fate", process as u64);
        world.tell(|| format!("{fate:?}"));
        match fate {
            Fate::Killed => {
                world.ended = Some(world.processes[process].leader);
                world.count("killed at an operation");
            }
            Fate::PowerCut => {
                world.count("power cut at an operation");
                world.power_cut = world.current_host();
            }
            Fate::Stopped(_) => world.count("stopped at an operation"),
        }
        Some(fate)
    });
    match fate {
        None => {}
        Some(Fate::Stopped(secs)) => sleep(Duration::from_secs(secs)),
        Some(Fate::Killed | Fate::PowerCut) => {
            with(|world| world.note_kill(world.current_host().unwrap_or_default()));
            resume_unwind(Box::new(Killed));
        }
    }
}

/// Looks at what is published on a host, from outside of the processes.
pub(super) fn observe<R>(host: usize, look: impl FnOnce() -> R) -> R {
    let before = with(|world| {
        world.observed = Some(host);
        mem::replace(&mut world.is_observing, true)
    });
    let fuse = FUSE.take();
    let seen = look();
    FUSE.set(fuse);
    with(|world| (world.is_observing, world.observed_for) = (before, Duration::ZERO));
    seen
}
